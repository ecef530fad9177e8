"""The load generator's inbox, with real sockets on loopback."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import numpy as np
import pytest

from workers.load.inbox import BATCH, Inbox, overflowed

UDP_SEGMENT = 103
WAYS = [{"joined": True, "many": True}, {"joined": False, "many": True}, {"many": False}]


class Line:
    """A socket of the inbox and one that sends to it."""

    def __init__(self, inbox: Inbox, viewer: int) -> None:
        self.inner = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.inner.bind(("127.0.0.1", 0))
        inbox.prepare(self.inner)
        inbox.add(viewer, self.inner)
        self.outer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.outer.connect(self.inner.getsockname())

    def send(self, *packets: bytes) -> None:
        for packet in packets:
            self.outer.send(packet)

    def send_as_one(self, *packets: bytes) -> None:
        self.outer.sendmsg([b"".join(packets)], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", len(packets[0])))])


@pytest.fixture(params=WAYS, ids=str)
def inbox(request: pytest.FixtureRequest) -> Inbox:
    return Inbox(**request.param)


@pytest.fixture
def lines(inbox: Inbox) -> Iterator[list[Line]]:
    lines = [Line(inbox, viewer) for viewer in range(3)]
    yield lines
    for line in lines:
        line.inner.close()
        line.outer.close()


def packet(sequence: int, size: int = 100) -> bytes:
    head = struct.pack("!BBHII", 0x80, 0x60 | (sequence % 2) << 7, sequence, sequence * 3000, 0xDEADBEEF)
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


def test_more_than_the_room_is_read_in_several_batches(inbox: Inbox, lines: list[Line]) -> None:
    packets = [packet(number) for number in range(500)]
    for line in lines:
        line.send(*packets)
    batches = [(batch.viewer.copy(), batch.sequence) for batch in inbox.batches()]
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
    assert batch.flags.tolist() == [0x80, 0x80]
    assert batch.kind.tolist() == [0xE0, 0x60]
    assert batch.sequence.tolist() == [65_535, 2]
    assert batch.timestamp.tolist() == [65_535 * 3000, 6000]
    assert batch.ssrc.tolist() == [0xDEADBEEF] * 2
    assert batch.size.tolist() == [100, 100]


def test_short_and_empty_datagrams_harm_nobody(inbox: Inbox, lines: list[Line]) -> None:
    lines[0].send(b"\x01", b"", b"ab")
    lines[1].send(packet(1))
    assert [one for one in read(inbox) if one[1]] == [(0, b"\x01"), (0, b"ab"), (1, packet(1))]


def test_packets_arrive_when_they_come_and_not_when_they_are_read(inbox: Inbox, lines: list[Line]) -> None:
    before = time.monotonic()
    lines[0].send(packet(1))
    after = time.monotonic()
    time.sleep(0.05)
    (batch,) = inbox.batches()
    latest = after if inbox._many else time.monotonic()
    assert before - 0.005 <= batch.arrival[0] <= latest + 0.005


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
