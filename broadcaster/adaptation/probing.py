"""Prober: sends more than the viewer needs for a moment, to learn whether the path carries the next level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from broadcaster.adaptation.path import PathState

Outcome = Literal["passed", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """Times in seconds, bitrates in bit/s.

    A probe sends `margin` times what the next level needs (LiveKit: 120 %), for at least `shortest` and until the
    estimate reaches `enough` times the need, but for no longer than `patience` times what the estimate takes to follow.
    Both are longer, up to `most_caution` times, after a probe that packets were lost behind, which a bucket may have
    helped, and `care` times where one should be careful. It fails when the queue grows by `queue`, when more than
    `loss` is lost beyond what was lost before it, or when bursts come through slower than the next level. None begins
    while so much is lost. `pause` follows a failure, doubled with each up to `longest_pause`; where bursts come `wider`
    times as fast as then, the path has changed and the pause is over. Up to `stalled_pause` only where they come
    `wider` times as fast as the next level needs, for then others held the path for a moment. Where a probe cost
    packets, which costs pictures too, the pause is `lossy_pause` at least and up to `longest_lossy_pause`.

    Where the next level needs more than `knock_from`, or `far` times what is sent, or where bursts came through with
    less than a `narrow` share of its need, a burst of `knock_octets` goes ahead for `knock_time` at most, and tells
    within `answer` how fast the path is at most; when it is too slow the next one goes after `knock_pause`. None goes
    where it would fill the path for `knock_longest`. What was found too much is remembered for `memory`.
    """

    margin: float = 1.15
    shortest: float = 0.5
    most_caution: float = 4.0
    care: float = 2.0
    enough: float = 1.02
    patience: float = 3.0
    queue: float = 0.06
    loss: float = 0.04
    pause: float = 2.0
    longest_pause: float = 24.0
    stalled_pause: float = 12.0
    lossy_pause: float = 12.0
    longest_lossy_pause: float = 120.0
    wider: float = 1.3
    knock_from: float = 1_000_000
    far: float = 2.8
    knock_octets: int = 6000
    knock_longest: float = 0.1
    knock_time: float = 0.1
    answer: float = 0.6
    knock_pause: float = 2.0
    narrow: float = 0.9
    memory: float = 20.0


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`target` is what was sent in all, `reached` what the estimate rose to, in bit/s."""

    target: int
    reached: int | None
    outcome: Outcome


class Prober:
    """When to probe, with how much, and what came of it. Pure."""

    def __init__(self, settings: ProbeSettings | None = None) -> None:
        self._settings = settings or ProbeSettings()
        self.rate = 0.0
        """Bit/s that should leave in all now; 0 where nothing is probed."""
        self.octets: int | None = None
        """How many octets of padding at most, None: as many as it takes."""
        self.last: ProbeResult | None = None
        self.careful = False
        """Whether the next probes should last `care` times as long at least."""
        self._phase: Literal["idle", "knock", "listen", "probe"] = "idle"
        self._need = 0.0
        self._since = 0.0
        self._queue = self._loss = 0.0
        self._from = self._not_before = -math.inf
        self._failed_need = math.inf
        self._pause = self._settings.pause
        self._failed_width: float | None = None
        self._knocked_at = -math.inf
        self._caution = 1.0
        self._refused: dict[float, float] = {}
        """Needs that were found too much, and until when that counts."""

    def mistrust(self) -> None:
        """A level that a probe had found to fit lost packets: the next ones last longer than a bucket does."""
        self._caution = min(2.0 * self._caution, self._settings.most_caution)

    def refused(self, now: float, need: float) -> bool:
        """Whether so much, or less, was found too much lately."""
        return any(need >= less and now < until for less, until in self._refused.items())

    @property
    def active(self) -> bool:
        return self._phase != "idle"

    @property
    def probing(self) -> bool:
        """Whether more is sent than a short burst."""
        return self._phase == "probe"

    def postpone(self, until: float) -> None:
        """No probe before `until`."""
        self._not_before = max(self._not_before, until)

    def stop(self, now: float, path: PathState) -> None:
        """Break off what runs: something else needs the path."""
        if self._phase == "probe":
            self._end(now, path, "stopped")
        self._rest()

    def fail(self, now: float, path: PathState) -> None:
        """The path is congested: this probe was too much, or comes at a bad time."""
        if self._phase == "probe":
            self._fail(now, path)
        self._rest()

    def update(self, now: float, path: PathState, need: float, sending: float) -> Outcome | None:
        """Go on. `need` is what the next level needs and `sending` what the level now needs, in bit/s of the wire.

        Returns what came of a probe, when it ends. Call it only where the path is calm or a probe is `active`.
        """
        settings = self._settings
        if need != self._need and self.active:
            self.stop(now, path)
        self._need = need
        if self._phase == "idle":
            if self._widened(path):
                self._from = min(self._from, now)
            waits = now < self._from and need >= self._failed_need
            loses = (path.excess_loss or 0.0) > settings.loss
            if waits or loses or now < self._not_before or path.estimate is None:
                return None
            narrow = path.capacity is not None and path.capacity < settings.narrow * need
            far = need >= settings.knock_from or need > settings.far * sending or narrow
            if far and path.times_bursts and not (path.capacity or 0.0) > need:
                if 8.0 * settings.knock_octets > settings.knock_longest * path.estimate:
                    self._refuse(now, need, settings.memory)
                elif now - self._knocked_at >= settings.knock_pause:
                    self._begin("knock", now, sending + 8.0 * settings.knock_octets * 30.0, path)
                    self.octets = settings.knock_octets
                    self._knocked_at = now
                return None
            self._begin("probe", now, settings.margin * need, path)
            return None
        if self._phase == "knock":
            if now - self._since >= settings.knock_time:
                self._phase, self.rate, self.octets = "listen", 0.0, None
            return None
        if self._phase == "listen":
            if (path.capacity or 0.0) > need:
                self._begin("probe", now, settings.margin * need, path)
            elif now - self._since >= settings.answer:
                self._refuse(now, need, settings.memory)
                self._rest()
            return None
        return self._judge(now, path, need)

    def _judge(self, now: float, path: PathState, need: float) -> Outcome | None:
        settings, elapsed = self._settings, now - self._since
        queue = (path.queue_delay or 0.0) - self._queue
        slow = path.capacity is not None and path.capacity < need and elapsed > 0.2
        if path.congested or queue > settings.queue or self._costs(path) > settings.loss or slow:
            return self._fail(now, path)
        caution = max(self._caution, settings.care if self.careful else 1.0)
        if elapsed >= caution * settings.shortest and (path.estimate or 0.0) >= settings.enough * need:
            self._pause = settings.pause
            self._failed_width, self._failed_need = None, math.inf
            return self._end(now, path, "passed")
        if elapsed >= caution * settings.patience * path.follows:
            return self._fail(now, path)
        return None

    def _costs(self, path: PathState) -> float:
        """The share of packets that is lost since the probe began, beyond what was before."""
        return (path.excess_loss or 0.0) - self._loss

    def _refuse(self, now: float, need: float, lasting: float) -> None:
        self._refused = {less: until for less, until in self._refused.items() if now < until} | {need: now + lasting}

    def _fail(self, now: float, path: PathState) -> Outcome:
        settings = self._settings
        if self._need < self._failed_need:
            self._pause = settings.pause
        queue = (path.queue_delay or 0.0) - self._queue
        if self._costs(path) > (settings.loss if queue > settings.queue else 0.5 * settings.loss):
            self.regret(now, self._need)
        else:
            stalled = path.capacity is not None and path.capacity > settings.wider * self._need
            self._wait(now, self._need, self._pause, settings.stalled_pause if stalled else settings.longest_pause)
            self._failed_width = path.capacity
        return self._end(now, path, "failed")

    def regret(self, now: float, need: float) -> None:
        """`need` cost packets, and with them pictures: it is not tried again soon."""
        settings = self._settings
        self._wait(now, need, max(self._pause, settings.lossy_pause), settings.longest_lossy_pause)
        # Through a policer bursts come fast, and tell nothing of what it lets through.
        self._failed_width = None

    def _wait(self, now: float, need: float, pause: float, longest: float) -> None:
        self._from, self._failed_need = now + pause, need
        self._pause = min(2.0 * pause, longest)
        self._refuse(now, need, max(pause, self._settings.memory))

    def _widened(self, path: PathState) -> bool:
        return (
            self._failed_width is not None
            and path.capacity is not None
            and path.capacity > self._settings.wider * self._failed_width
        )

    def _begin(self, phase: Literal["knock", "probe"], now: float, rate: float, path: PathState) -> None:
        self._phase, self._since, self.rate, self.octets = phase, now, rate, None
        self._queue, self._loss = path.queue_delay or 0.0, path.excess_loss or 0.0

    def _end(self, now: float, path: PathState, outcome: Outcome) -> Outcome:
        reached = None if path.estimate is None else int(path.estimate)
        self.last = ProbeResult(int(self.rate), reached, outcome)
        self._rest()
        return outcome

    def _rest(self) -> None:
        self._phase, self.rate, self.octets = "idle", 0.0, None
