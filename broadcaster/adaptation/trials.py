"""Trials: what became of steps up, and what that says of the next one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from broadcaster.adaptation.levels import Level
from broadcaster.adaptation.path import PathState

_NEVER = -math.inf


@dataclass(frozen=True, slots=True)
class TrialSettings:
    """Times in seconds.

    A step up that falls back within `longest` has failed, if the estimate still has a `carried` share of what there was
    before it. The next one waits `cooldown`, doubled up to `longest_cooldown` with each failure at the `same` estimate,
    give or take that share, and forgiven after `forgiveness` without any. One that falls back within `soon` had a probe
    that was too short. A path that carries `changed` times as much as then has changed: nothing is held against it.

    A step up has failed, too, after which `loss` more is lost within `soon` than before it, if the rate explains it.
    Losses above `noticed` count as lately for `lately`. What cost packets is not tried again without a probe up to
    `doubt` times the estimate of then, since a bucket may have helped it.
    """

    longest: float = 30.0
    carried: float = 0.8
    cooldown: float = 8.0
    longest_cooldown: float = 240.0
    same: float = 0.2
    forgiveness: float = 300.0
    soon: float = 8.0
    changed: float = 1.3
    loss: float = 0.04
    noticed: float = 0.02
    lately: float = 2.5
    doubt: float = 1.1


class Trials:
    """Remembers steps up and failures. Pure; `now` is seconds of a clock that does not go back.

    `before` is the level that the last step up came from, None where none is on trial. `failing`: it costs packets.
    """

    def __init__(self, settings: TrialSettings | None = None) -> None:
        self._settings = settings or TrialSettings()
        self.before: Level | None = None
        self.failing = False
        self._since = _NEVER
        self._loss = self._loss_before = 0.0
        self._lost_at = self._excused_until = _NEVER
        self._width = math.inf
        self._cooldown = self._settings.cooldown
        self._failed_at = self._barred_until = _NEVER
        self._failed_bitrate = math.inf
        self._failed_estimate: float | None = None
        self._doubted = 0.0

    def see(self, now: float, path: PathState) -> None:
        """Take what is lost now."""
        settings, excess = self._settings, path.excess_loss or 0.0
        self._loss = path.loss or 0.0
        if excess > settings.noticed:
            self._lost_at = now
        on_trial = self.before is not None and now - self._since <= settings.soon and not self.excused(now)
        self.failing = on_trial and excess > settings.loss and self._loss - self._loss_before > settings.loss

    def begin(self, now: float, before: Level) -> None:
        """A step up."""
        self.before, self._since, self._loss_before = before, now, self._loss

    def forget(self) -> None:
        """Nothing is on trial any more."""
        self.before = None

    def lasted(self, now: float) -> float:
        """Seconds since the last step up."""
        return now - self._since

    def fail(self, now: float, level: Level, estimate: float | None) -> None:
        """The step up did not hold: `level` and all above it wait."""
        settings, last = self._settings, self._failed_estimate
        again = last is not None and estimate is not None and abs(estimate - last) <= settings.same * last
        if not again or now - self._failed_at > settings.forgiveness:
            self._cooldown = settings.cooldown
        self._failed_at, self._failed_estimate, self._failed_bitrate = now, estimate, level.bitrate
        self._barred_until = now + self._cooldown
        self._cooldown = min(2.0 * self._cooldown, settings.longest_cooldown)

    def narrowed(self, now: float, estimate: float | None) -> None:
        """The level was lowered at this estimate. Through a policer bursts come fast, and tell nothing of its width."""
        lossy = now - self._lost_at <= self._settings.lately
        self._width = math.inf if lossy or estimate is None else estimate

    def bar(self, now: float, path: PathState) -> float:
        """The bitrate that must not be reached again yet; infinite where there is none."""
        widened = max(path.capacity or 0.0, path.estimate or 0.0) > self._settings.changed * self._width
        return self._failed_bitrate if self.cooling(now) and not widened else math.inf

    def cooling(self, now: float) -> bool:
        """Whether the last failure still counts."""
        return now < self._barred_until

    def doubt(self, estimate: float) -> None:
        """So much came through only for a while: believe in no more without a probe."""
        self._doubted = self._settings.doubt * estimate

    def trust(self, rate: float) -> None:
        """A probe with so much went through."""
        if rate >= self._doubted:
            self._doubted = 0.0

    def excuse(self, now: float) -> None:
        """What is lost now, and is told of for a while, is a probe's fault."""
        self._excused_until = now + self._settings.lately

    def excused(self, now: float) -> bool:
        """Whether what is lost is a probe's fault."""
        return now < self._excused_until

    def believes(self, estimate: float) -> bool:
        return estimate > self._doubted
