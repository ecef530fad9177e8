"""Slots: what comes in, summed over short times of equal length, so that old sums can be left out."""

from __future__ import annotations

import math


class Slots:
    """The sums of the last `count` slots of `length` seconds, and of the one that is not over yet."""

    __slots__ = ("_length", "_newest", "_since", "_sums")

    def __init__(self, length: float, count: int) -> None:
        self._length = length
        self._sums = [0.0] * (count + 1)
        self._newest = -1
        self._since = -1

    def add(self, at: float, amount: float) -> None:
        """Times may be a little out of order."""
        slot = max(0, math.floor(at / self._length))
        sums = self._sums
        if self._newest < 0:
            self._newest = self._since = slot
        if slot > self._newest:
            for passed in range(max(self._newest + 1, slot - len(sums) + 1), slot + 1):
                sums[passed % len(sums)] = 0.0
            self._newest = slot
        if slot > self._newest - len(sums):
            sums[slot % len(sums)] += amount

    def rate(self, at: float, count: int) -> float | None:
        """Per second, over the last `count` whole slots and the one that `at` is in; None before two slots."""
        slot = max(0, math.floor(at / self._length))
        if self._newest < 0 or slot - self._since < 2:
            return None
        sums = self._sums
        count = min(count, len(sums) - 1, slot - self._since)
        oldest = self._newest - len(sums)
        total = 0.0
        for one in range(max(slot - count, oldest + 1), min(slot, self._newest) + 1):
            total += sums[one % len(sums)]
        return total / (count * self._length + (at - slot * self._length))

    def sum(self, at: float) -> float:
        """Over all slots that are not too old at `at`."""
        slot, sums = max(0, math.floor(at / self._length)), self._sums
        first, last = max(slot, self._newest) - len(sums) + 1, min(slot, self._newest)
        total = 0.0
        for one in range(first, last + 1):
            total += sums[one % len(sums)]
        return total
