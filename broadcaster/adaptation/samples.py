"""Sample: what was measured of one connection, and how healthy that makes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

Word = Literal["good", "fair", "poor"]

_LOSS_RUINS = 0.2
_RTT_EASY, _RTT_HARD = 0.1, 1.0
_JITTER_EASY, _JITTER_HARD = 0.02, 0.2
_GOOD, _FAIR = 0.8, 0.5


@dataclass(slots=True)
class Sample:
    """Measurements of one interval; None is unknown, and so is what cannot be (NaN, infinite, negative, no number).

    `packet_loss` is a fraction 0..1, `rtt` and `jitter` are seconds, `estimate` is what the path is believed to carry
    and `sent_bitrate` what was sent, both in bit/s. `rtt_min` is the lowest RTT seen on this connection, in seconds:
    a high RTT means a queue only where it is well above that.

    Nobody changes one. Not to enforce that makes it twice as fast to make, and a worker makes two for each feedback
    during a probe.
    """

    packet_loss: float | None = None
    rtt: float | None = None
    jitter: float | None = None
    estimate: float | None = None
    sent_bitrate: float | None = None
    rtt_min: float | None = None

    def __post_init__(self) -> None:
        # For the same reason what is as it should be costs next to nothing.
        given = self.packet_loss, self.rtt, self.jitter, self.estimate, self.sent_bitrate, self.rtt_min
        for value in given:
            if value is not None and not (type(value) is float and 0.0 <= value < math.inf):
                self._correct()
                break
        if self.packet_loss is not None and self.packet_loss > 1.0:
            self.packet_loss = 1.0

    def _correct(self) -> None:
        for name in _NAMES:
            setattr(self, name, known(getattr(self, name)))

    def as_dict(self) -> dict[str, float | None]:
        return {name: getattr(self, name) for name in _NAMES}


_NAMES = tuple(field.name for field in fields(Sample))


def known(value: object) -> float | None:
    """`value` as a float when it is a measurement (a finite number, not negative), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0.0 else None


@dataclass(frozen=True, slots=True)
class Health:
    """How healthy a connection is: `score` from 0 (dead) to 1 (perfect), and a word for it."""

    score: float
    word: Word


def health(sample: Sample) -> Health | None:
    """The health of a connection, or None as long as neither loss nor RTT is known.

    score = loss part x rtt part x jitter part; a part that is unknown counts as 1:

    - loss: falls from 1 at none to 0 at 20 %, where no amount of retransmission saves a picture;
    - rtt: 1 up to 100 ms, falls to 0.5 at 1 s, where a retransmission comes too late for any playout delay;
    - jitter: 1 up to 20 ms, falls to 0.5 at 200 ms, the most that browsers' jitter buffers commonly absorb.

    "good" from 0.8, "fair" from 0.5, "poor" below: with everything else perfect 4 % loss is just good, 10 % just fair.
    """
    if sample.packet_loss is None and sample.rtt is None:
        return None
    score = 1.0
    if sample.packet_loss is not None:
        score *= max(0.0, 1.0 - sample.packet_loss / _LOSS_RUINS)
    if sample.rtt is not None:
        score *= _half_between(sample.rtt, _RTT_EASY, _RTT_HARD)
    if sample.jitter is not None:
        score *= _half_between(sample.jitter, _JITTER_EASY, _JITTER_HARD)
    score = round(score, 6)
    return Health(score, "good" if score >= _GOOD else "fair" if score >= _FAIR else "poor")


def _half_between(value: float, easy: float, hard: float) -> float:
    return 1.0 - 0.5 * min(1.0, max(0.0, (value - easy) / (hard - easy)))
