"""Transport-wide feedback of the load generator, read by the server's own parser."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rtp_viewer import CLOCK, WITH_TRANSPORT, RtpViewer, frame
from workers.forward import rtcp
from workers.forward.fanout import Audience, PythonFanout
from workers.forward.packets import ExtensionIds
from workers.forward.rtcp import Arrival
from workers.load.arrivals import Arrivals, number_at, ticks_of

SSRC = 0xCAFE


def told(arrivals: Arrivals) -> list[Arrival]:
    packet = arrivals.tell(SSRC)
    return [] if packet is None else rtcp.parse(packet).arrivals


def add(arrivals: Arrivals, packets: dict[int, float]) -> None:
    times = ticks_of(np.array(list(packets.values()))).tolist()
    arrivals.add([number & 0xFFFF for number in packets], times)


def test_what_came_in_order_is_told_with_its_times() -> None:
    arrivals = Arrivals()
    add(arrivals, {0xFFFE: 100.0, 0xFFFF: 100.00025})
    add(arrivals, {0x10000: 100.0005, 0x10001: 100.0505})
    assert told(arrivals) == [(0xFFFE, 400_000), (0xFFFF, 400_001), (0, 400_002), (1, 400_202)]
    assert told(arrivals) == []


def test_what_did_not_come_is_told_as_lost_once_something_after_it_came() -> None:
    arrivals = Arrivals()
    add(arrivals, {5: 1.0})
    assert told(arrivals) == [(5, 4000)]
    add(arrivals, {8: 1.1, 7: 1.2, 6: 1.05, 10: 7.5})
    assert told(arrivals) == [(6, 4200), (7, 4800), (8, 4400), (9, None), (10, 30_000)]
    add(arrivals, {9: 7.6})
    assert told(arrivals) == [], "too late to be told"


@settings(deadline=None)
@given(
    st.integers(0, 0xFFFF),
    st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1)), min_size=1, max_size=80),
    st.integers(1, 9),
)
def test_any_pattern_reads_back(first: int, steps: list[tuple[int, float]], parts: int) -> None:
    arrivals, number, now, expected, read = Arrivals(), first, 50.0, {}, []
    for place, (step, pause) in enumerate(steps):
        add(arrivals, {number: now})
        expected[number & 0xFFFF] = int(now * 4000)
        if place % parts == 0:
            read += told(arrivals)
        number, now = number + step, now + pause
    read += told(arrivals)
    assert {one.sequence: one.ticks for one in read if one.ticks is not None} == expected
    assert [one.sequence for one in read] == [(first + place) & 0xFFFF for place in range(len(read))]


@pytest.mark.parametrize(
    "ids", [WITH_TRANSPORT.extensions, ExtensionIds(2, 9, 5, 3), ExtensionIds(transport_sequence=3), ExtensionIds()]
)
def test_the_number_is_found_in_what_the_server_sends(ids: ExtensionIds) -> None:
    with RtpViewer(parameters=replace(WITH_TRANSPORT, extensions=ids)) as viewer:
        viewer.outlet.state.transport_sequence = 0x1234
        PythonFanout(CLOCK, lambda: 5.0).send(frame(1, size=8), Audience([viewer.outlet]))
        (data,) = viewer.datagrams()
        at = number_at(data, 3)
        assert (at > 0) == (ids.transport_sequence is not None)
        assert not at or data[at : at + 2] == b"\x12\x34"
        for size in range(len(data)):
            assert number_at(data[:size], 3) in (0, at)


@given(st.binary(max_size=80))
def test_hostile_packets_have_no_number_beyond_their_end(data: bytes) -> None:
    assert 0 <= number_at(data, 3) <= len(data)
