"""Smoothed, Floor, Climb, Hold: what turns single measurements into a state that lasts."""

from __future__ import annotations

import math
from collections import deque


class Smoothed:
    """An exponentially weighted mean over time; `constant` is its time constant in seconds.

    Without a measurement for `stale` seconds it is unknown (None) again. `first` is where it starts, so that one
    measurement alone does not make the mean; None starts at the first measurement.
    """

    def __init__(self, constant: float, stale: float, first: float | None = None) -> None:
        self._constant = constant
        self._stale = stale
        self._first = first
        self._value: float | None = None
        self._at = -math.inf

    def update(self, now: float, measured: float | None) -> float | None:
        if measured is None:
            if now - self._at > self._stale:
                self._value = None
            return self._value
        if self._value is not None:
            weight = 1.0 - math.exp(-(now - self._at) / self._constant)
            self._value += weight * (measured - self._value)
        elif self._first is not None:
            self._value = self._first + 0.5 * (measured - self._first)
        else:
            self._value = measured
        self._at = now
        return self._value


class Floor:
    """The lowest measurement of the last one to two windows of `window` seconds."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._since = -math.inf
        self._previous = self._current = math.inf

    def update(self, now: float, measured: float | None) -> float | None:
        if now - self._since >= self._window:
            self._since, self._previous, self._current = now, self._current, math.inf
        if measured is not None:
            self._current = min(self._current, measured)
        floor = min(self._previous, self._current)
        return floor if math.isfinite(floor) else None


class Climb:
    """Whether a measurement has grown by more than the factor `growth` within the last `window` seconds."""

    def __init__(self, window: float, growth: float) -> None:
        self._window = window
        self._growth = growth
        self._recent: deque[tuple[float, float]] = deque(maxlen=64)

    def update(self, now: float, measured: float | None) -> bool:
        while self._recent and now - self._recent[0][0] > self._window:
            self._recent.popleft()
        if measured is None:
            return False
        self._recent.append((now, measured))
        return measured > self._growth * self._recent[0][1]


class Hold:
    """For how long a condition has held without a break."""

    def __init__(self) -> None:
        self._since: float | None = None

    @property
    def held(self) -> bool:
        return self._since is not None

    def seconds(self, now: float, holds: bool) -> float:
        """Seconds that the condition has held, -1 when it does not."""
        if not holds:
            self._since = None
            return -1.0
        if self._since is None:
            self._since = now
        return now - self._since

    def reset(self) -> None:
        self._since = None
