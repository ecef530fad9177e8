"""One stream's frames to its viewers: who gets what, and what is asked of the broadcaster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.adaptation.levels import Level
from broadcaster.opening import OpeningSettings
from broadcaster.selection import FrameSelector
from broadcaster.stream import EncodedFrame, Rung, StreamDescription
from tests.rtp_viewer import CLOCK, RtpViewer, frame
from tests.test_rtcp import PLI, nack
from workers.forward.fanout import PythonFanout
from workers.forward.forwarder import Forwarder, ForwarderSettings
from workers.forward.history import LostPacket
from workers.forward.outlet import Outlet


def level(rung: int) -> Level:
    return Level(rung=rung, layer=2, name=f"r{rung}", width=64, height=36, fps=30.0, bitrate=1000)


@dataclass
class Selector:
    """Takes every frame of its rung, and a keyframe of the rung that it waits for."""

    waiting_for: int | None
    current: Level | None = None
    asked: list[EncodedFrame] = field(default_factory=list)
    timestamp: int = 0
    steady: int | None = None
    entry: int | None = None

    def accepts(self, frame: EncodedFrame) -> bool:
        self.asked.append(frame)
        if frame.keyframe and frame.rung == self.waiting_for:
            self.current, self.waiting_for = level(frame.rung), None
        return self.current is not None and frame.rung == self.current.rung


class Recorder:
    """A fan-out that remembers instead of sending."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, tuple[Outlet, ...]]] = []
        self.frames: list[EncodedFrame] = []
        self.resent: list[LostPacket] = []

    def send(self, frame: EncodedFrame, outlets: Sequence[Outlet]) -> int:
        self.sent.append((frame.index, tuple(outlets)))
        self.frames.append(frame)
        for outlet in outlets:
            outlet.state.packets += 1
        return len(outlets)

    def resend(self, outlet: Outlet, lost: Sequence[LostPacket]) -> int:
        self.resent += lost
        return len(lost)


YOUNG = OpeningSettings(age=0.6, octets=50_000, late_age=0.0, late_octets=0)


class Stage:
    """A forwarder with everything around it at hand."""

    def __init__(self, opening: OpeningSettings | None = None) -> None:
        self.now = 100.0
        self.requests: list[int] = []
        self.patient: list[int] = []
        self.demands: list[dict[int, int]] = []
        self.fanout = Recorder()
        self.forwarder = Forwarder(
            self.fanout,
            lambda rung, patient: (self.patient if patient else self.requests).append(rung),
            self._demanded,
            settings=ForwarderSettings(
                report_interval=1.0, keyframe_timeout=1.0, patience=5.0, opening=opening or YOUNG
            ),
            monotonic=lambda: self.now,
        )

    def _demanded(self, demand: Mapping[int, int]) -> None:
        self.demands.append(dict(demand))


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


def playing(stage: Stage, viewer: RtpViewer, count: int) -> None:
    """Attach `viewer` and give rung 0 a keyframe and frames of all layers after it, 10 ms apart."""
    stage.forwarder.attach(viewer.outlet, FrameSelector(LEVELS, LEVELS[-1]))
    for index in range(1, 1 + count):
        layer, _ = SLOTS[(index - 1) % 4]
        stage.forwarder.frame(frame(index, keyframe=index == 1, layer=layer))
        stage.now += 0.01
    stage.fanout.sent.clear()
    stage.fanout.frames.clear()


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


LADDER_OF_THREE = StreamDescription(
    "main", 1, tuple(Rung(f"r{rung}", 64, 36, 30.0, 100_000 - rung, 3) for rung in range(3))
)
START = next(level for level in LADDER_OF_THREE.levels() if (level.rung, level.layer) == (0, 2))


def newcomer() -> FrameSelector:
    """Wants rung 0, and takes rung 2 for a start."""
    return FrameSelector(LADDER_OF_THREE.levels(), START, entry=2)


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


def test_a_frame_costs_nothing_to_viewers_of_other_rungs() -> None:
    stage = Stage()
    with RtpViewer() as one, RtpViewer() as two:
        low, high = Selector(2), Selector(0)
        stage.forwarder.attach(one.outlet, low)
        stage.forwarder.attach(two.outlet, high)
        for rung in (0, 1, 2):
            stage.forwarder.frame(frame(rung, rung=rung, keyframe=True))
        assert [seen.rung for seen in low.asked] == [2]
        assert [seen.rung for seen in high.asked] == [0]


def test_a_switch_asks_for_a_keyframe_and_keeps_the_old_rung_until_it_comes() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        selector = Selector(1)
        stage.forwarder.attach(viewer.outlet, selector)
        stage.forwarder.frame(frame(1, rung=1, keyframe=True))
        selector.waiting_for = 0
        stage.forwarder.reselect(viewer.outlet)
        assert stage.requests == [1, 0]
        stage.forwarder.frame(frame(2, rung=1))
        stage.forwarder.frame(frame(2, rung=0))
        stage.forwarder.frame(frame(3, rung=0, keyframe=True))
        stage.forwarder.frame(frame(4, rung=1))
        stage.forwarder.frame(frame(5, rung=0))
        assert [index for index, _ in stage.fanout.sent] == [1, 2, 3, 5]
        assert stage.demands == [{1: 1}, {0: 1, 1: 1}, {0: 1}]


def test_a_selector_that_begins_to_wait_on_its_own_is_noticed() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        selector = Selector(0)
        stage.forwarder.attach(viewer.outlet, selector)
        stage.forwarder.frame(frame(1, keyframe=True))
        selector.waiting_for = 0
        stage.forwarder.frame(frame(2))
        assert stage.requests == [0, 0]


def test_a_keyframe_that_does_not_come_is_asked_for_again() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        stage.forwarder.attach(viewer.outlet, Selector(0))
        stage.forwarder.tick(100.9)
        assert stage.requests == [0]
        stage.now = 101.0
        stage.forwarder.tick(101.0)
        assert stage.requests == [0, 0]
        stage.forwarder.frame(frame(1, keyframe=True))
        stage.forwarder.tick(110.0)
        assert stage.requests == [0, 0]


def test_lost_pictures_ask_for_the_viewers_rung_and_are_coalesced() -> None:
    stage = Stage()
    with RtpViewer() as one, RtpViewer() as two, RtpViewer() as fresh:
        for viewer in (one, two):
            stage.forwarder.attach(viewer.outlet, Selector(1))
        stage.forwarder.frame(frame(1, rung=1, keyframe=True))
        one.say(PLI, stage.now)
        two.say(PLI, stage.now)
        assert stage.requests == [1, 1]
        stage.forwarder.attach(fresh.outlet, Selector(0))
        fresh.say(PLI, stage.now)
        assert stage.requests == [1, 1, 0], "it has no picture that it could have lost"


def test_who_loses_pictures_without_end_waits_patiently_and_nobody_with_it() -> None:
    stage = Stage()
    with RtpViewer() as one, RtpViewer() as two:
        for viewer in (one, two):
            stage.forwarder.attach(viewer.outlet, Selector(1))
        for index in range(20):
            stage.forwarder.frame(frame(index, rung=1, keyframe=True))
            one.say(PLI, stage.now + index)
        assert (len(stage.requests), len(stage.patient)) == (6, 15), "the first was for the newcomers"
        two.say(PLI, stage.now + 20)
        assert len(stage.requests) == 7, "although a patient request is on its way"


def test_demand_is_told_when_it_changes_and_only_then() -> None:
    stage = Stage()
    with RtpViewer() as one, RtpViewer() as two:
        stage.forwarder.attach(one.outlet, Selector(0))
        stage.forwarder.attach(two.outlet, Selector(0))
        stage.forwarder.frame(frame(1, keyframe=True))
        stage.forwarder.reselect(one.outlet)
        assert stage.demands == [{0: 1}, {0: 2}]
        assert stage.forwarder.demand == {0: 2}
        stage.forwarder.detach(one.outlet)
        stage.forwarder.detach(two.outlet)
        assert stage.demands[2:] == [{0: 1}, {}]
        assert len(stage.forwarder) == 0


def test_the_departed_get_nothing_and_leave_twice_in_peace() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        stage.forwarder.attach(viewer.outlet, Selector(0))
        stage.forwarder.detach(viewer.outlet)
        stage.forwarder.detach(viewer.outlet)
        stage.forwarder.frame(frame(1, keyframe=True))
        viewer.say(PLI, stage.now)
        stage.forwarder.tick(stage.now + 5)
        assert stage.fanout.sent == []
        assert stage.requests == [0]


def test_an_empty_frame_is_not_sent() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        stage.forwarder.attach(viewer.outlet, Selector(0))
        stage.forwarder.frame(frame(1, keyframe=True))
        stage.forwarder.frame(frame(2, size=0))
        assert [index for index, _ in stage.fanout.sent] == [1]


def test_sender_reports_keep_their_rhythm() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        stage.forwarder.attach(viewer.outlet, Selector(0))
        stage.forwarder.tick(100.1)
        assert viewer.datagrams() == []
        counts = []
        for tenth in range(2, 80):
            if tenth < 40:
                stage.forwarder.frame(frame(tenth, keyframe=True))
                viewer.datagrams()
            stage.forwarder.tick(100 + tenth / 10)
            counts.append(len(viewer.datagrams()))
        assert sum(counts[:38]) == 4
        assert sum(counts[38:]) == 2, "one report too many or too few after the last packet"
        assert max(counts) == 1


def test_a_tick_each_second_reports_each_second_although_it_is_a_little_early_or_late() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        stage.forwarder.attach(viewer.outlet, Selector(0))
        reports = 0
        for second in range(20):
            stage.forwarder.frame(frame(second, keyframe=True))
            viewer.datagrams()
            stage.forwarder.tick(100.5 + second + (0.01 if second % 2 else -0.01))
            reports += len(viewer.datagrams())
        assert reports == 20


def test_a_lost_packet_is_sent_again_on_the_wire() -> None:
    with RtpViewer() as viewer:
        forwarder = Forwarder(
            PythonFanout(CLOCK, lambda: 100.0), lambda rung, patient: None, lambda demand: None, monotonic=lambda: 100.0
        )
        forwarder.attach(viewer.outlet, Selector(0))
        forwarder.frame(frame(1, keyframe=True))
        received = viewer.received()
        viewer.say(nack([received[2].sequence]), 100.05)
        (again,) = viewer.received()
        assert again.payload == received[2].sequence.to_bytes(2, "big") + received[2].payload
        assert viewer.outlet.retransmissions == 1


LADDER = StreamDescription("main", 1, tuple(Rung(f"r{rung}", 64, 36, 30.0, 100_000 - rung, 3) for rung in (0, 1)))
LEVELS = LADDER.levels()
SLOTS = ((0, False), (2, True), (1, True), (2, False))
LAG = (2, 0)
"""Pictures by which a rung's encoder lags."""

told = st.tuples(st.integers(0, 2), st.sampled_from(LEVELS), st.integers(0, 9).map(lambda number: number == 0))


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.lists(told, max_size=4), st.permutations([0, 1])), min_size=1, max_size=40),
    st.sampled_from(LEVELS),
)
def test_viewers_that_are_not_asked_get_exactly_what_they_would_accept(
    pictures: list[tuple[list[tuple[int, Level, bool]], list[int]]], start: Level
) -> None:
    stage = Stage()
    with ExitStack() as stack:
        outlets = [stack.enter_context(RtpViewer(number=number)).outlet for number in range(3)]
        selectors = [FrameSelector(LEVELS, start) for _ in outlets]
        twins = [FrameSelector(LEVELS, start) for _ in outlets]
        for outlet, selector in zip(outlets, selectors, strict=True):
            stage.forwarder.attach(outlet, selector)
        for number, (orders, order) in enumerate(pictures, 10):
            for place, target, restart in orders:
                for selector in (selectors[place], twins[place]):
                    if restart:
                        selector.relevel(LEVELS, target, restart=True)
                    else:
                        selector.aim(target)
                stage.forwarder.reselect(outlets[place])
            for rung in order:
                key = rung in stage.requests
                stage.requests = [request for request in stage.requests if request != rung]
                layer, sync = (0, False) if key else SLOTS[number % 4]
                picture = EncodedFrame(rung, number, (number - LAG[rung]) * 3000, key, layer, sync, b"picture")
                stage.fanout.sent.clear()
                stage.forwarder.frame(picture)
                expected = [
                    outlet
                    for outlet, twin in zip(outlets, twins, strict=True)
                    if rung in {twin.waiting_for, twin.current.rung if twin.current else None} and twin.accepts(picture)
                ]
                sent = [outlet for _, group in stage.fanout.sent for outlet in group]
                assert len(sent) == len(expected)
                assert set(sent) == set(expected)
        for outlet, selector, twin in zip(outlets, selectors, twins, strict=True):
            stage.forwarder.detach(outlet)
            assert selector.timestamp == twin.timestamp
            assert selector.current == twin.current


def test_viewers_that_stand_are_not_asked() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        selector = Selector(0)
        stage.forwarder.attach(viewer.outlet, selector)
        stage.forwarder.frame(frame(1, keyframe=True))
        selector.steady = 1
        stage.forwarder.reselect(viewer.outlet)
        for index, layer in enumerate((0, 2, 1, 2), 2):
            stage.forwarder.frame(frame(index, layer=layer))
        assert [index for index, _ in stage.fanout.sent] == [1, 2, 4]
        assert len(selector.asked) == 1
        selector.steady = None
        stage.forwarder.reselect(viewer.outlet)
        assert selector.timestamp == 4 * 3000
        stage.forwarder.frame(frame(6))
        assert len(selector.asked) == 2


def test_a_viewer_whose_layers_have_come_is_asked_no_more() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        selector = FrameSelector(LEVELS, LEVELS[0])
        low, high = (next(level for level in LEVELS if (level.rung, level.layer) == (0, layer)) for layer in (0, 2))
        selector.aim(low)
        stage.forwarder.attach(viewer.outlet, selector)
        stage.forwarder.frame(frame(1, keyframe=True))
        assert selector.steady == 0
        selector.aim(high)
        stage.forwarder.reselect(viewer.outlet)
        assert selector.steady is None
        stage.forwarder.frame(frame(2, layer=2))
        assert selector.steady == 2
        stage.forwarder.frame(frame(3, layer=1))
        assert [index for index, _ in stage.fanout.sent] == [1, 2, 3]
        assert selector.timestamp == 2 * 3000, "it was not asked about the third"
