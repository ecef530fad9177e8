"""Who decides otherwise: nobody, the plain rules, and what two other servers do, told in our own words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from broadcaster.adaptation.adapter import ViewerAdapter
from broadcaster.adaptation.controller import Controller
from broadcaster.adaptation.levels import Level
from broadcaster.adaptation.remb import RembEstimator
from broadcaster.adaptation.samples import Sample


class Never:
    """The level it started with."""

    def __init__(self, levels: Sequence[Level], start: Level) -> None:
        self.levels = sorted(levels, key=lambda level: level.bitrate)
        self.level: Level | None = start
        self.probe = 0.0
        self.estimate: float | None = None

    @property
    def place(self) -> int:
        assert self.level is not None
        return self.levels.index(self.level)

    def sent(self, now: float, sequence: int, packets: int, octets: int) -> None: ...

    def arrived(self, now: float, arrivals: Sequence[tuple[int, int | None]]) -> None: ...

    def reported(
        self, now: float, *, loss: float | None, rtt: float | None, jitter: float | None, remb: float | None
    ) -> None: ...

    def tick(self, now: float) -> None: ...


class Thresholds(Never):
    """Loss above 5 % or a round trip above 300 ms: a level down; loss below 2 % and below 150 ms: a level up; looked at
    every 2 s."""

    EVERY = 2.0

    def __init__(self, levels: Sequence[Level], start: Level) -> None:
        super().__init__(levels, start)
        self._at = 0.0
        self._losses: list[float] = []

    def reported(
        self, now: float, *, loss: float | None, rtt: float | None, jitter: float | None, remb: float | None
    ) -> None:
        if loss is None or rtt is None:
            return
        self._losses.append(loss)
        if now - self._at < self.EVERY:
            return
        mean = sum(self._losses) / len(self._losses)
        self._at, self._losses = now, []
        if mean > 0.05 or rtt > 0.3:
            self.level = self.levels[max(0, self.place - 1)]
        elif mean < 0.02 and rtt < 0.15:
            self.level = self.levels[min(len(self.levels) - 1, self.place + 1)]


class LiveKit(Never):
    """LiveKit's allocator over REMB, with its constants: congested below 0.95 of the expected usage while the trend
    falls (Kendall's tau below -0.6), then the best level that the estimate carries; probes to the usage plus the larger
    of 120 % of the next step and 200 kbit/s, for 200 ms at first, every 3 s, 1.5 times as long after each failure, up
    to 2 minutes.
    """

    def __init__(self, levels: Sequence[Level], start: Level) -> None:
        super().__init__(levels, start)
        self._estimates: list[float] = []
        self._next = 3.0
        self._wait = 3.0
        self._goal = 0.0
        self._until = 0.0
        self._held = 0.0
        self._length = 0.2

    def tick(self, now: float) -> None:
        if self.probe and now >= self._until:
            self.probe = 0.0

    def reported(
        self, now: float, *, loss: float | None, rtt: float | None, jitter: float | None, remb: float | None
    ) -> None:
        if remb is None:
            return
        self.estimate = remb
        self._estimates = [*self._estimates, remb][-10:]
        assert self.level is not None
        usage = self.level.bitrate
        if self._goal:
            if remb >= self._goal:
                self._climb(now, remb)
            elif now >= self._until + 1.0 or remb < 0.95 * usage:
                self._stop(now, failed=True)
            return
        if remb < 0.95 * usage and (self._falls(8) or remb < 0.8 * usage) and now - self._held > 1.0:
            fitting = [level for level in self.levels if level.bitrate <= remb] or self.levels[:1]
            if fitting[-1].bitrate < usage:
                self.level, self._held, self._next = fitting[-1], now, max(self._next, now + self._wait)
        elif now >= self._next and self.place + 1 < len(self.levels):
            step = self.levels[self.place + 1].bitrate - usage
            self._goal = usage + step
            self.probe = (usage + max(1.2 * step, 200_000)) * 1.06
            self._until = now + self._length

    def _falls(self, samples: int) -> bool:
        recent = self._estimates[-samples:]
        if len(recent) < samples:
            return False
        pairs = [(b > a) - (b < a) for place, a in enumerate(recent) for b in recent[place + 1 :]]
        return sum(pairs) / len(pairs) < -0.6

    def _climb(self, now: float, remb: float) -> None:
        fitting = [level for level in self.levels if level.bitrate <= remb]
        self.level = fitting[-1] if fitting else self.level
        self._stop(now, failed=False)

    def _stop(self, now: float, *, failed: bool) -> None:
        self.probe = self._goal = 0.0
        self._length = min(2.0, 1.5 * self._length) if failed else 0.2
        self._wait = min(120.0, 1.5 * self._wait) if failed else 3.0
        self._next = now + self._wait
        self._estimates = []


class OvenMediaEngine(Never):
    """OvenMediaEngine's rule, once a second: down a rendition where 1.1 times the estimate is no more than its bitrate
    and does not rise, not within 10 s of going up; up one where 0.75 times the estimate exceeds it, again only after
    10 s for each time that it was chosen. Renditions have no layers. The estimate is REMB.
    """

    def __init__(self, levels: Sequence[Level], start: Level) -> None:
        super().__init__(levels, start)
        full = max(level.fps for level in levels)
        self.levels = [level for level in self.levels if level.fps == full]
        self._chosen = {self.level: (1, 0.0)}
        self._before = self._remb = 0.0
        self._rose_at = -math.inf
        self._at = 0.0

    def reported(
        self, now: float, *, loss: float | None, rtt: float | None, jitter: float | None, remb: float | None
    ) -> None:
        if remb is None:
            return
        self._before, self._remb = self._remb, remb
        self.estimate = remb
        if now - self._at < 1.0:
            return
        self._at = now
        assert self.level is not None
        if 1.1 * remb <= self.level.bitrate and self.place > 0:
            if self._before >= remb and now - self._rose_at >= 10.0:
                self._choose(now, self.levels[self.place - 1])
                self._rose_at = -math.inf
        elif 0.75 * remb > self.level.bitrate and self.place + 1 < len(self.levels):
            above = self.levels[self.place + 1]
            times, at = self._chosen.get(above, (0, -math.inf))
            if now - at > 10.0 * times:
                self._choose(now, above)
                self._rose_at = now

    def _choose(self, now: float, level: Level) -> None:
        self.level = level
        times, _ = self._chosen.get(level, (0, 0.0))
        self._chosen[level] = (times + 1, now)


class BeamcastByRemb(Never):
    """Beamcast's adapter for a player without transport-wide feedback."""

    def __init__(self, levels: Sequence[Level], start: Level) -> None:
        super().__init__(levels, start)
        self._estimator = RembEstimator()
        self._adapter = ViewerAdapter(levels, start)
        self._octets = self._packets = self._padded = 0
        self._report = Sample()
        self._ticked = 0.0

    def sent(self, now: float, sequence: int, packets: int, octets: int) -> None:
        self._octets += octets
        self._packets += packets
        if self._adapter.probe:
            self._padded += octets

    def reported(
        self, now: float, *, loss: float | None, rtt: float | None, jitter: float | None, remb: float | None
    ) -> None:
        self._estimator.counted(now, octets=self._octets, packets=self._packets, repeats=0)
        if remb is not None:
            self._estimator.estimated(now, remb)
        if loss is not None:
            self._estimator.reported(now, loss=loss, rtt=rtt)
            self._report = Sample(loss, rtt, jitter)

    def tick(self, now: float) -> None:
        if now - self._ticked < 1.0 and not self._adapter.probing:
            return
        self._ticked = now
        probing = self._adapter.probe
        state = self._estimator.state(now)
        self._adapter.update(now, self._report, state)
        self._report = Sample(rtt=self._report.rtt, jitter=self._report.jitter)
        self.level, self.estimate = self._adapter.level, state.estimate
        if not probing:
            self._padded = 0
        limit = self._adapter.probe_octets
        self.probe = 0.0 if limit is not None and self._padded >= limit else self._adapter.probe


OURS = "beamcast"
CONTROLS = {
    OURS: Controller,
    "beamcast-remb": BeamcastByRemb,
    "never": Never,
    "thresholds": Thresholds,
    "livekit": LiveKit,
    "ome": OvenMediaEngine,
}
BASELINES = ("never", "thresholds", "livekit", "ome")
