"""Registry: a cached view of who is alive, for processes that must decide at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from broadcaster.bus.leases import Living
from broadcaster.bus.messages import GatewayLease, StreamLease, WorkerLease, key
from broadcaster.bus.server import end
from broadcaster.errors import BusUnavailableError

if TYPE_CHECKING:
    from broadcaster.bus.bus import Bus

log = logging.getLogger(__name__)

_GUARD = 10.0
"""Seconds for which one registry has the say about a lost worker; another takes over if that one died meanwhile."""


class Registry:
    """`workers`, `streams` and `gateways` by id, refreshed in the background.

    During an outage the last view stays and `fresh` turns False. `on_lost(lease)` is called for a worker whose lease
    expired without release, once for all registries of the cluster that have it: the one that is called publishes the
    event.
    """

    def __init__(self, bus: Bus, *, on_lost: Callable[[WorkerLease], None] | None = None) -> None:
        self._bus = bus
        self._on_lost = on_lost
        self._task: asyncio.Task[None] | None = None
        self._refreshed = float("-inf")
        self._steady_since = float("inf")
        self._known: dict[str, WorkerLease] = {}
        self.workers: dict[str, Living[WorkerLease]] = {}
        self.streams: dict[str, Living[StreamLease]] = {}
        self.gateways: dict[str, Living[GatewayLease]] = {}

    @property
    def age(self) -> float:
        """Seconds since the last good refresh: a lease is by so much older than its `Living.age` says."""
        return asyncio.get_running_loop().time() - self._refreshed

    @property
    def fresh(self) -> bool:
        """Whether a refresh succeeded lately (`BusSettings.fresh_for`)."""
        return self.age <= self._bus.settings.fresh_for

    async def start(self) -> None:
        """Refresh once (BusUnavailableError) and go on in the background."""
        await self.refresh()
        self._task = asyncio.create_task(self._run(), name="registry")

    async def close(self) -> None:
        if self._task is not None:
            await end(self._task)
            self._task = None

    async def refresh(self) -> None:
        """Read all leases now; BusUnavailableError leaves the last view as it was."""
        now = asyncio.get_running_loop().time()
        found = await self._bus.roll.call(("worker", "stream", "gateway"))
        if now - self._refreshed > self._bus.settings.fresh_for:
            self._steady_since = now
        self._refreshed = now
        self.workers, dead_workers = found["worker"]
        self.streams, dead_streams = found["stream"]
        self.gateways, dead_gateways = found["gateway"]
        self._known.update((name, living.lease) for name, living in self.workers.items())
        for name in dead_streams:
            await self._bus.roll.strike("stream", name)
        for name in dead_gateways:
            await self._bus.roll.strike("gateway", name)
        # After an outage everybody's lease has expired, and the living need a moment to come back.
        if self._on_lost is not None and now - self._steady_since >= self._bus.settings.lease_ttl:
            for name in dead_workers:
                await self._bury(name, self._on_lost)
        for name in self._known.keys() - self.workers.keys() - set(dead_workers):
            del self._known[name]

    async def _bury(self, name: str, on_lost: Callable[[WorkerLease], None]) -> None:
        lease = self._known.get(name)
        if lease is not None:
            guard = key("lost", name, str(lease.epoch))
            with self._bus.server.errors():
                if not await self._bus.server.redis.set(guard, b"", nx=True, px=int(_GUARD * 1000)):
                    return
            try:
                on_lost(lease)
            except Exception:
                log.exception("the loss of worker %s could not be told", name)
        await self._bus.roll.strike("worker", name)

    async def _run(self) -> None:
        lost = False
        while True:
            await asyncio.sleep(self._bus.settings.refresh_every)
            try:
                await self.refresh()
            except BusUnavailableError as error:
                if not lost:
                    log.warning("the registry is not fresh: %s", error)
                lost = True
            else:
                lost = False
