"""The load generator's inbox, with real sockets on loopback: the kernel's and its twin in Python."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.load import inbox as inbox_module
from workers.load.inbox import EVER, Batch, Inbox, overflowed, transport_number

UDP_SEGMENT = 103
BATCH = 16
"""What the kernel takes at a time."""

EXTENSION, MEDIA, RESENT = 3, 0xDEADBEEF, 0xFEED
WAYS = [{"joined": joined, "native": native} for native in (True, False) for joined in (True, False)]


class Line:
    """A socket of the inbox and one that sends to it."""

    def __init__(self, inbox: Inbox, viewer: int, kept: int = EVER) -> None:
        self.inner = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.inner.bind(("127.0.0.1", 0))
        inbox.prepare(self.inner)
        inbox.add(viewer, self.inner, transport=EXTENSION, media=MEDIA, kept=kept, resent=RESENT)
        self.outer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.outer.connect(self.inner.getsockname())

    def send(self, *packets: bytes) -> None:
        for packet in packets:
            self.outer.send(packet)

    def close(self) -> None:
        self.inner.close()
        self.outer.close()

    def send_as_one(self, *packets: bytes) -> None:
        self.outer.sendmsg([b"".join(packets)], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", len(packets[0])))])


@pytest.fixture(params=WAYS, ids=str)
def inbox(request: pytest.FixtureRequest) -> Inbox:
    return Inbox(3, **request.param)


@pytest.fixture
def lines(inbox: Inbox) -> Iterator[list[Line]]:
    lines = [Line(inbox, viewer) for viewer in range(3)]
    yield lines
    for line in lines:
        line.close()


def packet(sequence: int, size: int = 100) -> bytes:
    head = struct.pack("!BBHII", 0x80, 0x60 | (sequence % 2) << 7, sequence, sequence * 3000, MEDIA)
    return head + bytes([sequence % 251]) * (size - 12)


def read(inbox: Inbox) -> list[tuple[int, bytes]]:
    return [(int(batch.viewer[row]), batch.data(row)) for batch in inbox.batches() for row in range(len(batch.viewer))]


def test_nothing_waits(inbox: Inbox, lines: list[Line]) -> None:
    assert list(inbox.batches()) == []


def test_everything_that_waits_is_read_with_its_viewer_and_in_order(inbox: Inbox, lines: list[Line]) -> None:
    sent = {viewer: [packet(number, 50 + number) for number in range(2 * BATCH + 3)] for viewer in (0, 2)}
    for viewer, packets in sent.items():
        lines[viewer].send(*packets)
    assert read(inbox) == [(viewer, one) for viewer, packets in sent.items() for one in packets]
    assert read(inbox) == []


def test_more_than_the_room_is_read_in_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "_ROOM", 2048)
    monkeypatch.setattr(inbox_module, "_SPACE", 65_536)
    for native in (True, False):
        inbox = Inbox(3, joined=False, native=native)
        lines = [Line(inbox, viewer) for viewer in range(3)]
        all_come_in_several_batches(inbox, lines)
        for line in lines:
            line.close()


def all_come_in_several_batches(inbox: Inbox, lines: list[Line]) -> None:
    packets = [packet(number) for number in range(500)]
    for line in lines:
        line.send(*packets)
    batches = [(batch.viewer.copy(), batch.sequence.copy()) for batch in inbox.batches()]
    assert len(batches) > 1
    assert np.concatenate([viewer for viewer, _ in batches]).tolist() == [0] * 500 + [1] * 500 + [2] * 500
    assert np.concatenate([sequence for _, sequence in batches]).tolist() == list(range(500)) * 3


def test_what_was_sent_as_one_comes_as_many(inbox: Inbox, lines: list[Line]) -> None:
    first, second = [packet(number, 1100) for number in range(4)], [packet(4, 1100), packet(5, 70)]
    lines[1].send_as_one(*first)
    lines[1].send(packet(9, 20))
    lines[1].send_as_one(*second)
    assert read(inbox) == [(1, one) for one in (*first, packet(9, 20), *second)]


def test_headers_are_read(inbox: Inbox, lines: list[Line]) -> None:
    lines[0].send(packet(65_535), packet(2))
    (batch,) = inbox.batches()
    assert batch.rtp.tolist() == [True, True]
    assert batch.marker.tolist() == [True, False]
    assert batch.number.tolist() == [-1, -1]
    assert batch.sequence.tolist() == [65_535, 2]
    assert batch.timestamp.tolist() == [65_535 * 3000, 6000]
    assert batch.ssrc.tolist() == [MEDIA] * 2
    assert batch.size.tolist() == [100, 100]


def test_short_and_empty_datagrams_harm_nobody(inbox: Inbox, lines: list[Line]) -> None:
    lines[0].send(b"\x01", b"", b"ab")
    lines[1].send(packet(1))
    assert read(inbox) == [(0, b"\x01"), (0, b"ab"), (1, packet(1))]


def test_packets_arrive_when_they_come_and_not_when_they_are_read(inbox: Inbox, lines: list[Line]) -> None:
    before = time.monotonic()
    lines[0].send(packet(1))
    after = time.monotonic()
    time.sleep(0.05)
    (batch,) = inbox.batches()
    assert before - 0.005 <= batch.arrival[0] <= after + 0.005


def test_only_so_many_packets_are_kept_and_all_that_are_resent_or_no_rtp(inbox: Inbox) -> None:
    line = Line(inbox, 2, kept=2)
    resent = struct.pack("!BBHII", 0x80, 0x61, 7, 0, RESENT) + b"again"
    said = b"\x80\xc8\x00\x06" + bytes(24)
    other = packet(9)[:11] + b"?" + packet(9)[12:]
    line.send(other, packet(1), said, packet(2), packet(3), resent, packet(4), said)
    (batch,) = inbox.batches()
    assert batch.viewer.tolist() == [2] * 8
    assert batch.rtp.tolist() == [True, True, False, True, True, True, True, False]
    kept = [batch.data(row) if batch.place[row] >= 0 else None for row in range(8)]
    assert kept == [None, packet(1), said, packet(2), None, resent, None, said]
    line.close()


def test_what_arrives_while_it_is_read_waits_for_the_next_round(
    inbox: Inbox, lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never stops must not keep the others waiting."""
    monkeypatch.setattr(inbox_module, "_GRACE", -1.0)
    packets = [packet(number) for number in range(3 * BATCH)]
    lines[0].send(*packets)
    lines[2].send(packet(1))
    read_first = read(inbox)
    assert (2, packet(1)) in read_first
    assert 2 <= len(read_first) <= BATCH + 1
    everything = read_first
    while more := read(inbox):
        everything += more
    assert [data for viewer, data in everything if viewer == 0] == packets


def test_a_viewer_that_is_removed_meanwhile_is_read_no_more(
    inbox: Inbox, lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines[0].send(*(packet(number, 2000) for number in range(400)))
    lines[1].send(packet(1))
    if inbox._native is None:
        monkeypatch.setattr(inbox_module, "_SPACE", 65_536)
    else:
        inbox._native._rows.space = 1 << 20 if inbox._joined else 65_536
    batches = inbox.batches()
    assert set(next(batches).viewer.tolist()) == {0}
    inbox.remove(1)
    assert all(set(batch.viewer.tolist()) <= {0} for batch in batches)


def extended(elements: bytes, profile: int = 0xBEDE, sources: int = 0) -> bytes:
    elements += bytes(-len(elements) % 4)
    head = struct.pack("!BBHII", 0x90 | sources, 0x60, 1, 2, 3) + bytes(4 * sources)
    return head + struct.pack("!HH", profile, len(elements) // 4) + elements


HOSTILE = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda head, rest: head + rest, st.sampled_from([b"\x80\x60", b"\x90\x60", b"\x93\xe0"]), st.binary(max_size=80)
    ),
    st.builds(
        lambda elements, cut, sources: extended(elements, sources=sources)[: cut or None],
        st.lists(st.sampled_from([b"\x00", b"\x31\x12\x34", b"\x22abc", b"\x3f", b"\x31"]), max_size=6).map(b"".join),
        st.integers(0, 40),
        st.integers(0, 3),
    ),
)


def rows(batches: Iterator[Batch]) -> list[tuple[object, ...]]:
    return [
        (
            *(int(getattr(batch, name)[row]) for name in ("viewer", "size", "sequence", "timestamp", "ssrc", "number")),
            bool(batch.rtp[row]),
            bool(batch.marker[row]),
            batch.data(row) if batch.place[row] >= 0 else None,
        )
        for batch in batches
        for row in range(len(batch.viewer))
    ]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, 0, 1, 20, 30]), HOSTILE), max_size=40),
    st.integers(0, 5),
    st.booleans(),
)
def test_the_kernel_reads_as_python_does(datagrams: list[tuple[int, int, bytes]], kept: int, joined: bool) -> None:
    """What is sent as one is cut into pieces of so many octets; 0: it is sent by itself."""
    read = []
    for native in (True, False):
        inbox = Inbox(3, joined=joined, native=native)
        lines = [Line(inbox, viewer, kept) for viewer in range(3)]
        for viewer, piece, data in datagrams:
            pieces = [data[at : at + piece] for at in range(0, len(data), piece)] if piece else [data]
            (lines[viewer].send_as_one if len(pieces) > 1 else lines[viewer].send)(*pieces)
        read.append(rows(inbox.batches()))
        for line in lines:
            line.close()
    assert read[0] == read[1]
    assert len(read[0]) == sum(-(-len(data) // piece) if piece else bool(data) for _, piece, data in datagrams)


@given(HOSTILE)
def test_the_number_is_of_two_octets_within_the_packet(data: bytes) -> None:
    number = transport_number(data.ljust(12, b"\0"), EXTENSION)
    assert number == -1 or number.to_bytes(2, "big") in data


@pytest.mark.parametrize(
    ("packet", "number"),
    [
        (extended(b"\x31\x12\x34"), 0x1234),
        (extended(b"\x00\x22abc\x31\xff\xff", sources=2), 0xFFFF),
        (extended(b"\x22abc"), -1),
        (extended(b"\x32\x12\x34\x56"), -1),
        (extended(b"\x31\x12\x34", profile=0x1000), -1),
        (extended(b"\x31\x12\x34")[:-1], -1),
        (extended(b"\x00\x00\x00\x31") + b"\x12\x34", -1),
        (extended(b"\x00\x00\x31\x12") + b"\x34", -1),
        (b"\x80" + extended(b"\x31\x12\x34")[1:], -1),
    ],
)
def test_the_transport_wide_number_is_found(inbox: Inbox, lines: list[Line], packet: bytes, number: int) -> None:
    lines[1].send(packet)
    (batch,) = inbox.batches()
    assert batch.number.tolist() == [number]


def test_a_removed_viewer_is_not_read(inbox: Inbox, lines: list[Line]) -> None:
    lines[0].send(packet(1))
    inbox.remove(0)
    inbox.remove(0)
    assert read(inbox) == []


def test_a_refused_port_is_no_error(inbox: Inbox, lines: list[Line]) -> None:
    gone = lines[0].outer.getsockname()
    lines[0].inner.connect(gone)
    lines[0].outer.close()
    lines[0].inner.send(b"anyone?")
    lines[1].send(packet(1))
    assert read(inbox) == [(1, packet(1))]


def test_what_found_no_room_is_counted(inbox: Inbox, lines: list[Line]) -> None:
    lines[0].inner.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lines[0].send(*(packet(number, 1000) for number in range(100)))
    came = len(read(inbox))
    assert 0 < came < 100
    assert overflowed(lines[0].inner) == 100 - came
