"""Writes transport-wide feedback as a viewer does (draft-holmer-rmcat-transport-wide-cc-extensions-01), for tests."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal

Chunks = Literal["runs", "bits", "pairs"]
"""How statuses are written: run-length chunks, or status vectors of 1 or 2 bits each."""


def status_of(delta: int | None) -> int:
    """`delta` in ticks of 250 µs, None when the packet was lost."""
    if delta is None:
        return 0
    return 1 if 0 <= delta <= 255 else 2


def _runs(statuses: Sequence[int]) -> bytes:
    written = b""
    start = 0
    while start < len(statuses):
        end = start
        while end < len(statuses) and statuses[end] == statuses[start] and end - start < 0x1FFF:
            end += 1
        written += struct.pack("!H", statuses[start] << 13 | end - start)
        start = end
    return written


def _vectors(statuses: Sequence[int], bits: int) -> bytes:
    places = 14 // bits
    written = b""
    for start in range(0, len(statuses), places):
        chunk = 2 | bits - 1
        for place in range(places):
            chunk = chunk << bits | (statuses[start + place] if start + place < len(statuses) else 0)
        written += struct.pack("!H", chunk)
    return written


def transport_feedback(
    base: int, reference: int, deltas: Sequence[int | None], *, chunks: Chunks = "runs", media: int = 0, number: int = 0
) -> bytes:
    """Feedback on packets from `base` on; `reference` in units of 64 ms, `deltas` in ticks, None for lost packets."""
    statuses = [status_of(delta) for delta in deltas]
    if chunks == "runs":
        written = _runs(statuses)
    else:
        assert chunks == "pairs" or 2 not in statuses, "vectors of single bits hold no large deltas"
        written = _vectors(statuses, 1 if chunks == "bits" else 2)
    for delta, status in zip(deltas, statuses, strict=True):
        if delta is not None:
            written += struct.pack("!B" if status == 1 else "!h", delta)
    body = struct.pack("!IIHHI", 1, media, base, len(deltas), reference << 8 | number) + written
    padding = -len(body) % 4
    if padding:
        body += bytes(padding - 1) + bytes([padding])
    # RFC 3550 pads by whole words; libwebrtc fills up the last word like this.
    first = 0x80 | (0x20 if padding else 0) | 15
    return struct.pack("!BBH", first, 205, len(body) // 4) + body
