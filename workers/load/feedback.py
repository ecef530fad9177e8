"""What a viewer tells the server by RTCP, packed by hand: receiver report, REMB, NACK (RFC 3550, RFC 4585).

Transport-wide feedback is in arrivals.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from workers.forward.rtcp import (
    PAYLOAD_FEEDBACK,
    RECEIVER_REPORT,
    SENDER_REPORT,
    TRANSPORT_FEEDBACK,
    ReportBlock,
)

OWN_SSRC = 1
"""A receiver that sends no media may call itself anything; libwebrtc says 1."""

REMB_START = 300_000
"""Bit/s that libwebrtc believes in before it has seen anything."""

_REMB_HEADROOM, _REMB_GROWTH = 1.6, 1.08
"""Chromium's estimate plateaus near 1.6 times what arrives, and grows by 8 % a second (measured with version 156)."""

_MANTISSA = 18
_BITMASK = 16

NACK_PAUSE = 0.1
NACK_TRIES = 10
NACK_AGE = 1000
"""As libwebrtc: a packet is asked for again after 100 ms, ten times at most, and forgotten 1000 packets later."""


def receiver_report(block: ReportBlock | None) -> bytes:
    """A receiver report (RFC 3550 section 6.4.2); without a block nothing was received yet."""
    if block is None:
        return struct.pack("!BBHI", 0x80, RECEIVER_REPORT, 1, OWN_SSRC)
    lost = max(-0x800000, min(0x7FFFFF, block.cumulative_lost)) & 0xFFFFFF
    return struct.pack(
        "!BBHIIIIIII",
        0x81,
        RECEIVER_REPORT,
        7,
        OWN_SSRC,
        block.ssrc,
        block.fraction_lost << 24 | lost,
        block.highest_sequence & 0xFFFFFFFF,
        block.jitter & 0xFFFFFFFF,
        block.lsr,
        block.dlsr & 0xFFFFFFFF,
    )


def remb(bitrate: int, ssrc: int) -> bytes:
    """The bitrate in bit/s that this viewer believes it can receive (draft-alvestrand-rmcat-remb-03 section 2.2)."""
    exponent = max(0, bitrate.bit_length() - _MANTISSA)
    value = 1 << 24 | exponent << _MANTISSA | bitrate >> exponent
    return struct.pack("!BBHII4sII", 0x8F, PAYLOAD_FEEDBACK, 5, OWN_SSRC, 0, b"REMB", value, ssrc)


def next_estimate(estimate: float, received: float) -> float:
    """The estimate of the next report, a second later, of a viewer to which `received` bit/s came."""
    return max(estimate, min(received * _REMB_HEADROOM, max(estimate * _REMB_GROWTH, received)))


def nack(ssrc: int, numbers: Iterable[int]) -> bytes:
    """Ask for these sequence numbers, given in ascending order of their extended values (RFC 4585 section 6.2.1)."""
    pairs: list[list[int]] = []
    for number in numbers:
        if pairs and 0 < number - pairs[-1][0] <= _BITMASK:
            pairs[-1][1] |= 1 << (number - pairs[-1][0] - 1)
        else:
            pairs.append([number, 0])
    words = b"".join(struct.pack("!HH", first & 0xFFFF, bits) for first, bits in pairs)
    return struct.pack("!BBHII", 0x81, TRANSPORT_FEEDBACK, 2 + len(pairs), OWN_SSRC, ssrc) + words


def sender_report_time(packet: bytes) -> int | None:
    """LSR: the middle 32 bits of the NTP time of a sender report; None when the packet does not start with one."""
    if len(packet) < 28 or packet[1] != SENDER_REPORT:
        return None
    return int.from_bytes(packet[10:14], "big")


class Wanted:
    """The packets that one viewer misses and asks for. Numbers are extended sequence numbers."""

    def __init__(self) -> None:
        self._missing: dict[int, tuple[float, int]] = {}
        self.repaired = 0

    def note(self, before: int, highest: int, arrived: Iterable[int]) -> None:
        """Packets `arrived`, while the highest number went from `before` to `highest`."""
        here = set(arrived)
        for number in range(max(before + 1, highest - NACK_AGE), highest):
            if number not in here:
                self._missing[number] = (float("-inf"), 0)
        for number in here:
            self._missing.pop(number, None)
        for number in [number for number in self._missing if number < highest - NACK_AGE]:
            del self._missing[number]

    def resent(self, number: int) -> None:
        """A retransmission brought the packet whose sequence number has these low 16 bits."""
        found = next((one for one in self._missing if one & 0xFFFF == number), None)
        if found is not None:
            del self._missing[found]
            self.repaired += 1

    def due(self, now: float) -> list[int]:
        """What to ask for at `now`, in ascending order; it counts as asked."""
        asked = []
        for number, (at, tries) in sorted(self._missing.items()):
            if now - at < NACK_PAUSE:
                continue
            if tries == NACK_TRIES:
                del self._missing[number]
                continue
            self._missing[number] = (now, tries + 1)
            asked.append(number)
        return asked
