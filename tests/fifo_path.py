"""A path for the tests of the estimators: one queue that is served at a rate, a delay, seeded losses. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from broadcaster.adaptation.estimator import TICK

PACKET = 1200
"""Octets on the wire."""


class Estimator(Protocol):
    """What is told of a path: an estimator, or what has one."""

    def sent(self, now: float, sequence: int, packets: int, octets: int, /) -> None: ...

    def arrived(self, now: float, arrivals: list[tuple[int, int | None]], /) -> None: ...


AnEstimator = TypeVar("AnEstimator", bound=Estimator)


class FifoPath(Generic[AnEstimator]):
    """Sends packets to an estimator's path, and tells it by transport-wide feedback what became of them.

    `capacity` in bit/s by time; `loss` is the share of packets that chance takes. `sequence` counts packets.
    """

    def __init__(
        self,
        estimator: AnEstimator,
        capacity: Callable[[float], float],
        *,
        delay: float = 0.03,
        loss: float = 0.0,
        limit: float = 1.0,
        sequence: int = 65_400,
        seed: int = 1,
    ) -> None:
        self.estimator = estimator
        self.now = 0.0
        self.octets = 0
        self.loss = loss
        self._capacity = capacity
        self._delay = delay
        self._limit = limit
        self._sequence = sequence
        self._random = random.Random(seed)
        self._free_at = 0.0
        self._flying: list[tuple[int, float | None]] = []
        self._feedback_at = 0.07

    @property
    def queue(self) -> float:
        """Seconds that a packet sent now would wait."""
        return max(0.0, self._free_at - self.now)

    def send(self, packets: int, octets: int = PACKET) -> None:
        """Send packets together."""
        self.estimator.sent(self.now, self._sequence & 0xFFFF, packets, packets * octets)
        self.octets += packets * octets
        for _ in range(packets):
            arrival = None
            if self.queue <= self._limit and self._random.random() >= self.loss:
                self._free_at = max(self._free_at, self.now) + octets * 8 / self._capacity(self.now)
                arrival = self._free_at + self._delay
            self._flying.append((self._sequence, arrival))
            self._sequence += 1

    def hold(self, seconds: float) -> None:
        """Nothing is served for some time from now on."""
        self._free_at = max(self._free_at, self.now) + seconds

    def run(self, seconds: float, bitrate: float, *, fps: float = 30.0) -> None:
        """Send frames of `bitrate` bit/s."""
        owed, end = 0.0, self.now + seconds
        while self.now < end - 1e-9:
            owed += bitrate / fps / 8 / PACKET
            self.send(int(owed))
            owed -= int(owed)
            self.wait(1 / fps)

    def wait(self, seconds: float) -> None:
        """Let time go, and feedback come every 70 ms."""
        end = self.now + seconds
        while self._feedback_at <= end:
            self.now = self._feedback_at
            self._feedback_at += 0.07
            self._report()
        self.now = end

    def _report(self) -> None:
        seen = self.now - self._delay
        arrived = [number for number, arrival in self._flying if arrival is not None and arrival <= seen]
        if not arrived:
            return
        told = [one for one in self._flying if one[0] <= arrived[-1]]
        self._flying = self._flying[len(told) :]
        self.estimator.arrived(
            self.now, [(number & 0xFFFF, None if at is None else int(at / TICK) & 0xFFFFFFFF) for number, at in told]
        )
