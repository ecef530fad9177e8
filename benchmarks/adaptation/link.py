"""A bottleneck in front of one or more viewers: a queue that is served at a changing rate. Pure, seeded."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


class Capacity:
    """Bits per second over time, constant between the times given: [(since, bit/s), ...], the first at 0."""

    def __init__(self, steps: Sequence[tuple[float, float]]) -> None:
        self.steps = tuple(steps)
        self._times = [since for since, _ in steps]

    def at(self, time: float) -> float:
        return self.steps[max(0, bisect_right(self._times, time) - 1)][1]

    def served(self, start: float, bits: float) -> float:
        """When `bits` that are begun at `start` are through."""
        place = max(0, bisect_right(self._times, start) - 1)
        now = start
        while True:
            rate = self.steps[place][1]
            end = self._times[place + 1] if place + 1 < len(self._times) else float("inf")
            if rate > 0.0:
                done = now + bits / rate
                if done <= end:
                    return done
                bits -= (end - now) * rate
            elif end == float("inf"):
                return end
            now, place = end, place + 1


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """`queue`: seconds of waiting beyond which packets are dropped at the tail. `delay`: seconds each way. `loss`: the
    share of packets that chance takes before the queue. `bucket`: octets of a token bucket that is filled at the
    capacity; with one there is no queue, and what finds no tokens is dropped. `blackout`: (from, to) in seconds, in
    which nothing passes in either direction."""

    capacity: Capacity
    queue: float = 0.5
    delay: float = 0.025
    loss: float = 0.0
    bucket: int | None = None
    blackout: tuple[float, float] | None = None


class Link:
    """Packets go in in the order of time and come out in order."""

    def __init__(self, settings: LinkSettings, seed: int) -> None:
        self.settings = settings
        self._random = random.Random(seed)
        self._free_at = 0.0
        self._tokens = float(settings.bucket or 0)
        self._filled_at = 0.0
        self.sent = self.lost = 0
        self.octets = 0

    def waiting(self, now: float) -> float:
        """Seconds that a packet sent now would wait."""
        return max(0.0, self._free_at - now)

    def dark(self, now: float) -> bool:
        blackout = self.settings.blackout
        return blackout is not None and blackout[0] <= now < blackout[1]

    def send(self, now: float, octets: int) -> float | None:
        """When the packet arrives, None: never."""
        arrival = None if self.dark(now) or self._random.random() < self.settings.loss else self._pass(now, octets)
        self.sent += 1
        self.lost += arrival is None
        if arrival is None:
            return None
        self.octets += octets
        return arrival + self.settings.delay

    def back(self, now: float) -> float | None:
        """When feedback that leaves the viewer now arrives, None: never."""
        return None if self.dark(now) else now + self.settings.delay

    def _pass(self, now: float, octets: int) -> float | None:
        settings = self.settings
        if settings.bucket is not None:
            rate = settings.capacity.at(now)
            self._tokens = min(settings.bucket, self._tokens + (now - self._filled_at) * rate / 8)
            self._filled_at = now
            if self._tokens < octets:
                return None
            self._tokens -= octets
            return now
        if self._free_at - now > settings.queue:
            return None
        self._free_at = settings.capacity.served(max(now, self._free_at), 8.0 * octets)
        return self._free_at
