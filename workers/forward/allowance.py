"""Allowance: how often something may be done by one who could do it without end."""

from __future__ import annotations


class Allowance:
    """`burst` times at once, and `rate` times a second in the long run (a token bucket). `now` is monotonic seconds."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = self._left = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether it may be done once more, which is counted as done."""
        if self._at is not None:
            self._left = min(self._burst, self._left + self._rate * (now - self._at))
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
