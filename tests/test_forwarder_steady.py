"""Viewers whose layers stand are not asked about each frame, and get what they would have accepted."""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.adaptation.levels import Level
from broadcaster.selection import FrameSelector
from broadcaster.stream import EncodedFrame
from tests.forward_stage import LEVELS, SLOTS, Selector, Stage
from tests.rtp_viewer import RtpViewer, frame

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
