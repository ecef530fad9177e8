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
_RTP_HEADER = 12
_MAX_EXTENSIONS = 4 + 28
OSN_SIZE = 2
_MAX_TAG = 16
MAX_MID = 16
"""Octets that one element of a one-byte header extension can carry (RFC 8285 section 4.2)."""

CHUNK_SIZE = MAX_DATAGRAM - _RTP_HEADER - _MAX_EXTENSIONS - DESCRIPTOR_SIZE - OSN_SIZE - _MAX_TAG
"""Octets of a frame in one packet, such that its retransmission to any viewer still fits into MAX_DATAGRAM."""

MARKER = 0x80
_ONE_BYTE_PROFILE = 0xBEDE
_FIRST = 0x90
_CONTINUATION = 0x80

_descriptor = struct.Struct("!BBHBB").pack

Pack = Callable[..., None]


@dataclass(frozen=True, slots=True)
class PacketisedFrame:
    """One encoded frame in chunks of CHUNK_SIZE octets (the last one may be shorter), shared by all its viewers."""

    frame: EncodedFrame
    chunks: tuple[bytes, ...]
    octets: int
    """Octets of RTP payload that one viewer is sent: chunks and descriptors."""


def packetise(frame: EncodedFrame) -> PacketisedFrame:
    """Cut a VP8 frame into chunks of CHUNK_SIZE octets, the last one possibly shorter.

    Equal sizes let the kernel cut one large send into datagrams (UDP_SEGMENT wants them so).
    """
    payload = frame.payload
    chunks = tuple(payload[start : start + CHUNK_SIZE] for start in range(0, len(payload), CHUNK_SIZE))
    return PacketisedFrame(frame, chunks, len(payload) + DESCRIPTOR_SIZE * len(chunks))


def descriptors(picture_id: int, tl0: int, layer: int, sync: bool, key_index: int) -> tuple[bytes, bytes]:
    """The VP8 payload descriptors of a frame's first packet and of its other packets (RFC 7741 section 4.2).

    `picture_id` has 15 bits, `tl0` (TL0PICIDX) 8 bits, `key_index` (KEYIDX) 5 bits; `sync` is the Y bit. The style
    is the same for every stream, with layers or without: changing it mid-stream freezes players for seconds.
    """
    last = layer << 6 | sync << 5 | key_index
    picture = 0x8000 | picture_id
    return _descriptor(_FIRST, 0xF0, picture, tl0, last), _descriptor(_CONTINUATION, 0xF0, picture, tl0, last)


@dataclass(frozen=True, slots=True)
class ExtensionIds:
    """The ids (1 to 14) under which a viewer knows its header extensions; None was not negotiated."""

    abs_send_time: int | None = None
    mid: int | None = None
    playout_delay: int | None = None


class ExtensionBlock:
    """The header extensions of one viewer, where only abs-send-time changes from frame to frame.

    abs-send-time: 24 bits, seconds in 6.18 fixed point (draft-alvestrand-rmcat-remb-03 section 4, and
    http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time). playout-delay: minimum and maximum in units of
    10 ms, 12 bits each (http://www.webrtc.org/experiments/rtp-hdrext/playout-delay). mid: RFC 9143 section 15.
    """

    def __init__(self, ids: ExtensionIds, mid: str, playout_delay: tuple[int, int] = (0, 0)) -> None:
        rest = b""
        if ids.playout_delay is not None:
            minimum, maximum = playout_delay
            rest += bytes([ids.playout_delay << 4 | 2]) + (minimum << 12 | maximum).to_bytes(3, "big")
        if ids.mid is not None and 0 < len(mid.encode()) <= MAX_MID:
            rest += bytes([ids.mid << 4 | len(mid.encode()) - 1]) + mid.encode()
        rest += bytes(-len(rest) % 4)
        words = (len(rest) + (4 if ids.abs_send_time is not None else 0)) // 4
        self.present = words > 0
        self._stamped = ids.abs_send_time is not None
        self._word = (ids.abs_send_time or 0) << 28 | 2 << 24
        self._pack = struct.Struct(f"!HHI{len(rest)}s").pack
        self._words = words
        self._rest = rest
        self._fixed = struct.pack("!HH", _ONE_BYTE_PROFILE, words) + rest if self.present else b""
        self.size = 4 + 4 * words if self.present else 0

    def at(self, wall: float) -> bytes:
        """The whole extension block of a packet that is sent at `wall` seconds since 1970."""
        if not self._stamped:
            return self._fixed
        return self._pack(_ONE_BYTE_PROFILE, self._words, self._word | int(wall * 262_144) & 0xFFFFFF, self._rest)


@cache
def media_packer(prefix: int) -> Pack:
    """`pack_into` for (first word, sequence number, `prefix` octets up to the chunk, chunk padded with zeros)."""
    return struct.Struct(f"!HH{prefix}s{CHUNK_SIZE}s").pack_into


@cache
def rtx_packer(prefix: int) -> Pack:
    """`pack_into` for (first word, sequence number, `prefix` octets, OSN, descriptor, chunk padded with zeros).

    OSN is the original sequence number that a retransmission starts with (RFC 4588 section 4).
    """
    return struct.Struct(f"!HH{prefix}sH{DESCRIPTOR_SIZE}s{CHUNK_SIZE}s").pack_into
