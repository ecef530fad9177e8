"""Arrivals: what came to each viewer and when, told to the server as a browser tells it.

Transport-wide feedback as of draft-holmer-rmcat-transport-wide-cc-extensions-01, section 3.1. The kernel of this folder
(arrivals.c) writes, protects and sends it for all viewers in one call; what it leaves out, where packets came in
disorder or a report leaves with it, is done here, and everything where it could not be built.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pylibsrtp._binding import ffi as srtp_ffi
from pylibsrtp._binding import lib as srtp_lib

from workers.forward.rtcp import TRANSPORT_FEEDBACK
from workers.forward.srtp import DIRECT
from workers.forward.state import address_of
from workers.load.client import Client
from workers.load.feedback import OWN_SSRC
from workers.load.inbox import ffi, lib

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

NATIVE = lib is not None and DIRECT
"""Whether the kernel can do it."""

_TICKS = 4000
"""Units of time in a second."""
_LOST, _SMALL, _LARGE = range(3)
_LONGEST_RUN = 0x1FFF
_HEAD, _CHUNK = struct.Struct("!BBHIIHHI"), struct.Struct("!H")
_PADDING = (b"", b"\x01", b"\x00\x02", b"\x00\x00\x03")
_MOST = 0xFFFF
_PACKET = 1400
"""Octets of what the kernel writes at most."""
_TOLD = 150
"""Packets that one feedback tells of at most, so that it fits with a report: each takes 6 octets, when none is next to
another and each comes late."""


class Teller(Protocol):
    """A bc_teller (arrivals.h), or what has its fields."""

    following: int
    ssrc: int
    count: int


@dataclass
class PlainTeller:
    """The same where there is no kernel."""

    ssrc: int
    following: int = -1
    count: int = 0


class Arrivals:
    """Of all viewers, since they were last told. What comes after a higher number was told is not told."""

    def __init__(self, viewers: int, *, native: bool = NATIVE) -> None:
        self._clients: dict[int, Client] = {}
        self._tellers: Any = ffi.new("bc_teller[]", viewers) if native else {}
        self._native = native
        self._protect = address_of(srtp_ffi.addressof(srtp_lib, "srtp_protect_rtcp")) if native else None
        self._noted: list[tuple[Integers, Integers, Integers]] = []
        self._spoken_for = np.zeros(viewers, np.bool_)

    def add(self, viewer: int, client: Client) -> None:
        """Tell this connected viewer's server from now on."""
        self._clients[viewer] = client
        if self._native:
            teller = self._tellers[viewer]
            teller.following, teller.srtp, teller.socket = -1, address_of(client.context), client.socket.fileno()
            teller.ssrc = client.answer.ssrc
        else:
            self._tellers[viewer] = PlainTeller(client.answer.ssrc)

    def remove(self, viewer: int) -> None:
        if self._clients.pop(viewer, None) is not None and self._native:
            self._tellers[viewer].srtp = ffi.NULL

    def note(self, viewer: Integers, numbers: Integers, arrival: Floats) -> None:
        """Packets with these transport-wide numbers came to these viewers (monotonic seconds), in this order."""
        self._noted.append((viewer, numbers, ticks_of(arrival)))

    def tell(self, reports: dict[int, bytes]) -> list[tuple[int, bytes]]:
        """Send the feedback on all of that, but for what the kernel leaves out and that of viewers with a report: the
        packets that are still to be sent, with all reports in front.
        """
        if not self._noted:
            return list(reports.items())
        viewer, numbers, ticks = (np.concatenate(column) for column in zip(*self._noted, strict=True))
        self._noted = []
        order = np.argsort(viewer, kind="stable")
        viewer, numbers, ticks = viewer[order], numbers[order], ticks[order]
        starts = _starts(viewer)
        who = viewer[starts[:-1]]
        left = np.full(len(who), not self._native)
        if self._native:
            self._spoken_for[list(reports)] = True
            left = self._spoken_for[who]
            self._spoken_for[list(reports)] = False
            lib.bc_tell(
                *(self._protect, self._tellers, _numbers(who), _numbers(starts), len(who)),
                *(_numbers(numbers), _numbers(ticks), ffi.from_buffer("uint8_t[]", left)),
            )
        packets: list[tuple[int, bytes]] = []
        reports = dict(reports)
        for group in np.flatnonzero(left).tolist():
            one = int(who[group])
            if one in self._clients:
                rows = slice(int(starts[group]), int(starts[group + 1]))
                packet = self._tell(one, numbers[rows], ticks[rows])
                if packet is not None:
                    packets.append((one, reports.pop(one, b"") + packet))
        return [*reports.items(), *packets]

    def _tell(self, viewer: int, numbers: Integers, ticks: Integers) -> bytes | None:
        teller = self._tellers + viewer if self._native else self._tellers[viewer]
        packet = tell_natively(teller, numbers, ticks) if self._native else None
        return packet or tell(teller, numbers, ticks)


def _starts(viewer: Integers) -> Integers:
    """Where another viewer's packets begin, or enough of one's have been; and the end."""
    starts = np.flatnonzero(np.diff(viewer, prepend=-1))
    within = np.arange(len(viewer)) - np.repeat(starts, np.diff(starts, append=len(viewer)))
    return np.append(np.flatnonzero(within % _TOLD == 0), len(viewer))


def _numbers(array: Integers) -> Any:
    return ffi.from_buffer("int64_t[]", np.ascontiguousarray(array, np.int64))


def tell(teller: Teller, numbers: Integers, ticks: Integers) -> bytes | None:
    """The feedback on packets of which `numbers` have the lower 16 bits; None when all come too late to be told."""
    following = int(numbers[0]) if teller.following < 0 else teller.following
    extended = following + ((numbers - following + 0x8000) & 0xFFFF) - 0x8000
    extended, order = np.unique(extended, return_index=True)
    base = max(following, int(extended[-1]) - _MOST + 1)
    first = int(np.searchsorted(extended, base))
    extended, ticks = extended[first:], ticks[order][first:]
    if not len(extended):
        return None
    packet = feedback(teller.ssrc, teller.count, base, extended - base, ticks)
    teller.following = int(extended[-1]) + 1
    teller.count = teller.count + 1 & 0xFF
    return packet


def tell_natively(teller: Any, numbers: Integers, ticks: Integers) -> bytes | None:
    """The same by the kernel, of a bc_teller; None also where the kernel leaves it to Python."""
    packet = ffi.new("uint8_t[]", _PACKET)
    size = lib.bc_feedback(teller, _numbers(numbers), _numbers(ticks), len(numbers), packet, _PACKET)
    return bytes(ffi.buffer(packet, size)) if size else None


def ticks_of(arrivals: Floats) -> Integers:
    """Monotonic seconds in the units that are told."""
    return (arrivals * _TICKS).astype(np.int64)


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
