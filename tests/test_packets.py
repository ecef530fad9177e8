"""VP8 frames in RTP packets, and the bytes that differ per viewer."""

from __future__ import annotations

import pytest
from aiortc.codecs.vpx import VpxPayloadDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.stream import EncodedFrame
from tests.rtp_viewer import dissect, frame
from workers.forward.packets import (
    CHUNK_SIZE,
    CONTINUATION,
    DESCRIPTOR_SIZE,
    FIRST,
    MAX_DATAGRAM,
    ExtensionBlock,
    ExtensionIds,
    head_packer,
    packetise,
    rtx_packer,
)

ALL = ExtensionIds(abs_send_time=2, mid=9, playout_delay=5, transport_sequence=3)
TRANSPORT = ExtensionIds(transport_sequence=14)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=10_000))
def test_chunks_join_to_the_frame_and_all_but_the_last_are_full(payload: bytes) -> None:
    chunks = packetise(EncodedFrame(0, 0, 0, True, 0, False, payload))
    assert b"".join(chunks) == payload
    assert {len(chunk) for chunk in chunks[:-1]} <= {CHUNK_SIZE}
    assert 0 < len(chunks[-1]) <= CHUNK_SIZE


def test_the_largest_retransmission_fits_into_a_datagram() -> None:
    block = ExtensionBlock(ALL, "m" * 16)
    assert 12 + block.size + 2 + DESCRIPTOR_SIZE + CHUNK_SIZE + 16 == MAX_DATAGRAM


@settings(deadline=None)
@given(st.integers(0, 0x7FFF), st.integers(0, 255), st.integers(0, 3), st.booleans(), st.integers(0, 31))
def test_descriptors_read_back_with_another_parser(picture: int, tl0: int, layer: int, sync: bool, key: int) -> None:
    for start, first in ((FIRST, 1), (CONTINUATION, 0)):
        data = head_packer(0)(0, b"ssrc", b"", start, 0x8000 | picture, tl0, layer << 6 | sync << 5 | key)
        parsed, rest = VpxPayloadDescriptor.parse(data[-DESCRIPTOR_SIZE:] + b"chunk")
        assert (parsed.partition_start, parsed.partition_id) == (first, 0)
        assert (parsed.picture_id, parsed.tl0picidx, parsed.keyidx) == (picture, tl0, key)
        assert parsed.tid == (layer, int(sync))
        assert rest == b"chunk"


@pytest.mark.parametrize("mid", ["0", "video", "m" * 16])
@pytest.mark.parametrize("ids", [ALL, ExtensionIds(mid=1), ExtensionIds(abs_send_time=14), ExtensionIds(), TRANSPORT])
def test_extensions_read_back(ids: ExtensionIds, mid: str) -> None:
    made = ExtensionBlock(ids, mid, playout_delay=(1, 40))
    block = bytearray(made.at(1_700_000_000.5))
    assert len(block) == made.size
    if made.transport_at:
        block[made.transport_at : made.transport_at + 2] = b"\xab\xcd"
    found = dissect(bytes([0x90 if block else 0x80]) + bytes(11) + block, 0).extensions
    expected = {
        ids.abs_send_time: (int(1_700_000_000.5 * 2**18) & 0xFFFFFF).to_bytes(3, "big"),
        ids.mid: mid.encode(),
        ids.playout_delay: (1 << 12 | 40).to_bytes(3, "big"),
        ids.transport_sequence: b"\xab\xcd",
    }
    expected.pop(None, None)
    assert found == expected
    assert len(block) % 4 == 0
    assert (made.time_at > 0, made.transport_at > 0) == (
        ids.abs_send_time is not None,
        ids.transport_sequence is not None,
    )
    assert block[made.time_at : made.time_at + 3] == expected.get(ids.abs_send_time, block[:3])


@pytest.mark.parametrize("mid", ["", "m" * 17])
def test_a_mid_that_no_element_can_carry_is_left_out(mid: str) -> None:
    assert not ExtensionBlock(ExtensionIds(mid=9), mid).present


def test_a_retransmission_is_laid_out_as_its_rfc_says() -> None:
    buffer = bytearray(3000)
    chunk = packetise(frame(7, size=100))[0]
    rtx_packer(4)(buffer, 0, 0x90610006, 0x01020304, b"ssrc", b"exts", 5, b"abcdef", chunk)
    assert buffer[:124] == b"\x90\x61\x00\x06\x01\x02\x03\x04ssrcexts\x00\x05abcdef" + chunk
