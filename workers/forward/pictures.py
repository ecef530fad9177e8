"""PictureOutlet: one viewer's pictures, what of their packets is not the same for everybody (RFC 7741, RFC 4588)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from broadcaster.stream import RTP_CLOCK, EncodedFrame, timestamp_at
from workers.forward.agreement import OutletParameters
from workers.forward.packets import (
    CHUNK_SIZE,
    CONTINUATION,
    DESCRIPTOR_SIZE,
    FIRST,
    HEADER_SIZE,
    OSN_SIZE,
    ExtensionBlock,
    head_packer,
    rtx_packer,
)
from workers.forward.reports import SenderReports
from workers.forward.state import RECORD, begin_stream, ffi


class PictureOutlet:
    """What differs of a viewer's pictures.

    What a fan-out advances stands in `state`, its outlet's, with the ring `records` of the frames that it was sent. The
    rest is the Python fan-out's: `header_word` and `rtx_word` are the first 16 bits of a packet without marker,
    `source` and `rtx_source` its SSRC. `shape` is the size of what stands before a chunk and of what stands behind it.
    """

    __slots__ = (
        "_state",
        "_view",
        "extensions",
        "header_word",
        "overhead",
        "pack_head",
        "pack_rtx",
        "reports",
        "rtx_prefix",
        "rtx_sequence",
        "rtx_source",
        "rtx_word",
        "shape",
        "source",
    )

    def __init__(
        self,
        parameters: OutletParameters,
        state: Any,
        records: Any,
        *,
        playout_delay: tuple[int, int],
        randbelow: Callable[[int], int],
    ) -> None:
        self._state = state
        self._view = memoryview(ffi.buffer(records))
        self.extensions = extensions = ExtensionBlock(parameters.extensions, parameters.mid, playout_delay)
        begin_stream(state, parameters.ssrc, parameters.payload_type, extensions, randbelow)
        self.rtx_sequence = randbelow(32_768)
        state.picture_id = randbelow(32_768)
        state.tl0 = randbelow(256)
        state.key_index = randbelow(32)
        self.reports = SenderReports(state, parameters.cname, timestamp_at)

        flags = 0x9000 if extensions.present else 0x8000
        self.header_word, self.rtx_word = flags | parameters.payload_type, flags | (parameters.rtx_payload_type or 0)
        self.source, self.rtx_source = (ssrc.to_bytes(4, "big") for ssrc in (parameters.ssrc, parameters.rtx_ssrc))
        header = HEADER_SIZE + extensions.size
        self.overhead: int = header + state.tag_size
        """Octets of a packet that are not RTP payload."""
        self.shape: tuple[int, int] = header + DESCRIPTOR_SIZE, state.tag_size
        self.rtx_prefix = header + OSN_SIZE + DESCRIPTOR_SIZE
        self.pack_head = head_packer(extensions.size)
        self.pack_rtx = rtx_packer(extensions.size)

    def begin(self, frame: EncodedFrame, serial: int, now: float, wall: float) -> tuple[bytes, bytes]:
        """Start a frame: advance what counts frames, remember it, and return what stands between sequence number and
        chunk in its first packet and in the others. `now` is monotonic, `wall` the same moment since 1970.

        Picture ids and TL0PICIDX are contiguous for each viewer whatever it skipped, because a gap without a keyframe
        freezes players. The timestamp is the frame's own, except right after a switch to a rung that encodes later: a
        player must not see time stand still, so such a frame is one tick younger than the last.
        """
        state = self._state
        layer, timestamp, recorded = frame.layer, frame.timestamp, state.recorded
        if recorded and (state.timestamp - timestamp) & 0xFFFFFFFF < RTP_CLOCK:
            timestamp = (state.timestamp + 1) & 0xFFFFFFFF
        state.timestamp = timestamp
        state.picture_id = picture_id = (state.picture_id + 1) & 0x7FFF
        if layer == 0:
            state.tl0 = (state.tl0 + 1) & 0xFF
            if frame.keyframe:
                state.key_index = (state.key_index + 1) & 0x1F
        tl0, last = state.tl0, layer << 6 | frame.sync << 5 | state.key_index
        picture = 0x8000 | picture_id
        pack, source, extensions = self.pack_head, self.source, self.extensions.at(wall)
        head = pack(timestamp, source, extensions, FIRST, picture, tl0, last)
        size, place = len(frame.payload), recorded % state.capacity * RECORD.size
        RECORD.pack_into(self._view, place, state.sequence, serial, now, timestamp, size, head[-DESCRIPTOR_SIZE:])
        state.recorded = recorded + 1
        if size <= CHUNK_SIZE:
            return head, head
        return head, pack(timestamp, source, extensions, CONTINUATION, picture, tl0, last)

    def resume(self, frame: EncodedFrame, serial: int, first: int, wall: float) -> bytes | None:
        """What stands between sequence number and chunk in the packets of the frame begun last, from number `first` on;
        None when what was sent last is not the part before.
        """
        state = self._state
        if not state.recorded:
            return None
        place = (state.recorded - 1) % state.capacity * RECORD.size
        begun, known, _, timestamp, size, descriptor = RECORD.unpack_from(self._view, place)
        if known != serial or size != len(frame.payload) or state.sequence != begun + first:
            return None
        _, picture, tl0, last = struct.unpack("!HHBB", descriptor)
        return self.pack_head(timestamp, self.source, self.extensions.at(wall), CONTINUATION, picture, tl0, last)
