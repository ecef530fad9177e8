"""RTCP: what viewers report is read, and nothing that strangers write does harm."""

from __future__ import annotations

import struct
import time

import pytest
from aiortc.rtp import (
    RtcpPacket,
    RtcpSdesPacket,
    RtcpSrPacket,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.errors import RtcpError
from tests.transport_feedback import Chunks, transport_feedback
from tests.viewer_reports import COMPOUND, CORPUS, PLI, SSRC, nack, receiver_report, remb
from workers.forward import rtcp

NUMBERS_32 = st.integers(0, 0xFFFFFFFF)


@settings(deadline=None)
@given(
    st.integers(0, 255),
    st.integers(-(2**23), 2**23 - 1),
    st.tuples(NUMBERS_32, NUMBERS_32, NUMBERS_32, NUMBERS_32),
)
def test_a_report_block_is_read(fraction: int, lost: int, rest: tuple[int, int, int, int]) -> None:
    highest, jitter, lsr, dlsr = rest
    packet = receiver_report(
        fraction_lost=fraction, packets_lost=lost, highest_sequence=highest, jitter=jitter, lsr=lsr, dlsr=dlsr
    )
    assert rtcp.parse(packet).reports == [rtcp.ReportBlock(SSRC, fraction, lost, highest, jitter, lsr, dlsr)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=60, unique=True))
def test_every_lost_packet_of_a_nack_is_found(numbers: list[int]) -> None:
    found = rtcp.parse(nack(sorted(numbers))).lost
    assert {ssrc for ssrc, _ in found} == {SSRC}
    assert sorted(number for _, number in found) == sorted(numbers)


def test_a_nack_counts_on_across_the_wrap() -> None:
    packet = struct.pack("!BBHIIHH", 0x81, 205, 3, 1, SSRC, 0xFFFF, 0b101)
    assert rtcp.parse(packet).lost == [(SSRC, 0xFFFF), (SSRC, 0), (SSRC, 2)]


def test_a_nack_that_names_everything_is_cut_short() -> None:
    entries = struct.pack("!HH", 0, 0xFFFF) * 350
    packet = struct.pack("!BBHII", 0x81, 205, 2 + 350, 1, SSRC) + entries
    assert len(rtcp.parse(packet).lost) == rtcp.MAX_LOST


@settings(deadline=None)
@given(st.integers(0, 0x3FFFF), st.integers(0, 45))
def test_remb_is_read(mantissa: int, exponent: int) -> None:
    found = rtcp.parse(remb(mantissa << exponent))
    assert found.remb is not None
    assert abs(found.remb - (mantissa << exponent)) <= (mantissa << exponent) / 2**17
    assert found.remb_ssrcs == (SSRC, 9)


@pytest.mark.parametrize("chunks", ["runs", "pairs"])
def test_arrivals_add_up_their_deltas_across_all_wraps(chunks: Chunks) -> None:
    packet = transport_feedback(0xFFFE, 0xFFFFFF, [250, 0, None, 300, -1000, 5], chunks=chunks)
    start = 2**32 - 256
    assert rtcp.parse(packet).arrivals == [
        (0xFFFE, start + 250),
        (0xFFFF, start + 250),
        (0, None),
        (1, (start + 550) % 2**32),
        (2, (start - 450) % 2**32),
        (3, (start - 445) % 2**32),
    ]


@pytest.mark.parametrize("chunks", ["runs", "bits", "pairs"])
@pytest.mark.parametrize("count", [1, 6, 7, 8, 13, 14, 15, 100])
def test_arrivals_are_read_from_every_kind_of_chunk(chunks: Chunks, count: int) -> None:
    deltas = [None if number % 3 == 2 else number for number in range(count)]
    found = rtcp.parse(transport_feedback(10, 2, deltas, chunks=chunks) + PLI)
    ticks, expected = 512, []
    for number, delta in enumerate(deltas):
        ticks += delta or 0
        expected.append((10 + number, None if delta is None else ticks))
    assert found.arrivals == expected
    assert found.pictures_lost == [SSRC]


def test_chunks_as_the_draft_writes_them_are_read() -> None:
    """The examples of its sections 3.1.3 and 3.1.4; in the last one a large delta stands for the reserved status."""
    head = struct.pack("!IIHHI", 1, SSRC, 0, 221 + 14 + 7, 0)
    chunks = bytes([0b00000000, 221, 0b10011111, 0b00011100, 0b11001001, 0b01010000])
    deltas = bytes([1] * 8) + b"\xff\xfe" + bytes([1] * 3)
    packet = head + chunks + deltas
    packet += bytes(-len(packet) % 4)
    found = rtcp.parse(struct.pack("!BBH", 0x8F, 205, len(packet) // 4) + packet).arrivals
    assert len(found) == 242
    assert all(ticks is None for _, ticks in found[:221])
    assert [ticks for _, ticks in found[221:235]] == [None, 1, 2, 3, 4, 5, None, None, None, 6, 7, 8, None, None]
    assert [ticks for _, ticks in found[235:]] == [None, 6, 7, 8, 9, None, None]


def test_feedback_on_more_packets_than_anyone_asks_for_is_cut_short() -> None:
    packet = transport_feedback(5, 0, [None] * 0xFFFF) * 50
    found = rtcp.parse(packet).arrivals
    assert len(found) == rtcp.MAX_ARRIVALS
    assert found[-1] == (5 + rtcp.MAX_ARRIVALS - 1, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        struct.pack("!HHI", 0, 1, 0),
        struct.pack("!HHIHH", 0, 0x2000, 0, 0x1FFF, 0),
        struct.pack("!HHIHH", 0, 1, 0, 0x6001, 0),
        struct.pack("!HHIHH", 0, 3, 0, 0x2003, 0),
        struct.pack("!HHIHH", 0, 2, 0, 0x4002, 0),
        struct.pack("!HHIHH", 0, 7, 0, 0xC003, 0),
        struct.pack("!HHIHH", 0, 14, 0, 0x8007, 0),
    ],
)
def test_malformed_arrivals_are_refused(body: bytes) -> None:
    packet = struct.pack("!BBHII", 0x8F, 205, 2 + len(body) // 4, 1, SSRC) + body
    with pytest.raises(RtcpError, match=r".+\."):
        rtcp.parse(packet)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_padding_of_any_size_is_no_feedback(size: int) -> None:
    """Chromium pads transport-wide feedback by 1 to 3 octets."""
    deltas = [1] * (6 - size)
    packet = transport_feedback(0, 0, deltas)
    assert packet[0] & 0x20 == (0x20 if size < 4 else 0)
    assert len(rtcp.parse(packet + PLI).arrivals) == len(deltas)


@pytest.mark.parametrize("browser", ["chromium", "firefox"])
def test_transport_feedback_of_browsers_is_read(browser: str) -> None:
    """Recorded from Chromium 156 and Firefox ESR 153, whose padding is no multiple of 4."""
    packet = (CORPUS / f"{browser}-arrivals").read_bytes()
    assert packet[-1] % 4
    arrivals = rtcp.parse(packet).arrivals
    base, count = struct.unpack_from("!HH", packet, 12)
    assert [sequence for sequence, _ in arrivals] == [number & 0xFFFF for number in range(base, base + count)]
    ticks = [ticks for _, ticks in arrivals if ticks is not None]
    assert len(ticks) == count
    assert 0 < ticks[-1] - ticks[0] < 4000, "within a second"


def test_a_compound_packet_is_read_whole() -> None:
    found = rtcp.parse(COMPOUND)
    assert [(block.cumulative_lost, block.highest_sequence) for block in found.reports] == [(3, 70_000)]
    assert found.remb == 1_000_000
    assert found.lost == [(SSRC, 5), (SSRC, 9)]
    assert found.pictures_lost == [SSRC, SSRC]
    assert found.goodbye


def test_reports_within_a_sender_report_are_read() -> None:
    block = receiver_report(packets_lost=-2)[8:]
    packet = struct.pack("!BBHIQIII", 0x81, 200, 12, 1, 0, 0, 0, 0) + block
    assert rtcp.parse(packet).reports[0].cumulative_lost == -2


def test_padding_is_no_feedback() -> None:
    padded = bytearray(nack([5]) + b"\x00\x00\x00\x04")
    padded[0] |= 0x20
    padded[3] += 1
    assert rtcp.parse(bytes(padded)).lost == [(SSRC, 5)]


def test_unknown_types_are_skipped() -> None:
    unknown = struct.pack("!BBHI", 0x80, 207, 1, 1)
    assert rtcp.parse(unknown + PLI).pictures_lost == [SSRC]


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x80",
        b"\x80\xc9\x00",
        PLI + b"\x80\xc9",
        b"\x40" + PLI[1:],
        PLI[:-1],
        b"\x81\xce\x00\x01" + bytes(4),
        b"\x81\xcd\x00\x00",
        b"\x82" + receiver_report()[1:],
        b"\xa1" + PLI[1:],
        remb(1000)[:12] + b"REMB\xff" + remb(1000)[17:],
        struct.pack("!BBHII", 0x8F, 206, 3, 1, 0) + b"REMB",
    ],
)
def test_malformed_packets_are_refused(packet: bytes) -> None:
    with pytest.raises(RtcpError, match=r".+\."):
        rtcp.parse(packet)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_hostile_bytes_raise_nothing_else(packet: bytes) -> None:
    try:
        rtcp.parse(packet)
    except RtcpError:
        return


@settings(deadline=None)
@given(st.data())
def test_hostile_changes_to_a_real_packet_raise_nothing_else(data: st.DataObject) -> None:
    packet = bytearray(COMPOUND)
    for _ in range(data.draw(st.integers(1, 6))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    del packet[data.draw(st.integers(0, len(packet))) :]
    try:
        found = rtcp.parse(bytes(packet))
    except RtcpError:
        return
    assert len(found.lost) <= rtcp.MAX_LOST


@pytest.mark.parametrize("cname", ["a", "ab", "abc", "beamcast", "x" * 255])
def test_a_sender_report_reads_back_with_another_parser(cname: str) -> None:
    packet = rtcp.sender_report(
        SSRC,
        0x0123456789ABCDEF,
        0x1_0000_0005,
        packets=0x1_0000_0006,
        octets=0x1_0000_0007,
        description=rtcp.source_description(SSRC, cname),
    )
    report, description = RtcpPacket.parse(packet)
    assert isinstance(report, RtcpSrPacket)
    assert isinstance(description, RtcpSdesPacket)
    info = report.sender_info
    assert (report.ssrc, info.ntp_timestamp, info.rtp_timestamp) == (SSRC, 0x0123456789ABCDEF, 5)
    assert (info.packet_count, info.octet_count) == (6, 7)
    assert description.chunks[0].ssrc == SSRC
    assert description.chunks[0].items == [(1, cname.encode())]


def test_reading_is_cheap() -> None:
    packet = receiver_report() + remb(1_000_000)

    def cost() -> float:
        before = time.process_time()
        for _ in range(2000):
            rtcp.parse(packet)
        return (time.process_time() - before) / 2000

    def cost_of_aiortc() -> float:
        before = time.process_time()
        for _ in range(2000):
            RtcpPacket.parse(packet)
        return (time.process_time() - before) / 2000

    assert min(cost() for _ in range(3)) < min(cost_of_aiortc() for _ in range(3))
