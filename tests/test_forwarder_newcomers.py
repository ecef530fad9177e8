"""How a viewer that comes is brought into a running stream."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broadcaster.opening import OpeningSettings
from broadcaster.selection import FrameSelector
from broadcaster.stream import Rung, StreamDescription
from tests.forward_stage import LADDER, LEVELS, SLOTS, Selector, Stage
from tests.rtp_viewer import CLOCK, RtpViewer, frame
from workers.forward.fanout import PythonFanout
from workers.forward.forwarder import Forwarder

LADDER_OF_THREE = StreamDescription(
    "main", 1, tuple(Rung(f"r{rung}", 64, 36, 30.0, 100_000 - rung, 3) for rung in range(3))
)

START = next(level for level in LADDER_OF_THREE.levels() if (level.rung, level.layer) == (0, 2))


def newcomer() -> FrameSelector:
    """Wants rung 0, and takes rung 2 for a start."""
    return FrameSelector(LADDER_OF_THREE.levels(), START, entry=2)


def playing(stage: Stage, viewer: RtpViewer, count: int) -> None:
    """Attach `viewer` and give rung 0 a keyframe and frames of all layers after it, 10 ms apart."""
    stage.forwarder.attach(viewer.outlet, FrameSelector(LEVELS, LEVELS[-1]))
    for index in range(1, 1 + count):
        layer, _ = SLOTS[(index - 1) % 4]
        stage.forwarder.frame(frame(index, keyframe=index == 1, layer=layer))
        stage.now += 0.01
    stage.fanout.sent.clear()
    stage.fanout.frames.clear()


def test_a_newcomers_keyframe_is_asked_for_at_once_and_once_for_all() -> None:
    stage = Stage()
    with RtpViewer() as one, RtpViewer() as two, RtpViewer() as three:
        stage.forwarder.attach(one.outlet, Selector(1))
        assert stage.requests == [1]
        stage.forwarder.attach(two.outlet, Selector(1))
        stage.forwarder.attach(three.outlet, Selector(0))
        assert stage.requests == [1, 0]
        stage.forwarder.frame(frame(0, rung=1))
        assert stage.fanout.sent == []
        stage.forwarder.frame(frame(1, rung=1, keyframe=True))
        stage.forwarder.frame(frame(2, rung=1))
        assert stage.fanout.sent == [(1, (one.outlet, two.outlet)), (2, (one.outlet, two.outlet))]
        stage.now += 10
        stage.forwarder.tick(stage.now)
        assert stage.requests == [1, 0, 0], "only the one that still waits"


@pytest.mark.parametrize(("layer", "expected"), [(0, [1, 5]), (1, [1, 5, 7]), (2, [1, 5, 6, 7])])
def test_a_newcomer_starts_at_once_with_all_that_it_needs_since_the_last_keyframe(
    layer: int, expected: list[int]
) -> None:
    stage = Stage()
    with RtpViewer() as first, RtpViewer(number=1) as newcomer:
        playing(stage, first, 7)
        target = next(level for level in LEVELS if (level.rung, level.layer) == (0, layer))
        selector = FrameSelector(LEVELS, target)
        stage.forwarder.attach(newcomer.outlet, selector)
        assert stage.fanout.sent == [(index, (newcomer.outlet,)) for index in expected]
        assert selector.current == target
        assert stage.requests == [0], "the first viewer's"
        assert stage.demands == [{0: 1}, {0: 2}]
        times = [picture.timestamp for picture in stage.fanout.frames]
        assert times == [7 * 3000 - 3 + (1, 5, 6, 7).index(index) for index in expected], "as if captured together"
        stage.fanout.sent.clear()
        stage.forwarder.frame(frame(8, layer=2))
        stage.forwarder.frame(frame(9))
        sent = [index for index, outlets in stage.fanout.sent for outlet in outlets if outlet is newcomer.outlet]
        assert sent == ([8, 9] if layer == 2 else [9])


def test_what_a_newcomer_starts_with_is_one_picture_stream_on_the_wire() -> None:
    with RtpViewer() as first, RtpViewer(number=1) as newcomer:
        forwarder = Forwarder(
            PythonFanout(CLOCK, lambda: 100.0), lambda rung, patient: None, lambda demand: None, monotonic=lambda: 100.0
        )
        forwarder.attach(first.outlet, FrameSelector(LEVELS, LEVELS[-1]))
        for index in range(1, 5):
            forwarder.frame(frame(index, keyframe=index == 1, layer=SLOTS[index - 1][0]))
        forwarder.attach(newcomer.outlet, FrameSelector(LEVELS, LEVELS[-1]))
        forwarder.frame(frame(5))
        packets = newcomer.received()
        assert [packet.chunk for packet in packets] == [packet.chunk for packet in first.received()]
        numbers = [packet.sequence for packet in packets]
        assert numbers == list(range(numbers[0], numbers[0] + 20))
        times = [packet.timestamp for packet in packets if packet.marker]
        assert times == [11997, 11998, 11999, 12000, 15000]


def test_a_newcomer_starts_on_the_smallest_rung_and_waits_patiently_for_its_own() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        selector = newcomer()
        stage.forwarder.attach(viewer.outlet, selector)
        assert (stage.requests, stage.patient) == ([2], [0])
        assert stage.demands == [{0: 1, 2: 1}]
        stage.forwarder.frame(frame(1, rung=0))
        stage.forwarder.frame(frame(1, rung=2, keyframe=True))
        stage.forwarder.frame(frame(2, rung=2))
        assert selector.current is not None and selector.current.rung == 2
        stage.forwarder.tick(100.5)
        assert (stage.requests, stage.patient) == ([2], [0])
        stage.forwarder.frame(frame(3, rung=0, keyframe=True))
        stage.forwarder.frame(frame(3, rung=2))
        stage.forwarder.frame(frame(4, rung=0))
        assert [(sent.rung, sent.index) for sent in stage.fanout.frames] == [(2, 1), (2, 2), (0, 3), (0, 4)]
        assert stage.demands == [{0: 1, 2: 1}, {0: 1}]


def test_a_newcomer_whose_own_rung_is_faster_needs_no_other() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        selector = newcomer()
        stage.forwarder.attach(viewer.outlet, selector)
        stage.forwarder.frame(frame(1, rung=0, keyframe=True))
        stage.forwarder.frame(frame(1, rung=2, keyframe=True))
        assert [(sent.rung, sent.index) for sent in stage.fanout.frames] == [(0, 1)]
        assert stage.demands == [{0: 1, 2: 1}, {0: 1}]


def test_a_newcomers_patience_ends() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        stage.forwarder.attach(viewer.outlet, newcomer())
        stage.forwarder.frame(frame(1, rung=2, keyframe=True))
        for second in range(1, 7):
            stage.now = 100.0 + second
            stage.forwarder.tick(stage.now)
        assert set(stage.patient) == {0}
        assert stage.requests == [2, 0, 0]


def test_whom_its_adaptation_sends_elsewhere_waits_no_longer() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        selector = newcomer()
        stage.forwarder.attach(viewer.outlet, selector)
        stage.forwarder.frame(frame(1, rung=2, keyframe=True))
        stage.forwarder.reselect(viewer.outlet)
        assert (stage.requests, stage.patient) == ([2], [0]), "nothing has changed"
        selector.aim(next(level for level in LADDER_OF_THREE.levels() if (level.rung, level.layer) == (1, 2)))
        stage.forwarder.reselect(viewer.outlet)
        assert (stage.requests, stage.patient) == ([2, 1], [0])


def test_an_urgent_request_overtakes_a_patient_one_and_not_the_other_way_round() -> None:
    stage = Stage()
    with RtpViewer() as first, RtpViewer(number=1) as second, RtpViewer(number=2) as third:
        stage.forwarder.attach(first.outlet, newcomer())
        stage.forwarder.frame(frame(1, rung=2, keyframe=True))
        stage.forwarder.attach(second.outlet, Selector(0))
        stage.forwarder.attach(third.outlet, newcomer())
        assert (stage.requests, stage.patient) == ([2, 0], [0])


def test_a_later_newcomer_starts_with_what_the_smallest_rung_has_had() -> None:
    late = OpeningSettings(age=0.6, octets=50_000, late_age=3.5, late_octets=20_000)
    for waited, starts in ((3.4, True), (3.6, False)):
        stage = Stage(late)
        with RtpViewer() as first, RtpViewer(number=1) as second:
            stage.forwarder.attach(first.outlet, newcomer())
            stage.forwarder.frame(frame(1, rung=2, keyframe=True))
            stage.forwarder.frame(frame(2, rung=2, layer=2))
            stage.requests.clear()
            stage.fanout.sent.clear()
            stage.now += waited
            stage.forwarder.attach(second.outlet, newcomer())
            assert stage.fanout.sent == ([(1, (second.outlet,)), (2, (second.outlet,))] if starts else [])
            assert (2 in stage.requests) is not starts


def test_an_old_keyframe_is_no_start() -> None:
    for waited, requests in ((0.5, [0]), (0.61, [0, 0])):
        stage = Stage()
        with RtpViewer() as first, RtpViewer(number=1) as newcomer:
            playing(stage, first, 1)
            stage.now = 100.0 + waited
            stage.forwarder.attach(newcomer.outlet, FrameSelector(LEVELS, LEVELS[-1]))
            assert stage.requests == requests
            assert bool(stage.fanout.sent) == (requests == [0])


def test_too_much_is_no_start_until_the_next_keyframe() -> None:
    stage = Stage()
    with RtpViewer() as first, RtpViewer(number=1) as second, RtpViewer(number=2) as third:
        playing(stage, first, 12)
        for _ in range(7):
            stage.forwarder.frame(frame(13, layer=2))
        stage.fanout.sent.clear()
        stage.forwarder.attach(second.outlet, FrameSelector(LEVELS, LEVELS[-1]))
        assert (stage.fanout.sent, stage.requests) == ([], [0, 0])
        stage.forwarder.frame(frame(14, keyframe=True))
        stage.fanout.sent.clear()
        stage.forwarder.attach(third.outlet, FrameSelector(LEVELS, LEVELS[-1]))
        assert stage.fanout.sent == [(14, (third.outlet,))]
        assert stage.requests == [0, 0]


def test_a_rung_that_nobody_watched_meanwhile_has_no_start() -> None:
    stage = Stage()
    with RtpViewer() as first, RtpViewer(number=1) as newcomer:
        playing(stage, first, 3)
        stage.forwarder.detach(first.outlet)
        stage.forwarder.attach(newcomer.outlet, FrameSelector(LEVELS, LEVELS[-1]))
        assert (stage.fanout.sent, stage.requests) == ([], [0, 0])


def test_another_ladder_has_no_start_and_other_bitrates_keep_it() -> None:
    stage = Stage()
    with RtpViewer() as first, RtpViewer(number=1) as second, RtpViewer(number=2) as third:
        stage.forwarder.describe(LADDER)
        playing(stage, first, 1)
        stage.forwarder.describe(replace(LADDER, rungs=tuple(replace(rung, bitrate=1) for rung in LADDER.rungs)))
        stage.forwarder.attach(second.outlet, FrameSelector(LEVELS, LEVELS[-1]))
        assert stage.requests == [0]
        stage.forwarder.describe(replace(LADDER, epoch=2))
        stage.forwarder.attach(third.outlet, FrameSelector(LEVELS, LEVELS[-1]))
        assert stage.requests == [0, 0]


def test_a_switch_of_rungs_waits_for_a_keyframe_however_recent_the_last_one_is() -> None:
    stage = Stage()
    with RtpViewer() as low, RtpViewer(number=1) as high:
        stage.forwarder.attach(low.outlet, Selector(1))
        stage.forwarder.frame(frame(1, rung=1, keyframe=True))
        playing(stage, high, 3)
        selector = FrameSelector(LEVELS, next(level for level in LEVELS if (level.rung, level.layer) == (1, 2)))
        with RtpViewer(number=2) as switching:
            stage.forwarder.attach(switching.outlet, selector)
            stage.fanout.sent.clear()
            selector.aim(LEVELS[-1])
            stage.forwarder.reselect(switching.outlet)
            assert stage.fanout.sent == []
            assert stage.requests == [1, 0, 0]
