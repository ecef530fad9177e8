"""The load generator's counters, with packets made up."""

from __future__ import annotations

import numpy as np
import pytest

from broadcaster.stream import RTP_CLOCK
from workers.load.counters import Counters, Disorder, Packets

FRAME = 1 / 30
STEP = RTP_CLOCK // 30


def packets(*rows: tuple[int, int, int, bool, float]) -> Packets:
    """From (viewer, sequence, timestamp, marker, arrival)."""
    viewer, sequence, timestamp, marker, arrival = zip(*rows, strict=True)
    return Packets(
        viewer=np.array(viewer),
        sequence=np.array(sequence) & 0xFFFF,
        timestamp=np.array(timestamp) & 0xFFFFFFFF,
        marker=np.array(marker),
        size=np.full(len(rows), 1000),
        arrival=np.array(arrival, float),
    )


def take(counters: Counters, *rows: tuple[int, int, int, bool, float]) -> list[Disorder]:
    return list(counters.take(packets(*rows)))


def numbers(counters: Counters, *sequence: int, viewer: int = 0) -> list[Disorder]:
    """Packets of one frame with these sequence numbers."""
    return take(counters, *((viewer, number, 0, False, 0.0) for number in sequence))


def frames(counters: Counters, *arrivals: float, start: int = 0, viewer: int = 0) -> None:
    """Frames of one packet each, 33 ms apart by timestamp; each is a batch of its own."""
    for index, arrival in enumerate(arrivals, start):
        take(counters, (viewer, index, index * STEP, True, arrival))


def test_nothing_is_counted_of_nothing() -> None:
    counters = Counters(2)
    assert list(counters.take(Packets(*(np.zeros(0, int) for _ in range(3)), *(np.zeros(0) for _ in range(3))))) == []
    assert counters.expected.tolist() == counters.packets.tolist() == counters.lost.tolist() == [0, 0]
    assert np.isnan(counters.fps(1.0)).all()


def test_packets_in_order_are_no_disorder() -> None:
    counters = Counters(1)
    assert numbers(counters, 7, 8, 9) == numbers(counters, 10) == []
    assert (counters.packets[0], counters.octets[0], counters.expected[0], counters.lost[0]) == (4, 4000, 4, 0)


@pytest.mark.parametrize("batches", [[(1, 2, 5)], [(1, 2), (5,)], [(1,), (2,), (5,)]])
def test_a_gap_is_a_loss_wherever_batches_end(batches: list[tuple[int, ...]]) -> None:
    counters = Counters(1)
    found = [one for batch in batches for one in numbers(counters, *batch)]
    assert [(one.before, one.highest, one.arrived[-1]) for one in found] in ([(0, 5, 5)], [(2, 5, 5)])
    assert counters.lost[0] == 2


def test_a_late_packet_is_no_loss_and_out_of_order() -> None:
    counters = Counters(1)
    assert numbers(counters, 1, 2, 4)
    assert numbers(counters, 3) == [Disorder(0, 4, 4, [3])]
    assert (counters.lost[0], counters.reordered[0]) == (0, 1)


def test_order_within_a_batch_counts() -> None:
    counters = Counters(1)
    numbers(counters, 1, 4, 2, 3, 5)
    assert (counters.lost[0], counters.reordered[0]) == (0, 2)


def test_a_repeated_packet_makes_the_loss_negative_as_in_rfc_3550() -> None:
    counters = Counters(1)
    numbers(counters, 1, 2, 2)
    assert (counters.lost[0], counters.reordered[0]) == (-1, 1)


def test_sequence_numbers_and_timestamps_wrap() -> None:
    counters = Counters(1)
    rows = [(0, 65_530 + index, 0xFFFFFFFF - 4 * STEP + index * STEP, True, index * FRAME) for index in range(12)]
    assert take(counters, *rows) == []
    assert (counters.packets[0], counters.lost[0], counters.highest[0], counters.frames[0]) == (12, 0, 65_541, 12)


def test_a_packet_from_before_the_wrap_is_late_only() -> None:
    counters = Counters(1)
    numbers(counters, 65_534, 0, 65_535, 1)
    assert (counters.lost[0], counters.reordered[0], counters.highest[0]) == (0, 1, 65_537)


def test_viewers_do_not_mix() -> None:
    counters = Counters(3)
    found = take(counters, (2, 100, 0, False, 0.0), (2, 103, 0, True, 0.0), (0, 5, 0, True, 0.0), (1, 9, 0, False, 0.0))
    assert [(one.viewer, one.before, one.highest) for one in found] == [(2, 99, 103)]
    assert counters.lost.tolist() == [0, 0, 2]
    assert counters.packets.tolist() == [1, 1, 2]
    assert counters.frames.tolist() == [1, 1, 1]


def test_the_report_is_that_of_rfc_3550() -> None:
    counters = Counters(1)
    numbers(counters, *range(100))
    assert counters.report(0) == (0, 0)
    numbers(counters, *range(125, 200))
    assert counters.report(0) == (25 * 256 // 100, 25)
    assert counters.report(0) == (0, 25)
    numbers(counters, *range(100, 125))
    assert counters.report(0) == (0, 0)


def test_a_frame_is_a_new_timestamp_and_old_ones_are_none() -> None:
    counters = Counters(1)
    take(counters, (0, 1, 0, False, 0.0), (0, 2, 0, True, 0.0), (0, 4, STEP, True, 0.03), (0, 5, 2 * STEP, True, 0.06))
    take(counters, (0, 3, 0, False, 0.07))
    take(counters, (0, 6, 2 * STEP, True, 0.08))
    assert counters.frames[0] == 3


def test_the_first_frame_is_there_with_its_last_packet() -> None:
    counters = Counters(2)
    take(counters, (1, 1, 0, False, 5.0), (1, 2, 0, False, 5.1))
    assert np.isnan(counters.first_frame).all()
    take(counters, (1, 3, 0, True, 5.2), (1, 4, STEP, True, 5.3))
    assert counters.first_frame[1] == 5.2
    assert np.isnan(counters.first_frame[0])


def test_the_frame_rate_is_over_all_the_time_but_the_first_second() -> None:
    counters = Counters(2)
    frames(counters, *(index * FRAME for index in range(61)))
    assert counters.fps(2.0)[0] == pytest.approx(30.0)
    assert counters.fps(4.0)[0] == pytest.approx(10.0)
    frames(counters, *[0.0] * 20, *(index * FRAME for index in range(61)), viewer=1)
    assert counters.fps(2.0)[1] == pytest.approx(30.0)


def test_the_frame_rate_of_a_short_time_is_that_since_the_first() -> None:
    counters = Counters(1)
    frames(counters, *(index * FRAME for index in range(16)))
    assert counters.fps(0.5)[0] == pytest.approx(30.0)


def test_jitter_is_that_of_rfc_3550() -> None:
    counters = Counters(1)
    steady = [index * FRAME for index in range(20)]
    frames(counters, *steady)
    assert counters.jitter[0] == pytest.approx(0.0, abs=1e-6)
    frames(counters, steady[-1] + FRAME + 0.016, start=20)
    assert counters.jitter[0] == pytest.approx(0.016 * RTP_CLOCK / 16)


@pytest.mark.parametrize(("gap", "freezes"), [(0.18, 0), (0.184, 1), (2.0, 1)])
def test_a_freeze_is_150_ms_more_than_the_average(gap: float, freezes: int) -> None:
    counters = Counters(1)
    arrivals = [index * FRAME for index in range(40)]
    frames(counters, *arrivals, arrivals[-1] + gap)
    assert counters.freezes[0] == freezes
    assert counters.frozen[0] == pytest.approx(gap * freezes)


@pytest.mark.parametrize(("gap", "freezes"), [(0.44, 0), (0.46, 1)])
def test_a_freeze_of_a_slow_stream_is_three_times_the_average(gap: float, freezes: int) -> None:
    counters = Counters(1)
    arrivals = [index * 0.15 for index in range(40)]
    frames(counters, *arrivals, arrivals[-1] + gap)
    assert counters.freezes[0] == freezes


def test_one_batch_of_many_frames_is_judged_frame_by_frame() -> None:
    counters, arrivals = Counters(2), [index * FRAME for index in range(40)]
    late = [*arrivals, arrivals[-1] + 1.0, arrivals[-1] + 1.1]
    take(counters, *((1, index, index * STEP, True, at) for index, at in enumerate(late)))
    assert counters.freezes.tolist() == [0, 1]
    assert counters.frames.tolist() == [0, 42]


def test_too_few_frames_cannot_freeze() -> None:
    counters = Counters(1)
    frames(counters, 0.0, FRAME, 2 * FRAME, 3.0)
    assert counters.freezes[0] == 0


def test_a_picture_that_stands_at_the_end_is_a_freeze() -> None:
    counters = Counters(3)
    frames(counters, *(index * FRAME for index in range(30)), viewer=1)
    frames(counters, *(index * FRAME for index in range(30)), viewer=2)
    counters.end(np.array([0, 1]), 3.0)
    assert counters.freezes.tolist() == [0, 1, 0]
    assert counters.frozen[1] == pytest.approx(3.0 - 29 * FRAME)
