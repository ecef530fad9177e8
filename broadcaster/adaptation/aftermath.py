"""Aftermath: until when what is heard of a path still tells of what was done before."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AftermathSettings:
    """Times in seconds.

    The effect of a change is awaited for `change`, and as long as the queue is that it stood in; for `loss` where
    packets were lost, which are told of for a while. After a probe, a queue that goes on to grow counts after `probe`
    and what the probe left, and at once where less than a `deep` share of what is needed arrives.
    """

    change: float = 1.0
    loss: float = 2.5
    probe: float = 0.4
    deep: float = 0.6


class Aftermath:
    """Pure; `now` is seconds of a clock that does not go back, `queue` and `rtt` are seconds."""

    def __init__(self, settings: AftermathSettings) -> None:
        self._settings = settings
        self.changed_at = self.over_from = -math.inf
        """When the level was changed last, and when the path as it is now shows."""
        self._heard_from = self._probe_heard_from = -math.inf

    def changed(self, now: float, queue: float, *, loses: bool) -> None:
        """The level is another one."""
        self.changed_at = now
        self._heard_from = self.over_from = self._shows(now, queue, loses=loses)

    def probed(self, now: float, queue: float, rtt: float, *, loses: bool) -> None:
        """A probe was too much."""
        self._probe_heard_from = now + self._settings.probe + rtt + queue
        self.over_from = self._shows(now, queue, loses=loses)

    def lasts(self, now: float) -> bool:
        """Whether what is heard may still be of a change or of a probe."""
        return now < self.over_from

    def hides(self, now: float, arriving: float) -> bool:
        """Whether even a path that becomes narrower cannot be told from it, where so much arrives of what is needed."""
        return now < self._heard_from or (now < self._probe_heard_from and arriving >= self._settings.deep)

    def _shows(self, now: float, queue: float, *, loses: bool) -> float:
        return now + (self._settings.loss if loses else self._settings.change) + queue
