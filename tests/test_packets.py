"""VP8 frames in RTP packets, and the bytes that differ per viewer."""

from __future__ import annotations

import pytest
from aiortc.codecs.vpx import VpxPayloadDescriptor
from hypothesis import given
from hypothesis import strategies as st

from broadcaster.stream import EncodedFrame
from tests.rtp_viewer import dissect, frame
from workers.forward.packets import (
    CHUNK_SIZE,
    DESCRIPTOR_SIZE,
    MAX_DATAGRAM,
    ExtensionBlock,
    ExtensionIds,
    descriptors,
    media_packer,
    packetise,
    rtx_packer,
)

ALL = ExtensionIds(abs_send_time=2, mid=9, playout_delay=5)


@given(st.binary(min_size=1, max_size=10_000))
def test_chunks_join_to_the_frame_and_all_but_the_last_are_full(payload: bytes) -> None:
    packets = packetise(EncodedFrame(0, 0, 0, True, 0, False, payload))
    assert b"".join(packets.chunks) == payload
    assert {len(chunk) for chunk in packets.chunks[:-1]} <= {CHUNK_SIZE}
    assert 0 < len(packets.chunks[-1]) <= CHUNK_SIZE
    assert packets.octets == len(payload) + DESCRIPTOR_SIZE * len(packets.chunks)


def test_the_largest_retransmission_fits_into_a_datagram() -> None:
    block = ExtensionBlock(ALL, "m" * 16)
    assert 12 + block.size + 2 + DESCRIPTOR_SIZE + CHUNK_SIZE + 16 == MAX_DATAGRAM


@given(st.integers(0, 0x7FFF), st.integers(0, 255), st.integers(0, 3), st.booleans(), st.integers(0, 31))
def test_descriptors_read_back_with_another_parser(picture: int, tl0: int, layer: int, sync: bool, key: int) -> None:
    for data, first in zip(descriptors(picture, tl0, layer, sync, key), (1, 0), strict=True):
        parsed, rest = VpxPayloadDescriptor.parse(data + b"chunk")
        assert (parsed.partition_start, parsed.partition_id) == (first, 0)
        assert (parsed.picture_id, parsed.tl0picidx, parsed.keyidx) == (picture, tl0, key)
        assert parsed.tid == (layer, int(sync))
        assert rest == b"chunk"


@pytest.mark.parametrize("mid", ["0", "video", "m" * 16])
@pytest.mark.parametrize("ids", [ALL, ExtensionIds(mid=1), ExtensionIds(abs_send_time=14), ExtensionIds()])
def test_extensions_read_back(ids: ExtensionIds, mid: str) -> None:
    block = ExtensionBlock(ids, mid, playout_delay=(1, 40)).at(1_700_000_000.5)
    found = dissect(bytes([0x90 if block else 0x80]) + bytes(11) + block, 0).extensions
    expected = {
        ids.abs_send_time: (int(1_700_000_000.5 * 2**18) & 0xFFFFFF).to_bytes(3, "big"),
        ids.mid: mid.encode(),
        ids.playout_delay: (1 << 12 | 40).to_bytes(3, "big"),
    }
    expected.pop(None, None)
    assert found == expected
    assert len(block) % 4 == 0


@pytest.mark.parametrize("mid", ["", "m" * 17])
def test_a_mid_that_no_element_can_carry_is_left_out(mid: str) -> None:
    assert not ExtensionBlock(ExtensionIds(mid=9), mid).present


def test_packers_lay_out_a_packet() -> None:
    buffer = bytearray(3000)
    chunk = packetise(frame(7, size=100)).chunks[0]
    media_packer(10)(buffer, 0, 0x9060, 5, b"0123456789", chunk)
    assert buffer[:114] == b"\x90\x60\x00\x05" + b"0123456789" + chunk
    rtx_packer(4)(buffer, 0, 0x9061, 6, b"0123", 5, b"abcdef", chunk)
    assert buffer[:116] == b"\x90\x61\x00\x06" + b"0123" + b"\x00\x05" + b"abcdef" + chunk
