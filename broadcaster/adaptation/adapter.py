"""ViewerAdapter: where one viewer should be on the ladder, second by second."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from broadcaster.adaptation import policy
from broadcaster.adaptation.decision import Decision, Rule, State
from broadcaster.adaptation.ladder import Ladder
from broadcaster.adaptation.levels import Level
from broadcaster.adaptation.policy import Thresholds
from broadcaster.adaptation.samples import Sample
from broadcaster.adaptation.smoothing import Climb, Floor, Hold, Smoothed


@dataclass(frozen=True, slots=True)
class AdaptationSettings:
    """Times in seconds.

    `smoothing`: time constant of loss and of the sent bitrate; one bad report is no bad link.
    `stale`: a measurement that nobody repeats is forgotten after this.
    `hold_down`: a high RTT or a low estimate lasts this long before it counts, unless there is high loss as well.
    `climb_window`, `climb`: an estimate that grew by this factor within this time has not met the end of the path yet,
    so that it is low says nothing: after a step up, Chromium's REMB follows by 8 % a second.
    `settle`: after a change, its effect is awaited for this long; `loss_settle`: the same before loss acts again.
    `fps_hold`: low loss lasts this long before the frame rate comes back.
    `rung_hold`: low RTT and minimal loss last this long before a better rung is tried.
    `cooldown`: no better rung for this long after a downgrade (mediasoup waits 10 s).
    `trial`: an upgrade that falls back within this time has failed; the next one waits `failed_cooldown`, doubled with
    each failure up to `failed_cooldown_max`, and forgiven after `forgiveness` without any. Its effect is awaited for
    `drain` instead of `settle`: the queue that it filled empties slowly.
    `window`: at most two switches in this time, where the network does not change. After a downgrade the width of the
    path is remembered for as long, unless more than `changed` times of it gets through: then the network has changed.
    `rtt_window`: the lowest RTT is that of the last one to two such windows, since routes change.
    """

    thresholds: Thresholds = policy.DEFAULT_THRESHOLDS
    smoothing: float = 2.0
    stale: float = 5.0
    hold_down: float = 1.5
    climb_window: float = 2.5
    climb: float = 1.04
    settle: float = 3.0
    loss_settle: float = 8.0
    fps_hold: float = 5.0
    rung_hold: float = 8.0
    cooldown: float = 10.0
    trial: float = 30.0
    drain: float = 10.0
    failed_cooldown: float = 60.0
    failed_cooldown_max: float = 240.0
    forgiveness: float = 600.0
    window: float = 60.0
    changed: float = 1.5
    rtt_window: float = 300.0


DEFAULT_SETTINGS = AdaptationSettings()

_NEVER = -math.inf


class ViewerAdapter:
    """Decides for one viewer: loss lowers and raises the frame rate, RTT, loss and the estimate move the rung.

    `levels` is everything that the viewer can be sent (never empty), `start` is where it begins. `level` is where it
    should be now; `fps_cap` is the frame rate that loss left it, kept across rungs with other layers.

    Two things make a better rung worth trying: an estimate that is known to carry it, or, since REMB hardly rises
    above what arrives, a quiet link and an estimate with some room. The latter is a trial, and trials are rare.
    """

    def __init__(self, levels: Sequence[Level], start: Level, settings: AdaptationSettings = DEFAULT_SETTINGS) -> None:
        self._settings = settings
        self._ladder = Ladder(levels)
        self.fps_cap = self._ladder.fps if self._ladder.is_top(start) else start.fps
        self.level = self._ladder.nearest(start, self.fps_cap)
        self._now = _NEVER
        self._loss = Smoothed(settings.smoothing, settings.stale, first=0.0)
        self._sent = Smoothed(settings.smoothing, settings.stale)
        self._rtt_min = Floor(settings.rtt_window)
        self._estimate_climb = Climb(settings.climb_window, settings.climb)
        self._estimate_low, self._rtt_high = Hold(), Hold()
        self._loss_low, self._quiet = Hold(), Hold()
        self._changed_at = self._lowered_at = _NEVER
        self._switches: deque[float] = deque(maxlen=8)
        self._loss_steps: deque[float] = deque(maxlen=2)
        self._before_trial: tuple[Level, float] | None = None
        self._width: float | None = None
        self._penalty = settings.failed_cooldown
        self._failed_at = self._raise_from = _NEVER

    def relevel(self, levels: Sequence[Level]) -> None:
        """The ladder changed: stay on the rung of the same name, else on the best one that is not dearer."""
        self._ladder = Ladder(levels)
        self.level = self._ladder.nearest(self.level, self.fps_cap)
        self._before_trial = None

    def update(self, now: float, sample: Sample) -> Decision | None:
        """Take the measurements of time `now` (seconds of any clock; not before the last call) and decide.

        Call it about once a second. At most one change a call; `level` and `fps_cap` have changed when it returns.
        """
        now = now if math.isfinite(now) and now >= self._now else max(self._now, 0.0)
        self._now = now
        seen = self._see(now, sample)
        thresholds = self._settings.thresholds
        climbing = self._estimate_climb.update(now, seen.estimate)
        narrow = not climbing and policy.estimate_is_low(seen, self.level.bitrate, thresholds)
        estimate_low = self._estimate_low.seconds(now, narrow)
        rtt_high = self._rtt_high.seconds(now, policy.rtt_is_high(seen, thresholds))
        loss_low = self._loss_low.seconds(now, policy.loss_is_low(seen, thresholds))
        quiet = self._quiet.seconds(now, policy.should_increase(seen, thresholds))
        if self._path_widened(seen):
            self._switches.clear()
            self._width = None
        settle = self._settings.drain if self._changed_at == self._failed_at else self._settings.settle
        if now - self._changed_at < settle:
            return None
        if policy.loss_is_high(seen, thresholds) or max(estimate_low, rtt_high) >= 0.0:
            return self._down(seen, estimate_low, rtt_high)
        if loss_low >= self._settings.fps_hold and (level := self._smoother(seen)):
            return self._raise("loss-low", level, seen)
        if quiet >= self._settings.rung_hold and (level := self._better(seen)):
            return self._raise("headroom", level, seen)
        return None

    def _see(self, now: float, sample: Sample) -> Sample:
        return replace(
            sample,
            packet_loss=self._loss.update(now, sample.packet_loss),
            sent_bitrate=self._sent.update(now, sample.sent_bitrate),
            rtt_min=self._rtt_min.update(now, sample.rtt),
        )

    def _path_widened(self, seen: Sample) -> bool:
        if self._width is None or seen.sent_bitrate is None or not policy.loss_is_low(seen, self._settings.thresholds):
            return False
        return self._quiet.held and seen.sent_bitrate > self._settings.changed * self._width

    @property
    def _on_trial(self) -> bool:
        return self._before_trial is not None and self._now - self._changed_at <= self._settings.trial

    @property
    def _failed_lately(self) -> bool:
        return self._now - self._failed_at < self._settings.forgiveness

    def _recent(self) -> int:
        return sum(1 for at in self._switches if self._now - at < self._settings.window)

    # --- down -------------------------------------------------------------------------------------------------

    def _down(self, seen: Sample, estimate_low: float, rtt_high: float) -> Decision | None:
        lossy = policy.loss_is_high(seen, self._settings.thresholds)
        hold_down = 0.0 if lossy else self._settings.hold_down
        if estimate_low >= hold_down and (level := self._cheaper(seen)):
            return self._lower("estimate-low", level, seen)
        if rtt_high >= hold_down and (level := self._cheaper(seen)):
            return self._lower("rtt-high", level, seen)
        return self._after_loss(seen) if lossy else None

    def _after_loss(self, seen: Sample) -> Decision | None:
        thresholds = self._settings.thresholds
        loss = seen.packet_loss or 0.0
        settling = self._now - self._lowered_at < self._settings.loss_settle
        used_up = len(self._loss_steps) == 2 and self._now - self._loss_steps[0] < self._settings.window
        if (settling or used_up) and not self._on_trial:
            return None
        if loss >= thresholds.loss_severe:
            if seen.estimate is None and seen.sent_bitrate is not None:
                # What arrives while this much is lost is all that the path carries.
                seen = replace(seen, estimate=seen.sent_bitrate * (1.0 - loss))
            level = self._cheaper(seen)
        else:
            level = self._ladder.below(self.level) or self._cheaper(seen)
        if level is None:
            return None
        self._loss_steps.append(self._now)
        return self._lower("loss-high", level, seen)

    def _cheaper(self, seen: Sample) -> Level | None:
        """The best level of a cheaper rung that fits the estimate (unknown: the next rung), else the cheapest one."""
        rungs = self._ladder.cheaper_rungs(self.level, self.fps_cap)
        if seen.estimate is None and rungs:
            return rungs[0]
        layers = self._ladder.layers_below(rungs[-1] if rungs else self.level)
        fitting = [
            level for level in (*rungs, *layers) if policy.estimate_fits(seen, level.bitrate, self._settings.thresholds)
        ]
        if fitting:
            return fitting[0]
        if seen.estimate is None:
            return layers[0] if layers else None
        return layers[-1] if layers else (rungs[-1] if rungs else None)

    def _lower(self, rule: Rule, level: Level, seen: Sample) -> Decision:
        if self._on_trial and self._before_trial is not None:
            before, cap = self._before_trial
            self._fail()
            if before.bitrate <= level.bitrate:
                self.fps_cap = cap
                level = before
        self._before_trial = None
        if seen.estimate is not None:
            self._width = seen.estimate
        self._lowered_at = self._now
        return self._move(rule, level, seen)

    def _fail(self) -> None:
        if not self._failed_lately:
            self._penalty = self._settings.failed_cooldown
        self._failed_at = self._now
        self._raise_from = self._now + self._penalty
        self._penalty = min(2.0 * self._penalty, self._settings.failed_cooldown_max)

    # --- up ---------------------------------------------------------------------------------------------------

    def _smoother(self, seen: Sample) -> Level | None:
        level = self._ladder.above(self.level)
        if level is None or self._now < self._raise_from or self._recent() > (0 if self._failed_lately else 2):
            return None
        if policy.estimate_fits(seen, level.bitrate, self._settings.thresholds):
            return level
        room = policy.estimate_has_room(seen, self.level.bitrate, self._settings.thresholds)
        return level if room else None

    def _better(self, seen: Sample) -> Level | None:
        """The best rung that the estimate is known to carry, else the next one as a trial."""
        rungs = self._ladder.better_rungs(self.level, self.fps_cap)
        if not rungs or self._now < max(self._raise_from, self._lowered_at + self._settings.cooldown):
            return None
        recent = self._recent()
        fitting = [level for level in rungs if policy.estimate_fits(seen, level.bitrate, self._settings.thresholds)]
        if fitting:
            return fitting[-1] if recent <= (0 if self._failed_lately else 1) else None
        if recent == 0 and policy.estimate_has_room(seen, self.level.bitrate, self._settings.thresholds):
            return rungs[0]
        return None

    def _raise(self, rule: Rule, level: Level, seen: Sample) -> Decision:
        self._before_trial = (self.level, self.fps_cap)
        return self._move(rule, level, seen)

    # --- both -------------------------------------------------------------------------------------------------

    def _move(self, rule: Rule, level: Level, seen: Sample) -> Decision:
        before = self.level
        if level.rung == before.rung or level.fps < self._ladder.at(level, self.fps_cap).fps:
            self.fps_cap = self._ladder.fps if self._ladder.is_top(level) else level.fps
        self.level = level
        self._changed_at = self._now
        self._switches.append(self._now)
        for hold in (self._estimate_low, self._rtt_high, self._loss_low, self._quiet):
            hold.reset()
        return Decision(rule, _state(before), _state(level), seen.as_dict(), self._lines(rule))

    def _lines(self, rule: Rule) -> dict[str, float]:
        thresholds = self._settings.thresholds
        lines: dict[Rule, dict[str, float]] = {
            "loss-high": {"packet_loss": thresholds.loss_high},
            "loss-low": {"packet_loss": thresholds.loss_low},
            "rtt-high": {"rtt": thresholds.rtt_high, "rtt_bloat": thresholds.rtt_bloat},
            "estimate-low": {"estimate_low": thresholds.estimate_low},
            "headroom": {
                "packet_loss": thresholds.loss_minimal,
                "rtt": thresholds.rtt_low,
                "estimate_room": thresholds.estimate_room,
            },
        }
        return lines[rule]


def _state(level: Level) -> State:
    return State(fps=level.fps, rung=level.name, bitrate=level.bitrate)
