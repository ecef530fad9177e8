"""`beamcast broadcast`: one source, encoded once per rung, on the air as a stream."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

import av

from broadcaster.adaptation.audience import Histogram, merged, quantile
from broadcaster.adaptation.decision import State
from broadcaster.adaptation.plan import Plan, PlannedRung, Planner, PlanSettings
from broadcaster.adaptation.words import reason
from broadcaster.bus import Bus, Lease, new_epoch
from broadcaster.bus.messages import Adaptation, Operating, RungInfo, StreamLease
from broadcaster.bus.server import end
from broadcaster.errors import EncoderError
from broadcaster.ladder import Ladder, derive_rungs, parse_rungs
from broadcaster.ladder.opus import BITRATE, OpusEncoder, sound_bitrate
from broadcaster.link import LinkServer, RungDemand
from broadcaster.link.address import join_address, split_address
from broadcaster.process import Shutdown, log_level, run
from broadcaster.settings import Parser, port, redis_url
from broadcaster.source import SharedSource, Sound, SourceStatus, jpeg, open_source
from broadcaster.status import leave_id
from broadcaster.stream import LAYER_SHARES, OPUS, EncodedFrame, Rung, StreamDescription

log = logging.getLogger(__name__)

THUMBNAIL_EVERY = 2.0
"""Seconds between two thumbnails."""

ENCODERS_EVERY = 1.0
"""Seconds between two looks at the encoders' bitrates."""

PLAN_EVERY = 10.0
"""Least seconds between two plans for the rungs' bitrates, since each change costs a keyframe."""

PLAN = PlanSettings()


def main(arguments: list[str]) -> int:
    """Run `beamcast broadcast` until it is told to stop, and return its exit code."""
    parser = Parser(prog="beamcast broadcast", description="Encode a source and put it on the air as a stream.")
    parser.source()
    parser.option("--redis-url", redis_url, default="redis://127.0.0.1:6379", metavar="URL", help="the Redis to use")
    parser.option("--link-host", default="127.0.0.1", metavar="HOST", help="the address that workers connect to")
    parser.option("--link-port", port, default=0, metavar="PORT", help="the TCP port for workers; 0 takes a free one")
    parser.option(
        "--link-announce",
        many=True,
        metavar="HOST",
        help="a host name or address that workers are told instead; may be given again",
    )
    parser.option(
        "--ladder", metavar="TEXT", help="the rungs, like 1280x720@2500k,640x360@800k; derived from the source without"
    )
    parser.option(
        "--audio", sound_bitrate, default=BITRATE, metavar="BITRATE", help="the bitrate of the sound, like 64k, or off"
    )
    parser.option("--id", help="the broadcaster's name in events (default: broadcaster-NAME)")
    parser.option("--log-level", log_level, metavar="LEVEL", help="debug, info, warning or error")
    options = parser.parse_args(arguments)
    options.id = options.id or f"broadcaster-{options.stream}"
    return run(lambda shutdown: serve(options, shutdown), name=options.id, level=options.log_level)


async def serve(options: argparse.Namespace, shutdown: Shutdown) -> None:
    """Open the source, and broadcast it until `shutdown`."""
    source = await asyncio.to_thread(open_source, options.source, name=options.stream, sound=bool(options.audio))
    try:
        size = source.width, source.height, source.fps
        rungs = parse_rungs(options.ladder, *size) if options.ladder else derive_rungs(*size)
        bus = Bus(options.redis_url, source=options.id)
        await bus.start()
        try:
            await Broadcast(options, source, rungs, bus).run(shutdown)
        finally:
            await bus.close()
    finally:
        await asyncio.to_thread(source.close)


def public_source(spec: str) -> str:
    """`spec` as it may be shown: without the user, password and query of a URL."""
    if "://" not in spec:
        return spec
    url = urlsplit(spec)
    return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))


def planner(rungs: Sequence[Rung]) -> Planner:
    """Plans for these rungs at their own bitrates."""
    return Planner(
        [
            PlannedRung(
                bitrate=rung.bitrate,
                lines=min(rung.width, rung.height),
                shares=LAYER_SHARES[rung.layers],
                frames=tuple(2.0 ** (layer - rung.layers + 1) for layer in range(rung.layers)),
            )
            for rung in rungs
        ]
    )


def _followed(old: Rung, new: Rung, audience: Histogram, plan: Plan | None) -> Adaptation:
    return Adaptation(
        rule="audience",
        from_=Operating(fps=old.fps, rung=old.name, bitrate=old.bitrate),
        to=Operating(fps=new.fps, rung=new.name, bitrate=new.bitrate),
        inputs={
            "viewers": float(sum(audience.values())),
            "estimate_median": quantile(audience, 0.5),
            "quality_before": plan.before if plan else None,
            "quality_after": plan.after if plan else None,
        },
        thresholds={"quality_gain": PLAN.gain},
        reason=reason("audience", _state(old), _state(new), {}),
    )


def _state(rung: Rung) -> State:
    return State(fps=rung.fps, rung=rung.name, bitrate=rung.bitrate)


class Broadcast:
    """A stream on the air: source -> ladder -> frame link, and its lease and thumbnails on the bus. Its sound goes past
    the ladder: it is encoded once, in the thread that it comes in.

    Pictures and frames come in threads of their own; everything else happens in the event loop.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        source: SharedSource,
        rungs: tuple[Rung, ...],
        bus: Bus,
    ) -> None:
        self._options = options
        self._source = source
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._since = time.time()
        self._opus = OpusEncoder(options.audio) if source.sound else None
        sound = OPUS if self._opus is not None else None
        self._description = StreamDescription(options.stream, new_epoch(), rungs, sound)
        self._addresses: list[str] = []
        self._ladder = Ladder(rungs, self._frame)
        self._planner = planner(rungs)
        self._planned = tuple(rung.bitrate for rung in rungs)
        self._plan: Plan | None = None
        self._plan_at = 0.0
        self._link = LinkServer(
            self._description, on_keyframe=self._ladder.request_keyframe, on_demand=self._demand_changed
        )
        self._taken = asyncio.Event()
        self._lease: Lease = bus.lease("stream", options.stream, self._record, on_taken=self._taken.set)

    async def run(self, shutdown: Shutdown) -> None:
        """Broadcast until `shutdown`. ConfigurationError when the stream is on the air already."""
        try:
            await self._listen()
            if await self._acquired(shutdown):
                await self._on_air(shutdown)
        finally:
            await self._lease.release()
            await self._link.close()
            await asyncio.to_thread(self._ladder.close)

    async def _listen(self) -> None:
        listening = await self._link.start(self._options.link_host, self._options.link_port)
        number = split_address(listening[0])[1]
        announced = [join_address(host, number) for host in self._options.link_announce]
        self._addresses = announced or listening

    async def _acquired(self, shutdown: Shutdown) -> bool:
        """Whether the lease is ours; it is not when the process is stopped while it waits for it."""
        acquiring = asyncio.create_task(self._lease.acquire())
        stopping = asyncio.create_task(shutdown.wait())
        await asyncio.wait({acquiring, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (acquiring, stopping):
            task.cancel()
        acquired, _ = await asyncio.gather(acquiring, stopping, return_exceptions=True)
        if isinstance(acquired, asyncio.CancelledError):
            return False
        if isinstance(acquired, BaseException):
            raise acquired
        return True

    async def _on_air(self, shutdown: Shutdown) -> None:
        leave_id("stream", self._options.stream)
        self._source.on_change(self._source_changed)
        leave = self._source.hear(self._sound)
        unsubscribe = self._source.subscribe(self._ladder.push)
        rungs = ", ".join(f"{rung.name} {rung.bitrate // 1000} kbit/s" for rung in self._description.rungs)
        log.info("%s is on the air at %s: %s", self._options.stream, ", ".join(self._addresses), rungs)
        thumbnails = asyncio.create_task(self._show_thumbnails(), name="thumbnails")
        encoders = asyncio.create_task(self._follow_encoders(), name="encoders")
        taken = asyncio.create_task(self._taken.wait(), name="lease taken")
        stopping = asyncio.create_task(shutdown.wait(), name="shutdown")
        try:
            await asyncio.wait({taken, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(thumbnails, encoders, taken, stopping)
            unsubscribe()
            leave()

    async def _show_thumbnails(self) -> None:
        while True:
            picture = self._source.latest()
            if picture is None:
                await asyncio.sleep(THUMBNAIL_EVERY / 20)
                continue
            try:
                await self._bus.put_picture(self._options.stream, await asyncio.to_thread(jpeg, picture))
            except av.FFmpegError:
                log.exception("no thumbnail could be made")
            await asyncio.sleep(THUMBNAIL_EVERY)

    async def _follow_encoders(self) -> None:
        """Let the rungs' bitrates follow their audience, and tell workers and subscribers when one has."""
        while True:
            await asyncio.sleep(ENCODERS_EVERY)
            self._follow_audience()
            before = self._description.rungs
            rungs = tuple(
                replace(rung, bitrate=statistics.target_bitrate)
                for rung, statistics in zip(before, self._ladder.statistics(), strict=True)
            )
            if rungs == before:
                continue
            self._description = replace(self._description, rungs=rungs)
            self._link.describe(self._description)
            self._lease.renew_soon()
            for old, new in zip(before, rungs, strict=True):
                if old != new:
                    change = _followed(old, new, self._audience, self._plan)
                    self._bus.publish("adaptation", change, stream=self._description.name)

    def _frame(self, frame: EncodedFrame) -> None:
        """Called in an encoder's thread."""
        self._loop.call_soon_threadsafe(self._link.publish, frame)

    def _sound(self, sound: Sound) -> None:
        """Called in the thread of the source's sound. Nobody listens: nothing is encoded."""
        if self._opus is None or not self._link.listeners:
            return
        try:
            encoded = self._opus.encode(sound)
        except EncoderError:
            log.exception("there is no sound from here on")
            self._opus = None
            return
        if encoded is not None:
            self._loop.call_soon_threadsafe(self._link.publish_sound, encoded)

    def _source_changed(self, status: SourceStatus) -> None:
        """Called in the source's thread."""
        self._loop.call_soon_threadsafe(self._announce_change, status)

    def _announce_change(self, status: SourceStatus) -> None:
        if status.live:
            log.info("the source is live, %dx%d", status.input_width, status.input_height)
        else:
            log.warning("the source is away, a slate stands in: %s", status.detail)
        self._lease.renew_soon()

    @property
    def _audience(self) -> Histogram:
        return merged(demand.audience for demand in self._link.demands.values())

    def _follow_audience(self) -> None:
        now = time.monotonic()
        if now - self._plan_at < PLAN_EVERY:
            return
        demands = self._link.demands
        active = {rung: demand.viewers > 0 for rung, demand in demands.items()}
        plan = self._planner.plan(self._planned, self._audience, active)
        if plan is None:
            return
        self._plan, self._planned, self._plan_at = plan, plan.bitrates, now
        self._demand_changed(demands)

    def _demand_changed(self, demands: dict[int, RungDemand]) -> None:
        for rung, demand in demands.items():
            self._ladder.set_demand(rung, demand.viewers > 0, self._planned[rung])
        self._lease.renew_soon()

    def _record(self) -> StreamLease:
        return StreamLease(
            name=self._description.name,
            epoch=self._description.epoch,
            pid=os.getpid(),
            host=socket.gethostname(),
            source=public_source(self._options.source),
            live=self._source.live,
            link=self._addresses,
            fps=self._source.fps,
            rungs=[
                RungInfo(
                    name=rung.name,
                    width=rung.width,
                    height=rung.height,
                    fps=rung.fps,
                    bitrate=rung.bitrate,
                    layers=rung.layers,
                    active=self._link.demands[index].viewers > 0,
                )
                for index, rung in enumerate(self._description.rungs)
            ],
            since=self._since,
        )
