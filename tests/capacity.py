"""Capacity: what a line carries over time. Policer: what is dropped where nothing may wait."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence


class Capacity:
    """Bits per second that change at known times; before the first one the line is as it is then.

    `steps` are (seconds since `began`, bits per second) in order of time; the last one holds for ever, and only it
    may not be 0. All is known beforehand, so a datagram's departure is known when it comes in, and a queue that has
    built up drains at the speed of whatever the line is by then.
    """

    def __init__(self, steps: Sequence[tuple[float, float]], began: float = 0.0) -> None:
        times = [began + at for at, _ in steps]
        if not steps or times != sorted(times) or min(bps for _, bps in steps) < 0 or steps[-1][1] <= 0:
            raise ValueError(f"{steps!r} is no capacity: times ascend, and the last is more than nothing")
        self._times = times
        self._bps = [float(bps) for _, bps in steps]

    def at(self, now: float) -> float:
        """Bits per second at `now`."""
        return self._bps[max(0, bisect.bisect_right(self._times, now) - 1)]

    @property
    def most(self) -> float:
        """Bits per second when they are most."""
        return max(self._bps)

    def mean(self, start: float, end: float) -> float:
        """Bits per second from `start` to `end`, on the average."""
        inner = [at for at in self._times if start < at < end]
        bits = sum(self.at(a) * (b - a) for a, b in itertools.pairwise([start, *inner, end]))
        return bits / (end - start)

    def through(self, start: float, bits: float) -> float:
        """When `bits` have passed that start at `start` and have the line for themselves."""
        index = max(0, bisect.bisect_right(self._times, start) - 1)
        while True:
            ends = self._times[index + 1] if index + 1 < len(self._times) else math.inf
            bps = self._bps[index]
            if bps > 0 and start + bits / bps <= ends:
                return start + bits / bps
            bits -= bps * (ends - start)
            start = ends
            index += 1


class Policer:
    """A token bucket of `burst` bytes that fills at `bps` bits per second: what finds too few tokens is dropped."""

    def __init__(self, bps: float, burst: int = 16_000) -> None:
        self.bps = bps
        self.burst = burst
        self._tokens = float(burst)
        self._at: float | None = None

    def lets(self, now: float, size: int) -> bool:
        """Whether `size` bytes pass at `now`."""
        if self._at is not None:
            self._tokens = min(float(self.burst), self._tokens + (now - self._at) * self.bps / 8)
        self._at = now
        if self._tokens < size:
            return False
        self._tokens -= size
        return True
