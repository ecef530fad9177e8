"""Adaptation as Chromium sees it: networks of benchmarks.networks between a real worker and a real browser.

A real broadcaster (1280x720 at 30 fps, the default ladder), gateway, worker and redis-server for each network; one
browser, whose media goes through the relay of the tests. Each second the page is asked for its `getStats`, the worker
for its events, and the relay for its queue. A network begins some seconds after the viewers have joined, so that they
have climbed. Chromium decodes in software on the same cores: how late the relay was, and how many pictures came too
late to be shown, stand beside the figures.

    python -m benchmarks browser                        all networks, into benchmarks/results/ and docs/adaptation/
    python -m benchmarks.browser --scenario step        one, with a line for each second
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import playing
from benchmarks.networks import NETWORKS, Network
from benchmarks.playing import Second, Seen, Viewer, fitting, name_of
from benchmarks.screen import Look, Screen
from benchmarks.site import Site
from broadcaster.adaptation.levels import Level
from broadcaster.bus import Bus, BusSettings
from broadcaster.bus.messages import Event, SessionRecord, decode, key
from broadcaster.bus.server import Server
from broadcaster.bus.subscription import Subscription
from broadcaster.stream import Rung, StreamDescription
from tests.browsers import chromium
from tests.lossy_relay import LossyRelay

SOURCE = "pattern:1280x720@30"
SEED = 11
LEASE_LAGS = 3.0
"""Seconds after an event during which the lease may still tell the ladder from before it."""

PLOTS = Path(__file__).parent.parent / "docs" / "adaptation"

Report = Callable[[Viewer, Second], None]


class Told:
    """What the worker tells of its viewers on Redis, on the clock of the event loop."""

    def __init__(self, url: str, stream: str) -> None:
        self._server = Server(url, BusSettings())
        self._subscription = Subscription(self._server, self._take)
        self._channels = [key("events", stream), key("stats", stream)]
        self._offset = asyncio.get_running_loop().time() - time.time()
        self.adaptations: list[tuple[float, str | None, dict[str, Any]]] = []
        """(time, viewer, data), in order."""
        self.stats: dict[str | None, dict[str, Any]] = {}
        """The newest of each viewer."""

    async def __aenter__(self) -> Told:
        await self._subscription.start(channels=self._channels)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._subscription.close()
        await self._server.close()

    def _take(self, _channel: str, payload: bytes) -> None:
        event = decode(payload, Event)
        if event.type == "adaptation":
            self.adaptations.append((event.ts + self._offset, event.viewer, event.data))
        elif event.type == "stats":
            self.stats[event.viewer] = event.data


class Watch:
    """One network and all that is seen of it."""

    def __init__(self, network: Network, relay: LossyRelay, screen: Screen, told: Told, bus: Bus) -> None:
        self._network = network
        self._relay = relay
        self._screen = screen
        self._told = told
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._looks: list[Look] = []
        self._taken = 0
        self._rungs: tuple[Rung, ...] = ()
        self._moved = -math.inf

    async def run(self, report: Report) -> Seen:
        network, relay = self._network, self._relay
        await self._screen.open()
        began = self._began = self._loop.time() + network.settle
        open_line = network.impairment(began)
        relay.impairment = open_line
        timers = []
        if network.blackout is not None:
            dark = replace(open_line, blackout=True)
            for at, line in zip(network.blackout, (dark, open_line), strict=True):
                timers.append(self._loop.call_at(began + at, setattr, relay, "impairment", line))
        self._rungs = await self._leased()
        seen = Seen(network, [], [(self._loop.time() - began, self._levels())])
        for _ in range(network.viewers):
            record = await self._session(await self._screen.watch())
            seen.viewers.append(Viewer(record.viewer, joined=self._loop.time() - began))
        try:
            await self._follow(seen, report)
        finally:
            for timer in timers:
                timer.cancel()
            await self._screen.close()
        seen.waits = [(at - began, wait) for at, wait in relay.waits]
        seen.late = [late for at, late in relay.late if at >= began]
        seen.load = os.getloadavg()[0]
        return seen

    async def _follow(self, seen: Seen, report: Report) -> None:
        started = math.ceil(seen.viewers[-1].joined + 0.5)
        self._looks = await self._screen.look()
        before = self._loop.time()
        overflowed = self._relay.down.overflowed
        first: tuple[int, int] | None = None
        for second in range(started, int(self._network.seconds) + 1):
            await asyncio.sleep(max(0.0, self._began + second - self._loop.time()))
            looks, now = await self._screen.look(), self._loop.time()
            down = self._relay.down
            if second >= 0 and first is None:
                first = down.received, down.overflowed
            await self._note(seen, now)
            levels = self._levels()
            waits = [wait for at, wait in self._relay.waits if at > before]
            for viewer, look, last in zip(seen.viewers, looks, self._looks, strict=True):
                one = self._second(viewer, look, last, levels, before, now)
                one = replace(one, queue=max(waits, default=0.0), overflowed=down.overflowed - overflowed)
                viewer.seconds.append(one)
                report(viewer, one)
            self._looks, before, overflowed = looks, now, down.overflowed
        if first is not None:
            seen.arrived = self._relay.down.received - first[0]
            seen.overflowed = self._relay.down.overflowed - first[1]

    def _second(
        self, viewer: Viewer, look: Look, last: Look, levels: tuple[Level, ...], start: float, end: float
    ) -> Second:
        length = (look.now - last.now) / 1000
        share = self._network.capacity(self._began).mean(start, end) / self._network.viewers
        resent = look.retransmittedBytesReceived - last.retransmittedBytesReceived
        emitted = look.jitterBufferEmittedCount - last.jitterBufferEmittedCount
        told = self._told.stats.get(viewer.id, {})
        return Second(
            at=end - self._began,
            length=length,
            capacity=share,
            best=fitting(levels, share),
            level=playing.now(viewer.level_at(end - self._began), levels),
            received=(look.bytesReceived - last.bytesReceived - resent) * 8 / length,
            resent=resent * 8 / length,
            fps=(look.framesDecoded - last.framesDecoded) / length,
            freezes=look.freezeCount - last.freezeCount,
            frozen=look.totalFreezesDuration - last.totalFreezesDuration,
            gap=look.longestGap / 1000,
            dropped=look.framesDropped - last.framesDropped,
            size=f"{look.frameWidth}x{look.frameHeight}",
            lost=look.packetsLost - last.packetsLost,
            nacks=look.nackCount - last.nackCount,
            plis=look.pliCount - last.pliCount,
            buffer=(look.jitterBufferDelay - last.jitterBufferDelay) / max(1, emitted),
            queue=0.0,
            overflowed=0,
            estimate=told.get("estimate"),
            loss=told.get("packet_loss"),
            rtt=told.get("rtt"),
        )

    async def _note(self, seen: Seen, now: float) -> None:
        """Bring the ladder and the viewers' changes up to date."""
        of = {viewer.id: viewer for viewer in seen.viewers}
        for at, id_, data in self._told.adaptations[self._taken :]:
            if id_ is None:
                moved = data["to"]
                self._rungs = tuple(
                    replace(one, bitrate=moved["bitrate"]) if one.name == moved["rung"] else one for one in self._rungs
                )
                self._moved = at
                seen.ladders.append((at - self._began, self._levels()))
            elif (known := of.get(id_)) and (level := _level(self._levels(), data["to"])):
                if not known.changes and (start := _level(self._levels(), data["from"])):
                    known.changes.append((known.joined, start, "start"))
                known.changes.append((at - self._began, level, data["rule"]))
        self._taken = len(self._told.adaptations)
        for viewer in seen.viewers:
            stats = self._told.stats.get(viewer.id)
            if stats and not viewer.changes and (level := _level(self._levels(), stats)):
                viewer.changes.append((viewer.joined, level, "start"))
        leased = await self._leased()
        if leased != self._rungs and now - self._moved > LEASE_LAGS:
            self._rungs = leased
            seen.ladders.append((now - self._began, self._levels()))

    def _levels(self) -> tuple[Level, ...]:
        """The ladder as it is now: it may follow its audience."""
        return StreamDescription("main", 0, self._rungs).levels()

    async def _leased(self) -> tuple[Rung, ...]:
        lease = next(living.lease for living in await self._bus.streams())
        return tuple(Rung(one.name, one.width, one.height, one.fps, one.bitrate, one.layers) for one in lease.rungs)

    async def _session(self, secret: str) -> SessionRecord:
        """What the worker wrote of it before it answered."""
        record = await self._bus.get_session(secret)
        if record is None:
            raise RuntimeError("the worker wrote no record of this session")
        return record


def _level(levels: tuple[Level, ...], operating: dict[str, Any]) -> Level | None:
    """The level of this rung and nearly this frame rate."""
    of_rung = [level for level in levels if level.name == operating["rung"]]
    return min(of_rung, key=lambda level: abs(level.fps - (operating["fps"] or 0)), default=None)


def silent(_viewer: Viewer, _second: Second) -> None:
    """No line for a second."""


async def watch(network: Network, browser: Any, report: Report = silent) -> Seen:
    """Play through `network` in `browser`; `report` hears each second of each viewer."""
    async with Site(source=SOURCE) as beamcast, beamcast.bus() as bus:
        port = (await bus.workers())[0].lease.udp_port
        async with (
            LossyRelay(("127.0.0.1", port), seed=SEED, shared=network.viewers > 1) as relay,
            Told(beamcast.redis.url, beamcast.stream) as told,
        ):
            screen = Screen(browser, beamcast.url, relay)
            return await Watch(network, relay, screen, told, bus).run(report)


def show(viewer: Viewer, one: Second) -> None:
    """A line for a second."""
    rules = [rule for at, _, rule in viewer.changes if one.at - one.length < at <= one.at]
    rtt = "-" if one.rtt is None else f"{1000 * one.rtt:.0f}"
    loss = "-" if one.loss is None else f"{100 * one.loss:.1f}"
    estimate = "-" if one.estimate is None else f"{one.estimate / 1e6:.2f}"
    print(
        f"{one.at:6.1f} {viewer.id:>8.8} line {one.capacity / 1e6:5.2f} best {name_of(one.best):>8} "
        f"level {name_of(one.level):>8} {one.size:>9} got {one.received / 1e6:5.2f}+{one.resent / 1e6:4.2f} "
        f"estimate {estimate:>5} fps {one.fps:4.1f} freezes {one.freezes} ({one.frozen:.2f} s, gap {one.gap:.2f}) "
        f"queue {1000 * one.queue:4.0f} full {one.overflowed:3} lost {one.lost:3} nack {one.nacks:3} pli {one.plis} "
        f"rtt {rtt:>4} loss {loss:>4} late {one.dropped} {' '.join(rules)}",
        flush=True,
    )


async def measure(report: Report = silent) -> list[Seen]:
    """All networks, one after the other, in about nine minutes."""
    async with chromium() as browser:
        return [await watch(network, browser, report) for network in NETWORKS]


def figures(all_seen: list[Seen]) -> dict[str, Any]:
    groups = {
        "picture": playing.picture,
        "bitrate": playing.bitrate,
        "levels": playing.levels,
        "harness": playing.harness,
    }
    return {name: [_rounded(make(seen)) for seen in all_seen] for name, make in groups.items()}


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in row.items()}


def run() -> dict[str, Any]:
    """Measure, draw, and say what was seen."""
    from benchmarks.drawing import draw

    all_seen = asyncio.run(measure())
    PLOTS.mkdir(exist_ok=True)
    for seen in all_seen:
        draw(seen, PLOTS / f"browser-{seen.network.name}.svg")
    result = figures(all_seen)
    for rows in result.values():
        for row in rows:
            print("  ".join(f"{name} {value}" for name, value in row.items()))
    return result


async def _one(network: Network, plot: Path | None) -> None:
    async with chromium() as browser:
        seen = await watch(network, browser, show)
    if plot is not None:
        from benchmarks.drawing import draw

        draw(seen, plot)
    for name, (row,) in figures([seen]).items():
        print(f"{name}: {row}")


def main() -> None:
    known = {network.name: network for network in NETWORKS}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.browser", description="One network, second by second.")
    parser.add_argument("--scenario", required=True, choices=list(known), help="the network")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="where to draw it")
    options = parser.parse_args()
    asyncio.run(_one(known[options.scenario], options.plot))


if __name__ == "__main__":
    main()
