"""FrameCap: how many frames a second losses and our own overload leave a viewer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from broadcaster.adaptation.smoothing import Hold

SLACK = 1.01
"""29.97 frames a second are 30."""


@dataclass(frozen=True, slots=True)
class FrameCapSettings:
    """Times in seconds.

    `loss_hold`: high loss lasts this long before it counts, and before it is blamed on the rate; `loss_pause`: the
    least time between two steps for it, each of which halves the frame rate, from the full one on. The first is the
    API's rule whatever the loss comes from; up to `loss_steps` of them only where less would be lost if less were
    sent, and what came after the first is given back once that has not been so for `fps_hold`.
    `fps_hold`: low loss lasts this long before the frame rate comes back.
    `shed_pause`: seconds between two steps of shedding.
    """

    loss_hold: float = 2.0
    loss_pause: float = 8.0
    loss_steps: int = 2
    fps_hold: float = 4.0
    shed_pause: float = 2.0


class FrameCap:
    """Counts the halvings. Pure; `now` is seconds of a clock that does not go back."""

    def __init__(self, settings: FrameCapSettings) -> None:
        self._settings = settings
        self._top = self._lowest = 0.0
        self._high, self._low, self._blamed, self._excused = (Hold() for _ in range(4))
        self._high_for = self._low_for = self._blamed_for = self._excused_for = -1.0
        self._lost = self._shed = 0
        self._stepped_at = self._shed_at = -math.inf

    def arrange(self, rates: Iterable[float]) -> None:
        """The frame rates that there are."""
        rates = tuple(rates)
        self._top, self._lowest = max(rates), min(rates)

    @property
    def fps(self) -> float:
        """Frames per second at most."""
        return self._top / float(2 ** max(self._lost, self._shed))

    @property
    def blocks(self) -> bool:
        """Whether so much is lost, and for the rate, that more is out of the question."""
        return self._high.held and self._blamed.held

    def see(self, now: float, *, high: bool, low: bool, blamed: bool) -> None:
        """Take whether loss is high, whether it is low, and whether less would be lost if less were sent."""
        self._high_for = self._high.seconds(now, high)
        self._low_for = self._low.seconds(now, low)
        self._blamed_for = self._blamed.seconds(now, blamed)
        self._excused_for = self._excused.seconds(now, not blamed)

    def postpone(self, now: float) -> None:
        """Something was lowered: its effect comes first."""
        self._stepped_at = now

    def changed(self) -> None:
        """The level is another one: what was seen tells nothing of it."""
        for hold in (self._high, self._low, self._blamed, self._excused):
            hold.reset()

    def lower(self, now: float) -> bool:
        """Whether losses have just taken a step: the API's rule, packet loss above 5 % lowers the frame rate."""
        settings = self._settings
        steps = settings.loss_steps if self._blamed_for >= settings.loss_hold else 1
        paused = now - self._stepped_at < settings.loss_pause
        if self._high_for < settings.loss_hold or paused or self._lost >= steps:
            return False
        self._lost += 1
        return True

    def give_back(self) -> bool:
        """Whether a step has just been given back: the API's rule, packet loss below 2 % raises the frame rate."""
        if self._low_for < self._settings.fps_hold or not self._lost:
            return False
        self._lost -= 1
        self._low.reset()
        return True

    def excuse(self) -> None:
        """Give back what did not help, for the losses turned out to be chance's."""
        if self._lost > 1 and self._excused_for >= self._settings.fps_hold:
            self._lost -= 1
            self._excused.reset()

    def shed(self, now: float, overloaded: bool) -> bool:
        """Whether our own overload has just taken a step, or given one back."""
        if now - self._shed_at < self._settings.shed_pause:
            return False
        if overloaded and self._top / 2**self._shed <= self._lowest * SLACK:
            return False
        if not overloaded and not self._shed:
            return False
        self._shed += 1 if overloaded else -1
        self._shed_at = now
        return True
