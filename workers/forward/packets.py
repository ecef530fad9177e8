"""RTP packets of VP8: one frame cut once for everybody, and the bytes that differ per viewer.

A datagram is laid out as RTP header (RFC 3550), one-byte header extensions (RFC 8285), VP8 payload descriptor
(RFC 7741), then a chunk of the frame, which is all that viewers share.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from broadcaster.stream import EncodedFrame

MAX_DATAGRAM = 1200
"""Octets of UDP payload that every path is trusted to carry, as libwebrtc and QUIC (RFC 9000 section 14) assume."""

DESCRIPTOR_SIZE = 6
HEADER_SIZE = 12
_PROFILE_SIZE = 4
_MAX_EXTENSIONS = _PROFILE_SIZE + 28
OSN_SIZE = 2
_MAX_TAG = 16
MAX_MID = 16
"""Octets that one element of a one-byte header extension can carry (RFC 8285 section 4.2)."""

CHUNK_SIZE = MAX_DATAGRAM - HEADER_SIZE - _MAX_EXTENSIONS - DESCRIPTOR_SIZE - OSN_SIZE - _MAX_TAG
"""Octets of a frame in one packet, such that its retransmission to any viewer still fits into MAX_DATAGRAM."""

MAX_SOUND = CHUNK_SIZE
"""Octets of a packet of sound at most, so that it fits into everybody's datagrams."""

MARKER = 0x80
_ONE_BYTE_PROFILE = 0xBEDE

FIRST = 0x90F0
"""The first octets of the descriptor in a frame's first packet: X and S; I, L, T and K (RFC 7741 section 4.2)."""
CONTINUATION = 0x80F0
"""The same in its other packets, without S."""


def packets_of(frame: EncodedFrame) -> int:
    """How many packets a frame makes."""
    return -(-len(frame.payload) // CHUNK_SIZE)


def packetise(frame: EncodedFrame, first: int = 0, end: int | None = None) -> tuple[bytes, ...]:
    """Cut a VP8 frame into chunks of CHUNK_SIZE octets, the last one possibly shorter; return those from number `first`
    up to `end`, or all.

    Equal sizes let the operating system cut one large send into datagrams (UDP_SEGMENT wants them so).
    """
    payload = frame.payload
    starts = range(0, len(payload), CHUNK_SIZE)[first:end]
    return tuple([payload[start : start + CHUNK_SIZE] for start in starts])


@dataclass(frozen=True, slots=True)
class ExtensionIds:
    """The ids (1 to 14) under which a viewer knows its header extensions; None was not negotiated."""

    abs_send_time: int | None = None
    mid: int | None = None
    playout_delay: int | None = None
    transport_sequence: int | None = None


class ExtensionBlock:
    """The header extensions of one viewer, where only time and transport-wide sequence number change.

    abs-send-time: 24 bits, seconds in 6.18 fixed point (draft-alvestrand-rmcat-remb-03 section 4, and
    http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time). playout-delay: minimum and maximum in units of
    10 ms, 12 bits each (http://www.webrtc.org/experiments/rtp-hdrext/playout-delay). mid: RFC 9143 section 15. The
    transport-wide sequence number: 16 bits (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 2).

    `time_at` and `transport_at` tell where in the block the time and the number stand, 0 where not negotiated.
    """

    def __init__(self, ids: ExtensionIds, mid: str, playout_delay: tuple[int, int] = (0, 0)) -> None:
        stamped = ids.abs_send_time is not None
        rest = b""
        if ids.playout_delay is not None:
            minimum, maximum = playout_delay
            rest += bytes([ids.playout_delay << 4 | 2]) + (minimum << 12 | maximum).to_bytes(3, "big")
        if ids.mid is not None and 0 < len(mid.encode()) <= MAX_MID:
            rest += bytes([ids.mid << 4 | len(mid.encode()) - 1]) + mid.encode()
        self.time_at = self.transport_at = 0
        if stamped:
            self.time_at = _PROFILE_SIZE + 1
        if ids.transport_sequence is not None:
            self.transport_at = _PROFILE_SIZE + (4 if stamped else 0) + len(rest) + 1
            rest += bytes([ids.transport_sequence << 4 | 1, 0, 0])
        rest += bytes(-len(rest) % 4)
        words = (len(rest) + (4 if stamped else 0)) // 4
        self.present = words > 0
        self._word = (ids.abs_send_time or 0) << 28 | 2 << 24
        self._pack = _block_packer(len(rest))
        self._words = words
        self._rest = rest
        self._fixed = struct.pack("!HH", _ONE_BYTE_PROFILE, words) + rest if self.present else b""
        self.size = _PROFILE_SIZE + 4 * words if self.present else 0

    def at(self, wall: float) -> bytes:
        """The block, without a transport-wide number, of a packet that is sent at `wall` seconds since 1970."""
        if not self.time_at:
            return self._fixed
        return self._pack(_ONE_BYTE_PROFILE, self._words, self._word | int(wall * 262_144) & 0xFFFFFF, self._rest)


@cache
def _block_packer(rest: int) -> Callable[..., bytes]:
    """`pack` for a block with so many octets behind the time. The values: profile, words, time, rest."""
    return struct.Struct(f"!HHI{rest}s").pack


@cache
def head_packer(extensions: int) -> Callable[..., bytes]:
    """`pack` for what stands between sequence number and chunk, where extensions take so many octets.

    The values: timestamp, SSRC (4 octets), extensions, then of the VP8 descriptor (RFC 7741 section 4.2) FIRST or
    CONTINUATION, 0x8000 | picture id, TL0PICIDX, and TID << 6 | Y << 5 | KEYIDX. The descriptor's style is the same for
    every stream, with layers or without: changing it mid-stream freezes players for seconds.
    """
    return struct.Struct(f"!I4s{extensions}sHHBB").pack


@cache
def rtx_packer(extensions: int) -> Callable[..., None]:
    """`pack_into` for a retransmission (RFC 4588 section 4), where extensions take so many octets.

    The values: first word, timestamp, SSRC (4 octets), extensions, original sequence number, descriptor, chunk (padded
    with zeros to CHUNK_SIZE).
    """
    return struct.Struct(f"!II4s{extensions}sH{DESCRIPTOR_SIZE}s{CHUNK_SIZE}s").pack_into
