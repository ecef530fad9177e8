"""What the simulator drives: whoever decides what one viewer is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from broadcaster.adaptation.levels import Level


class Control(Protocol):
    """`level` is what should be sent now (None: nothing), `probe` how many bit/s should leave in all, padding included
    (0: no padding). Both are read after each call. All times are seconds of one clock.
    """

    @property
    def level(self) -> Level | None: ...

    @property
    def probe(self) -> float: ...

    def sent(self, now: float, sequence: int, packets: int, octets: int) -> None:
        """Packets with consecutive transport-wide numbers (modulo 2^16) left together."""

    def arrived(self, now: float, arrivals: Sequence[tuple[int, int | None]]) -> None:
        """One transport-wide feedback: numbers, and ticks of 250 µs at which they arrived."""

    def reported(
        self, now: float, *, loss: float | None, rtt: float | None, jitter: float | None, remb: float | None
    ) -> None:
        """A receiver report (each second), or a REMB (`remb` only, three times a second)."""

    def tick(self, now: float) -> None:
        """After each feedback, and once a second."""


MakeControl = Callable[[Sequence[Level], Level], Control]
