"""Arrivals: which transport-wide numbers came to each viewer and when, told as a browser tells it.

Transport-wide feedback as of draft-holmer-rmcat-transport-wide-cc-extensions-01, section 3.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import sub

import numpy as np
from numpy.typing import NDArray

from workers.forward.rtcp import TRANSPORT_FEEDBACK
from workers.load.feedback import OWN_SSRC

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_HEADER = 12
_ONE_BYTE_PROFILE = 0xBEDE
_TICKS = 4000
"""Units of time in a second."""
_LOST, _SMALL, _LARGE = range(3)
_LONGEST_RUN = 0x1FFF
_HEAD, _CHUNK = struct.Struct("!BBHIIHHI"), struct.Struct("!H")
_PADDING = (b"", b"\x01", b"\x00\x02", b"\x00\x00\x03")
_MOST = 0xFFFF


def number_at(packet: bytes, extension: int) -> int:
    """Where in an RTP packet the transport-wide number stands, under this id (RFC 8285); 0 when it has none."""
    if len(packet) < _HEADER + 4 or not packet[0] & 0x10:
        return 0
    at = _HEADER + 4 * (packet[0] & 15)
    profile, words = struct.unpack_from("!HH", packet, at) if len(packet) >= at + 4 else (0, 0)
    at += 4
    end = at + 4 * words
    if profile != _ONE_BYTE_PROFILE or len(packet) < end:
        return 0
    while at < end:
        element = packet[at]
        if element == 0:
            at += 1
        elif element == extension << 4 | 1:
            return at + 1
        else:
            at += 2 + (element & 15)
    return 0


class Arrivals:
    """Of one viewer, since the last time that it was told. What comes after a higher number was told is not told."""

    def __init__(self) -> None:
        self._following: int | None = None
        self._numbers: list[int] = []
        self._ticks: list[int] = []
        self._count = 0

    def add(self, numbers: Sequence[int], ticks: Sequence[int]) -> None:
        """Packets with these transport-wide numbers came at these times."""
        self._numbers += numbers
        self._ticks += ticks

    def tell(self, ssrc: int) -> bytes | None:
        """The feedback on all of that; None when nothing came."""
        numbers, ticks = self._numbers, self._ticks
        if not numbers:
            return None
        self._numbers, self._ticks = [], []
        following = numbers[0] if self._following is None else self._following
        packet = _in_order(ssrc, self._count, following & 0xFFFF, numbers, ticks)
        if packet is None:
            return self._tell_disorder(ssrc, following, np.array(numbers, np.int64), np.array(ticks, np.int64))
        self._following = following + len(numbers)
        self._count = self._count + 1 & 0xFF
        return packet

    def _tell_disorder(self, ssrc: int, following: int, numbers: Integers, ticks: Integers) -> bytes | None:
        extended = following + ((numbers - following + 0x8000) & 0xFFFF) - 0x8000
        extended, order = np.unique(extended, return_index=True)
        first = int(np.searchsorted(extended, max(following, int(extended[-1]) - _MOST + 1)))
        extended, ticks = extended[first:], ticks[order][first:]
        if not len(extended):
            return None
        base = max(following, int(extended[-1]) - _MOST + 1)
        self._following = int(extended[-1]) + 1
        packet = feedback(ssrc, self._count, base, extended - base, ticks)
        self._count = self._count + 1 & 0xFF
        return packet


def ticks_of(arrivals: Floats) -> Integers:
    """Monotonic seconds in the units that are told."""
    return (arrivals * _TICKS).astype(np.int64)


def _in_order(ssrc: int, count: int, base: int, numbers: list[int], ticks: list[int]) -> bytes | None:
    """What `feedback` makes where every packet came, one after the other and soon, as nearly always; else None.

    A viewer tells of a dozen packets at a time, for which an array costs ten times what they do.
    """
    total = len(numbers)
    if total > _LONGEST_RUN or numbers != list(range(base, base + total)):
        return None
    try:
        deltas = bytes([ticks[0] & 0xFF, *map(sub, ticks[1:], ticks)])
    except ValueError:
        return None  # one is too large, or less than nothing
    return _packet(ssrc, count, base, total, ticks[0] >> 8, _CHUNK.pack(_SMALL << 13 | total) + deltas)


def feedback(ssrc: int, count: int, base: int, places: Integers, ticks: Integers) -> bytes:
    """Feedback number `count`: packets base + places (ascending) came at `ticks`, the others from `base` on did not.

    A pause of more than 8 s is told as 8 s, which is what a delta holds.
    """
    reference = int(ticks[0]) >> 8
    deltas = np.diff(ticks, prepend=reference << 8).clip(-0x8000, 0x7FFF)
    large = (deltas < 0) | (deltas > 0xFF)
    total = int(places[-1]) + 1
    statuses = np.zeros(total, np.int64)
    statuses[places] = np.where(large, _LARGE, _SMALL)
    chunks = _chunks((status, len(list(run))) for status, run in groupby(statuses.tolist()))
    written = b"".join(
        struct.pack("!h" if wide else "!B", delta) for delta, wide in zip(deltas.tolist(), large.tolist(), strict=True)
    )
    return _packet(ssrc, count, base & 0xFFFF, total, reference, b"".join(chunks) + written)


def _packet(ssrc: int, count: int, base: int, total: int, reference: int, rest: bytes) -> bytes:
    padding = -len(rest) % 4
    if padding:
        rest += _PADDING[padding]
    first, words = 0x80 | (0x20 if padding else 0) | 15, (_HEAD.size + len(rest)) // 4 - 1
    dated = (reference & 0xFFFFFF) << 8 | count
    return _HEAD.pack(first, TRANSPORT_FEEDBACK, words, OWN_SSRC, ssrc, base, total, dated) + rest


def _chunks(runs: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    for status, length in runs:
        for start in range(0, length, _LONGEST_RUN):
            yield _CHUNK.pack(status << 13 | min(length - start, _LONGEST_RUN))
