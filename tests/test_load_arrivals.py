"""Transport-wide feedback of the load generator, read by the server's own parser: the kernel's and its twin's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pylibsrtp
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pylibsrtp import Policy, Session

from tests.sanitized import assert_nothing_found
from workers.forward import rtcp
from workers.forward.rtcp import Arrival, ReportBlock
from workers.load.arrivals import Arrivals, PlainTeller, tell, tell_natively, ticks_of
from workers.load.feedback import nack, receiver_report
from workers.load.inbox import ffi

SSRC = 0xCAFE
KEY = bytes(range(28))
PROFILE = Policy.SRTP_PROFILE_AEAD_AES_128_GCM


class Server:
    """What a viewer's server gets, and what `Arrivals` needs of a client."""

    def __init__(self) -> None:
        self._here, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._here.setblocking(False)
        self._rx = Session(Policy(key=KEY, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=PROFILE))
        self._tx = Session(Policy(key=KEY, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=PROFILE))
        self.context = self._tx._srtp[0]
        self.answer = self
        self.ssrc = SSRC

    def protect(self, packet: bytes) -> bytes:
        """As a client does, which raises where the packet is too long."""
        return self._tx.protect_rtcp(packet)

    def heard(self) -> list[bytes]:
        packets = []
        try:
            while True:
                packets.append(self._rx.unprotect_rtcp(self._here.recv(2048)))
        except BlockingIOError:
            return packets

    def close(self) -> None:
        self._here.close()
        self.socket.close()


class Viewers:
    """Three of them and their servers."""

    def __init__(self, native: bool) -> None:
        self.arrivals = Arrivals(3, native=native)
        self.servers = [Server() for _ in range(3)]
        for viewer, server in enumerate(self.servers):
            self.arrivals.add(viewer, server)  # type: ignore[arg-type]

    def note(self, *packets: tuple[int, int, float]) -> None:
        """A viewer, a number, a time."""
        viewer, number, at = (list(column) for column in zip(*packets, strict=True))
        self.arrivals.note(np.array(viewer), np.array(number) & 0xFFFF, np.array(at, np.float64))

    def tell(self, **reports: bytes) -> list[list[Arrival]]:
        """What the servers hear, of reports and feedback that are still to be sent as well."""
        self.left = self.arrivals.tell({int(viewer[1:]): report for viewer, report in reports.items()})
        heard = [server.heard() for server in self.servers]
        for viewer, packet in self.left:
            self.servers[viewer].protect(packet)
            heard[viewer].append(packet)
        return [[one for packet in packets for one in rtcp.parse(packet).arrivals] for packets in heard]


@pytest.fixture(params=[True, False], ids=["native", "python"])
def viewers(request: pytest.FixtureRequest) -> Iterator[Viewers]:
    viewers = Viewers(request.param)
    yield viewers
    for server in viewers.servers:
        server.close()


def test_what_came_in_order_is_told_with_its_times(viewers: Viewers) -> None:
    viewers.note((1, 0xFFFE, 100.0), (1, 0xFFFF, 100.00025), (0, 7, 5.0))
    viewers.note((0, 8, 5.5), (1, 0x10000, 100.0005), (1, 0x10001, 100.0505))
    assert viewers.tell() == [
        [(7, 20_000), (8, 22_000)],
        [(0xFFFE, 400_000), (0xFFFF, 400_001), (0, 400_002), (1, 400_202)],
        [],
    ]
    assert viewers.tell() == [[], [], []]


def test_what_did_not_come_is_told_as_lost_once_something_after_it_came(viewers: Viewers) -> None:
    viewers.note((2, 5, 1.0))
    assert viewers.tell() == [[], [], [(5, 4000)]]
    viewers.note((2, 8, 1.1), (2, 7, 1.2), (2, 6, 1.05), (2, 10, 7.5), (0, 1, 1.0), (0, 4, 1.0))
    assert viewers.tell() == [
        [(1, 4000), (2, None), (3, None), (4, 4000)],
        [],
        [(6, 4200), (7, 4800), (8, 4400), (9, None), (10, 30_000)],
    ]
    viewers.note((2, 9, 7.6))
    assert viewers.tell() == [[], [], []], "too late to be told"


def test_feedback_leaves_in_one_packet_with_a_report(viewers: Viewers) -> None:
    report = receiver_report(None)
    viewers.note((0, 1, 1.0), (1, 1, 1.0))
    assert viewers.tell(v1=report, v2=report) == [[(1, 4000)], [(1, 4000)], []]
    left = dict(viewers.left)
    assert left[1].startswith(report)
    assert left[2] == report


@pytest.mark.parametrize("step", [1, 2, 13])
@pytest.mark.parametrize("pause", [0.001, 0.1])
def test_much_is_told_in_several_packets_that_fit_with_a_report(viewers: Viewers, step: int, pause: float) -> None:
    report = receiver_report(ReportBlock(SSRC, 0, 0, 0, 0, 0, 0)) + nack(SSRC, range(0, 1000, 17))
    for reports in ({}, {"v1": report}):
        came = [(1, number, 9.0 + number * pause) for number in range(0, 1000 * step, step)]
        viewers.note((0, 5, 1.0), *came)
        _, told, _ = viewers.tell(**reports)
        assert [one.sequence for one in told if one.ticks is not None] == [number for _, number, _ in came]
        assert max((len(packet) for _, packet in viewers.left), default=0) <= 1400
        viewers.arrivals.remove(1)
        viewers.arrivals.add(1, viewers.servers[1])  # type: ignore[arg-type]


def test_disorder_at_first_and_order_behind_it_are_told_in_their_order(viewers: Viewers) -> None:
    viewers.note((1, 2, 1.0), (1, 1, 1.0), (1, 0, 1.0), *((1, number, 1.0) for number in range(3, 400)))
    _, told, _ = viewers.tell()
    assert [one.sequence for one in told] == list(range(2, 400))


def test_nothing_is_told_of_a_viewer_that_is_gone(viewers: Viewers) -> None:
    viewers.note((0, 1, 1.0), (1, 1, 1.0))
    viewers.arrivals.remove(1)
    viewers.arrivals.remove(1)
    viewers.servers[1].socket.close()
    assert viewers.tell() == [[(1, 4000)], [], []]


def test_a_server_that_is_gone_harms_nobody() -> None:
    viewers = Viewers(native=True)
    viewers.servers[0].close()
    viewers.note((0, 1, 1.0), (1, 1, 1.0))
    assert viewers.arrivals.tell({}) == []
    assert [len(server.heard()) for server in viewers.servers[1:]] == [1, 0]
    for server in viewers.servers:
        server.close()


@settings(deadline=None)
@given(
    st.integers(0, 0xFFFF),
    st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1)), min_size=1, max_size=80),
    st.integers(1, 9),
)
def test_any_pattern_reads_back(first: int, steps: list[tuple[int, float]], parts: int) -> None:
    viewers = Viewers(native=True)
    number, now, expected, read = first, 50.0, {}, []
    for place, (step, pause) in enumerate(steps):
        viewers.note((0, number, now))
        expected[number & 0xFFFF] = int(now * 4000)
        if place % parts == 0:
            read += viewers.tell()[0]
        number, now = number + step, now + pause
    read += viewers.tell()[0]
    assert {one.sequence: one.ticks for one in read if one.ticks is not None} == expected
    assert [one.sequence for one in read] == [(first + place) & 0xFFFF for place in range(len(read))]
    for server in viewers.servers:
        server.close()


def state(teller: Any) -> tuple[int, int]:
    return teller.following, teller.count


PACKETS = st.lists(
    st.tuples(
        st.one_of(st.integers(1, 3), st.integers(-5, 40), st.sampled_from([0x1FFF, 0x2001, 0x7FFE])),
        st.one_of(st.integers(0, 40), st.integers(-300, 40_000)),
    ),
    min_size=1,
    max_size=60,
)


@settings(deadline=None)
@given(st.integers(-1, 0x30000), st.integers(0, 255), st.lists(PACKETS, min_size=1, max_size=4))
@example(-1, 255, [[(1, 1)] * 1500, [(1, 300)] * 600, [(1, 1)] * 1300])
def test_the_kernel_writes_what_python_does_or_leaves_it_to_python(
    following: int, count: int, rounds: list[list[tuple[int, int]]]
) -> None:
    plain = PlainTeller(SSRC, following, count)
    native = ffi.new("bc_teller *", {"ssrc": SSRC, "following": following, "count": count})
    number, now = max(0, following) - 1, 400_000
    for packets in rounds:
        steps, pauses = (np.array(column, np.int64) for column in zip(*packets, strict=True))
        numbers, ticks = number + np.cumsum(steps), now + np.cumsum(pauses)
        before = state(native)
        packet = tell_natively(native, numbers & 0xFFFF, ticks)
        if packet is None:
            assert state(native) == before
            base = before[0] if before[0] >= 0 else int(numbers[0]) & 0xFFFF
            ascending = (np.diff(numbers) > 0).all() and (base >= 0) and numbers[0] >= base
            assert not ascending or len(packets) > 400 or numbers[-1] - base > 0x7FFF
            packet = tell(native, numbers & 0xFFFF, ticks)
        assert packet == tell(plain, numbers & 0xFFFF, ticks)
        assert state(native) == state(plain)
        number, now = int(numbers[-1]), int(ticks[-1])


def test_feedback_is_protected_with_the_viewers_key() -> None:
    viewers = Viewers(native=True)
    viewers.servers[0]._rx = Session(Policy(key=KEY[::-1], ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=PROFILE))
    viewers.note((0, 1, 1.0))
    assert viewers.arrivals.tell({}) == []
    with pytest.raises(pylibsrtp.Error):
        viewers.servers[0].heard()
    for server in viewers.servers:
        server.close()


def test_times_are_told_in_quarters_of_a_millisecond() -> None:
    assert ticks_of(np.array([1.0, 1.00025, 1.0004])).tolist() == [4000, 4001, 4001]


def test_no_sanitizer_finds_anything(tmp_path: Path) -> None:
    assert_nothing_found(tmp_path, "load_harness.c")
