"""The bus: who is alive, calls between processes, and events, all over Redis. Media never depends on it."""

from broadcaster.bus.bus import Bus
from broadcaster.bus.embedded import EmbeddedRedis
from broadcaster.bus.leases import Lease, Living
from broadcaster.bus.messages import new_epoch
from broadcaster.bus.registry import Registry
from broadcaster.bus.server import BusSettings
from broadcaster.bus.subscription import Subscription

__all__ = ["Bus", "BusSettings", "EmbeddedRedis", "Lease", "Living", "Registry", "Subscription", "new_epoch"]
