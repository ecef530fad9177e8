"""The frame link: encoded frames from a broadcaster to its workers over TCP, demand and keyframe requests back."""

from broadcaster.link.client import ClientLimits, LinkClient
from broadcaster.link.server import LinkServer, LinkStatistics, ServerLimits
from broadcaster.link.wire import RungDemand, WireLimits

__all__ = [
    "ClientLimits",
    "LinkClient",
    "LinkServer",
    "LinkStatistics",
    "RungDemand",
    "ServerLimits",
    "WireLimits",
]
