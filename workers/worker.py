"""Worker: the sessions of one process, from the gateway's calls to the viewers' ends."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from broadcaster.adaptation.neighbours import Neighbours
from broadcaster.bus import Bus, new_epoch
from broadcaster.bus.messages import (
    Joined,
    LeaveParams,
    LeaveResult,
    OfferParams,
    OfferResult,
    PatchParams,
    PatchResult,
    SessionRecord,
    ViewersParams,
    ViewersResult,
    WorkerLease,
    WorkerNotice,
    WorkerState,
)
from broadcaster.clock import WallClock
from broadcaster.errors import BusError, OverloadedError, SessionNotFoundError
from broadcaster.stream import StreamDescription
from workers import sdp
from workers.forward import default_fanout
from workers.overload import OverloadMeter
from workers.steering import DEFAULT_STEERING_SETTINGS, SteeringSettings
from workers.streams import Feeds
from workers.transport import Endpoint
from workers.viewer import Viewer

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True)
class WorkerSettings:
    capacity: int = 500
    """Viewers that the worker takes."""
    tick: float = 1.0
    """Seconds between two looks at every viewer: sender reports, adaptation, stats."""
    refresh: int = 15
    """Ticks between two renewals of the sessions' records."""
    audience: int = 2
    """Ticks between two words to the broadcasters on what their viewers' paths carry."""
    tidy: float = 0.1
    """Seconds that the record of a session that has ended may stay, so that those of a crowd go together."""
    drain: float = 10.0
    """Seconds over which a draining worker sends its viewers away."""
    late: float = 5.0
    """Seconds after which a viewer that has not connected gives way to a newcomer, where all places are taken."""
    steering: SteeringSettings = DEFAULT_STEERING_SETTINGS


class Worker:
    """Hosts viewers: answers the gateways' calls, watches and adapts every viewer, publishes what happens."""

    def __init__(self, id: str, endpoint: Endpoint, bus: Bus, settings: WorkerSettings | None = None) -> None:  # noqa: A002
        self.id = id
        self.settings = settings or WorkerSettings()
        self.viewers: dict[str, Viewer] = {}
        """By secret."""
        self._endpoint = endpoint
        self._bus = bus
        self._clock = WallClock.anchored()
        self._feeds = Feeds(
            self._locate, default_fanout(self._clock), on_description=self._described, on_frame=endpoint.stir
        )
        self._state: WorkerState = "ready"
        self._joining = 0
        self._since = time.time()
        self._epoch = new_epoch()
        self.replaced = asyncio.Event()
        """Set when another process has taken this worker's name."""
        self._lease = bus.lease("worker", id, self._describe, on_taken=self.replaced.set)
        self._links: dict[str, list[str]] = {}
        self._meter = OverloadMeter()
        self._neighbours: dict[tuple[str, str], Neighbours[str]] = {}
        self._gone: list[str] = []
        """Secrets of sessions that have ended and whose records are still to be deleted."""
        self._ticks = 0
        self._ticker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    async def start(self) -> None:
        """Join the cluster: from here on gateways send viewers."""
        await self._bus.serve(
            self.id, {"offer": self._offer, "patch": self._patch, "leave": self._leave, "viewers": self._viewers}
        )
        await self._lease.acquire()
        self._ticker = asyncio.create_task(self._tick_forever())
        self._bus.publish("up", self._notice(), stream=None)

    async def drain(self) -> None:
        """Take no more viewers and send those here away, evenly over `settings.drain` seconds."""
        self._state = "draining"
        self._lease.renew_soon()
        self._bus.publish("draining", self._notice(), stream=None)
        waiting = list(self.viewers.values())
        for number, viewer in enumerate(waiting):
            if number:
                await asyncio.sleep(self.settings.drain / len(waiting))
            viewer.close("stopped")

    async def close(self) -> None:
        """Leave the cluster; viewers still here are sent away at once."""
        self._state = "draining"
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        for viewer in list(self.viewers.values()):
            viewer.close("stopped")
        await self._lease.release()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._feeds.close()
        await self._endpoint.close()

    # --- calls of the gateways ---------------------------------------------------------------------------------

    async def _offer(self, params: dict[str, Any]) -> OfferResult:
        request = msgspec.convert(params, OfferParams)
        started = time.monotonic()
        self._check_ready()
        if not self._place_left():
            raise OverloadedError(f"The worker {self.id} has all the {self.settings.capacity} viewers that it takes.")
        offer = sdp.parse_offer(request.sdp)
        self._joining += 1
        try:
            candidates = await self._endpoint.candidates()
            feed, description = await self._feeds.use(request.stream)
        finally:
            self._joining -= 1
        # Nothing is awaited before the viewer is in the table: the feed is its to release, the description still true.
        secret = secrets.token_urlsafe(24)
        try:
            self._check_ready()
            viewer = Viewer(
                f"v-{secrets.token_hex(4)}",
                offer,
                feed,
                description,
                self._endpoint,
                self._bus,
                worker=self.id,
                clock=self._clock,
                started=started,
                on_left=lambda viewer: self._left(secret, viewer),
                settings=self.settings.steering,
            )
        except BaseException:
            self._feeds.release(request.stream)
            raise
        self.viewers[secret] = viewer
        self._lease.renew_soon()
        self._bus.publish("joined", Joined(worker=self.id), stream=viewer.stream, viewer=viewer.id)
        record = SessionRecord(worker=self.id, stream=viewer.stream, viewer=viewer.id, since=viewer.since)
        try:
            await self._bus.put_session(secret, record)
        except BaseException:  # the caller's deadline, too: nobody would ever hear of this session
            viewer.close("failed")
            raise
        if secret not in self.viewers:
            await self._bus.delete_session(secret)
            raise OverloadedError(f"The worker {self.id} had to end the session at once; try again.")
        return OfferResult(secret=secret, viewer=viewer.id, etag=viewer.etag, sdp=viewer.answer(candidates))

    def _place_left(self) -> bool:
        """Whether a viewer can be taken; one that is late to connect makes place for it."""
        if len(self.viewers) + self._joining < self.settings.capacity:
            return True
        oldest = next((viewer for viewer in self.viewers.values() if viewer.connectionState != "connected"), None)
        if oldest is None or oldest.age < self.settings.late:
            return False
        oldest.close("timeout")
        return True

    def _check_ready(self) -> None:
        if self._state != "ready":
            raise OverloadedError(f"The worker {self.id} is about to stop; try again.")

    async def _patch(self, params: dict[str, Any]) -> PatchResult:
        request = msgspec.convert(params, PatchParams)
        return await self._session(request.secret).patch(request.if_match, request.fragment)

    async def _leave(self, params: dict[str, Any]) -> LeaveResult:
        request = msgspec.convert(params, LeaveParams)
        viewer = self._session(request.secret)
        viewer.close(request.reason)
        return LeaveResult(viewer=viewer.id)

    async def _viewers(self, params: dict[str, Any]) -> ViewersResult:
        stream = msgspec.convert(params, ViewersParams).stream
        return ViewersResult(
            viewers=[viewer.status() for viewer in self.viewers.values() if stream in (None, viewer.stream)]
        )

    def _session(self, secret: str) -> Viewer:
        viewer = self.viewers.get(secret)
        if viewer is None:
            raise SessionNotFoundError("The session has ended, or never was; make a new one by POST.")
        return viewer

    # --- the viewers' lives --------------------------------------------------------------------------------------

    def _left(self, secret: str, viewer: Viewer) -> None:
        del self.viewers[secret]
        self._feeds.release(viewer.stream)
        self._lease.renew_soon()
        self._gone.append(secret)
        if len(self._gone) == 1:
            self._later(self._tidy())

    async def _tidy(self) -> None:
        await asyncio.sleep(self.settings.tidy)
        gone, self._gone = self._gone, []
        await self._bus.delete_session(*gone)

    def _described(self, description: StreamDescription) -> None:
        for (stream, _), neighbours in self._neighbours.items():
            if stream == description.name:
                neighbours.relevel()
        for viewer in list(self.viewers.values()):
            if viewer.stream == description.name:
                _alone(viewer, viewer.relevel, description)

    async def _locate(self, stream: str) -> list[str]:
        try:
            streams = await self._bus.streams()
        except BusError:
            # A frame link that broke while Redis is away is found again where it was: media does not need Redis.
            return self._links.get(stream, [])
        self._links = {living.lease.name: list(living.lease.link) for living in streams}
        return self._links.get(stream, [])

    async def _tick_forever(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self.settings.tick, loop.time())
            await asyncio.sleep(due - loop.time())
            try:
                self._tick(loop.time() - due)
            except Exception:
                log.exception("a look at the viewers failed")

    def _tick(self, lag: float) -> None:
        """`lag`: by how many seconds it comes late."""
        now = time.monotonic()
        self._measure_load(now, lag)
        self._compare_neighbours(now)
        for feed in self._feeds.running():
            feed.forwarder.tick(now)
        for viewer in list(self.viewers.values()):
            _alone(viewer, viewer.tick, now)
        if self._ticks % self.settings.audience == 0:
            self._tell_audiences()
        self._endpoint.calm = not any(viewer.playing for viewer in self.viewers.values())
        self._ticks += 1
        if self.viewers and self._ticks % self.settings.refresh == 0:
            self._later(self._bus.refresh_sessions(list(self.viewers)))

    def _measure_load(self, now: float, lag: float) -> None:
        """Our own overload is no fault of anybody's network: all viewers give up frames alike."""
        counts = {viewer.id: found for viewer in self.viewers.values() if (found := viewer.counts) is not None}
        before = self._meter.overloaded
        overloaded = self._meter.update(now, lag=lag, counts=counts)
        if overloaded != before:
            said = "overloaded: all viewers get fewer frames" if overloaded else "no longer overloaded"
            log.warning("%s; the event loop is late by %.0f ms", said, 1000 * lag)
        for viewer in self.viewers.values():
            viewer.steering.adapter.overloaded = overloaded

    def _compare_neighbours(self, now: float) -> None:
        """Viewers of one household may share a line, and then nobody should have all of it.

        Those of one stream, because only the levels of one ladder compare.
        """
        behind: dict[tuple[str, str], list[Viewer]] = {}
        for viewer in self.viewers.values():
            viewer.steering.neighbours = None
            if (line := viewer.line) is not None:
                behind.setdefault((viewer.stream, line), []).append(viewer)
        self._neighbours = {key: self._neighbours.get(key) or Neighbours() for key in behind}
        for key, viewers in behind.items():
            places = {viewer.id: (viewer.steering.adapter.place, viewer.queue) for viewer in viewers}
            self._neighbours[key].compare(now, places)
            for viewer in viewers:
                viewer.steering.neighbours = self._neighbours[key]

    def _tell_audiences(self) -> None:
        found: dict[str, dict[int, list[float]]] = {}
        for viewer in self.viewers.values():
            if (carried := viewer.steering.carried) is not None:
                found.setdefault(viewer.stream, {}).setdefault(carried[0], []).append(carried[1])
        for feed in self._feeds.running():
            feed.tell_audience(found.get(feed.stream, {}))

    def _later(self, body: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(body)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- what the cluster sees -----------------------------------------------------------------------------------

    def _describe(self) -> WorkerLease:
        streams: dict[str, int] = {}
        for viewer in self.viewers.values():
            streams[viewer.stream] = streams.get(viewer.stream, 0) + 1
        return WorkerLease(
            id=self.id,
            epoch=self._epoch,
            pid=os.getpid(),
            host=socket.gethostname(),
            capacity=self.settings.capacity,
            viewers=len(self.viewers),
            streams=streams,
            state=self._state,
            udp_port=self._endpoint.port,
            since=self._since,
        )

    def _notice(self) -> WorkerNotice:
        return WorkerNotice(
            worker=self.id,
            host=socket.gethostname(),
            capacity=self.settings.capacity,
            viewers=len(self.viewers),
        )


def _alone(viewer: Viewer, step: Callable[[_T], None], argument: _T) -> None:
    """Take a step of one viewer's; a fault in it ends that viewer, and nobody else notices."""
    try:
        step(argument)
    except Exception:
        log.exception("viewer %s failed", viewer.id)
        viewer.close("failed")
