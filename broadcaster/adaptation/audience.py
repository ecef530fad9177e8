"""Audience: how much the paths to the viewers of a stream carry, as a histogram that adds up over workers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

BINS = 80
"""Bins of a histogram; each is an eighth of an octave wide, from LOWEST bit/s on."""

LOWEST = 50_000
_PER_OCTAVE = 8

Histogram = Mapping[int, int]
"""Viewers by bin."""


def bin_of(bitrate: float) -> int:
    """The bin of an estimate in bit/s; what is too small or too large for any is in the first or the last."""
    if not bitrate > LOWEST:
        return 0
    return min(BINS - 1, int(_PER_OCTAVE * math.log2(min(bitrate, 1e12) / LOWEST)))


def bitrate_of(number: int) -> float:
    """The least bit/s of a bin; of the first one 0."""
    return LOWEST * 2.0 ** (number / _PER_OCTAVE) if number > 0 else 0.0


def carrying(bitrate: float) -> float:
    """The least bit/s that count, binned, as enough for `bitrate`."""
    return 1.001 * bitrate_of(bin_of(bitrate) + 1)


def histogram(estimates: Iterable[float]) -> dict[int, int]:
    """Count estimates in bit/s."""
    counts: dict[int, int] = {}
    for estimate in estimates:
        number = bin_of(estimate)
        counts[number] = counts.get(number, 0) + 1
    return dict(sorted(counts.items()))


def merged(histograms: Iterable[Histogram]) -> dict[int, int]:
    """The histogram of all together."""
    counts: dict[int, int] = {}
    for one in histograms:
        for number, count in one.items():
            counts[number] = counts.get(number, 0) + count
    return dict(sorted(counts.items()))


def quantile(audience: Histogram, share: float) -> float | None:
    """What the path of all but `share` (0 to 1) of the viewers carries at least, in bit/s; None without viewers."""
    total = sum(audience.values())
    passed = 0
    for number, count in sorted(audience.items()):
        passed += count
        if passed > share * total:
            return bitrate_of(number)
    return None
