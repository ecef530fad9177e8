"""A bottleneck in front of one or more viewers: a queue that is served at a changing rate. Pure, seeded."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.capacity import Capacity, Policer


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """`queue`: seconds of waiting beyond which packets are dropped at the tail. `delay`: seconds each way. `loss`: the
    share of packets that chance takes before the queue. `bucket`: octets of a token bucket that is filled at the
    capacity of the beginning; with one there is no queue, and what finds no tokens is dropped. `blackout`: (from, to)
    in seconds, in which nothing passes in either direction."""

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
        bucket = settings.bucket
        self._policer = None if bucket is None else Policer(settings.capacity.at(0.0), bucket)
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
        if self._policer is not None:
            return now if self._policer.lets(now, octets) else None
        if self._free_at - now > settings.queue:
            return None
        self._free_at = settings.capacity.through(max(now, self._free_at), 8.0 * octets)
        return self._free_at
