"""RTCP without I/O: what viewers report is walked by hand, sender reports are packed.

Compound packets as of RFC 3550 section 6, feedback as of RFC 4585 (NACK, PLI), RFC 5104 (FIR) and
draft-alvestrand-rmcat-remb-03 (REMB), arrivals as of draft-holmer-rmcat-transport-wide-cc-extensions-01; reduced-size
packets (RFC 5506) are as welcome. The twin in feedback.c reads the same natively.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from broadcaster.errors import RtcpError

SENDER_REPORT = 200
RECEIVER_REPORT = 201
SOURCE_DESCRIPTION = 202
GOODBYE = 203
TRANSPORT_FEEDBACK = 205
PAYLOAD_FEEDBACK = 206

_NACK = 1
_TRANSPORT_WIDE = 15
_PLI = 1
_FIR = 4
_APPLICATION = 15
_CNAME = 1

MAX_LOST = 256
"""Lost packets that one datagram may name, so that looking for them stays cheap; an honest viewer asks again for the
rest."""

MAX_ARRIVALS = 2048
"""Packets of transport-wide feedback that are remembered until somebody takes them: three seconds at 6 Mbit/s. A
feedback packet of 20 octets may speak of 65,535 lost ones."""

_block = struct.Struct("!IIIIII").unpack_from
_half = struct.Struct("!H").unpack_from
_pair = struct.Struct("!HH").unpack_from
_word = struct.Struct("!I").unpack_from
_sender_report = struct.Struct("!BBHIQIII").pack


class ReportBlock(NamedTuple):
    """One report block (RFC 3550 section 6.4.1).

    `fraction_lost` is the raw 8-bit value, `cumulative_lost` signed, `highest_sequence` extended to 32 bits, `jitter`
    in ticks of the RTP clock, `lsr` and `dlsr` in units of 1/65536 s.
    """

    ssrc: int
    fraction_lost: int
    cumulative_lost: int
    highest_sequence: int
    jitter: int
    lsr: int
    dlsr: int


class Arrival(NamedTuple):
    """What transport-wide feedback says about one packet.

    `sequence` is the transport-wide number, `ticks` its arrival in units of 250 µs of the viewer's clock, modulo 2^32;
    None when it was lost.
    """

    sequence: int
    ticks: int | None


@dataclass(slots=True)
class Compound:
    """What one datagram of a viewer says. Feedback names the SSRC that it is about."""

    reports: list[ReportBlock] = field(default_factory=list)
    lost: list[tuple[int, int]] = field(default_factory=list)
    """(SSRC, sequence number) of each packet that a NACK asks for, in the order asked."""
    pictures_lost: list[int] = field(default_factory=list)
    """SSRCs of PLI and FIR."""
    remb: int | None = None
    """Bits per second that the viewer believes it can receive."""
    remb_ssrcs: tuple[int, ...] = ()
    goodbye: bool = False
    arrivals: list[Arrival] = field(default_factory=list)
    """In the order of their numbers, at most MAX_ARRIVALS."""


def parse(packet: bytes) -> Compound:
    """Read a compound or reduced-size RTCP packet; packet types that are not of interest are skipped.

    Raises RtcpError when the bytes are no RTCP.
    """
    found = Compound()
    size = len(packet)
    if size < 4:
        raise RtcpError(f"An RTCP packet has at least 4 octets, this one has {size}.")
    start = 0
    while start < size:
        if size - start < 4:
            raise RtcpError("An RTCP packet ends within a header.")
        first = packet[start]
        kind = packet[start + 1]
        end = start + 4 + 4 * (packet[start + 2] << 8 | packet[start + 3])
        if first >> 6 != 2:
            raise RtcpError(f"RTCP has version 2, this packet says {first >> 6}.")
        if end > size:
            raise RtcpError("An RTCP packet is shorter than its header says.")
        stop = end
        if first & 0x20:
            padding = packet[end - 1]
            if not 0 < padding <= end - start - 4:  # Chromium pads transport-wide feedback by single octets
                raise RtcpError("The padding of an RTCP packet makes no sense.")
            stop -= padding
        _read(found, kind, first & 31, packet[start + 4 : stop])
        start = end
    return found


def _read(found: Compound, kind: int, count: int, body: bytes) -> None:
    """Read one packet; `body` is what follows its first word, without padding."""
    if kind == RECEIVER_REPORT:
        _read_blocks(found, body, 4, count)
    elif kind == SENDER_REPORT:
        _read_blocks(found, body, 24, count)
    elif kind == GOODBYE:
        found.goodbye = True
    elif kind in (PAYLOAD_FEEDBACK, TRANSPORT_FEEDBACK):
        if len(body) < 8:
            raise RtcpError("An RTCP feedback packet is too short to name its sources.")
        if kind == TRANSPORT_FEEDBACK:
            if count == _NACK:
                _read_nack(found, body)
            elif count == _TRANSPORT_WIDE:
                _read_arrivals(found, body)
        elif count == _PLI:
            found.pictures_lost.append(_word(body, 4)[0])
        elif count == _FIR:
            found.pictures_lost.extend(_word(body, entry)[0] for entry in range(8, len(body) - 7, 8))
        elif count == _APPLICATION and body[8:12] == b"REMB":
            _read_remb(found, body)


def _read_blocks(found: Compound, body: bytes, start: int, count: int) -> None:
    end = start + 24 * count
    if end > len(body):
        raise RtcpError("An RTCP report is shorter than its number of report blocks.")
    for position in range(start, end, 24):
        ssrc, loss, highest, jitter, lsr, dlsr = _block(body, position)
        lost = loss & 0xFFFFFF
        if lost & 0x800000:
            lost -= 0x1000000
        found.reports.append(ReportBlock(ssrc, loss >> 24, lost, highest, jitter, lsr, dlsr))


def _read_nack(found: Compound, body: bytes) -> None:
    (ssrc,) = _word(body, 4)
    lost = found.lost
    for position in range(8, len(body) - 3, 4):
        first, bits = _pair(body, position)
        lost.append((ssrc, first))
        number = first
        while bits:
            number += 1
            if bits & 1:
                lost.append((ssrc, number & 0xFFFF))
            bits >>= 1
        if len(lost) >= MAX_LOST:
            del lost[MAX_LOST:]
            return


def _read_remb(found: Compound, body: bytes) -> None:
    if len(body) < 16 or len(body) < 16 + 4 * body[12]:
        raise RtcpError("A REMB packet is shorter than its number of sources.")
    (value,) = _word(body, 12)
    found.remb = (value & 0x3FFFF) << (value >> 18 & 0x3F)
    found.remb_ssrcs = struct.unpack_from(f"!{body[12]}I", body, 16)


def _read_statuses(body: bytes, left: int) -> tuple[list[tuple[int, int]], int]:
    """Runs of (status, packets) of the chunks of `left` packets, and where the chunks end. A status is the number of
    octets of the packet's delta: 0 is lost, 3 is reserved."""
    runs: list[tuple[int, int]] = []
    position = 16
    while left > 0:
        if position + 2 > len(body):
            raise RtcpError("Transport-wide feedback ends within its chunks.")
        (chunk,) = _half(body, position)
        position += 2
        if not chunk & 0x8000:
            counted = min(left, chunk & 0x1FFF)
            runs.append((chunk >> 13, counted))
        elif chunk & 0x4000:
            counted = min(left, 7)
            runs += [(chunk >> shift & 3, 1) for shift in range(12, 12 - 2 * counted, -2)]
        else:
            counted = min(left, 14)
            runs += [(chunk >> shift & 1, 1) for shift in range(13, 13 - counted, -1)]
        left -= counted
    return runs, position


def _read_arrivals(found: Compound, body: bytes) -> None:
    if len(body) < 16:
        raise RtcpError("Transport-wide feedback is too short for its header.")
    sequence, count = _pair(body, 8)
    runs, position = _read_statuses(body, count)
    if any(status == 3 and count for status, count in runs):
        raise RtcpError("Transport-wide feedback has a status that is reserved.")
    if position + sum(status * count for status, count in runs) > len(body):
        raise RtcpError("Transport-wide feedback ends within its deltas.")
    arrivals = found.arrivals
    ticks = _word(body, 12)[0] & 0xFFFFFF00  # 64 ms are 256 ticks, and the packet's own number stands below
    for status, count in runs:
        room = MAX_ARRIVALS - len(arrivals)
        numbers = range(sequence, sequence + min(count, room))
        if status == 0:
            arrivals += [Arrival(number & 0xFFFF, None) for number in numbers]
        else:
            end = position + status * count
            deltas = body[position:end] if status == 1 else struct.unpack_from(f"!{count}h", body, position)
            for number, delta in zip(numbers, deltas, strict=False):
                ticks = (ticks + delta) & 0xFFFFFFFF
                arrivals.append(Arrival(number & 0xFFFF, ticks))
            position = end
        if count > room:
            return
        sequence += count


def sender_report(ssrc: int, ntp: int, timestamp: int, *, packets: int, octets: int, description: bytes) -> bytes:
    """A sender report without blocks, followed by `description` (of `source_description`).

    `ntp` has 64 bits and is the same moment as the RTP `timestamp`; `packets` and `octets` are counted modulo 2^32.
    """
    return (
        _sender_report(
            0x80, SENDER_REPORT, 6, ssrc, ntp, timestamp & 0xFFFFFFFF, packets & 0xFFFFFFFF, octets & 0xFFFFFFFF
        )
        + description
    )


def source_description(ssrc: int, cname: str) -> bytes:
    """An SDES packet with the CNAME of `ssrc` (RFC 3550 section 6.5); `cname` has at most 255 octets."""
    name = cname.encode()
    item = struct.pack("!IBB", ssrc, _CNAME, len(name)) + name
    item += bytes(4 - len(item) % 4)
    return struct.pack("!BBH", 0x81, SOURCE_DESCRIPTION, len(item) // 4) + item
