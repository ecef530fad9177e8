"""PathEstimator and Trendline: queues, losses, bursts, silence, and any feedback at all."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcaster.adaptation.estimator import PathEstimator
from broadcaster.adaptation.trendline import Trendline
from tests.fifo_path import PACKET, FifoPath


def known(value: float | None) -> float:
    assert value is not None
    return value


def test_a_wide_path_shows_what_was_sent_and_no_more() -> None:
    path = FifoPath(PathEstimator(), lambda _: 10e6)
    path.run(5, 2e6)
    state = path.estimator.state(path.now)
    assert state.throughput == pytest.approx(2e6, rel=0.1)
    assert 1.9e6 < known(state.estimate) < 2.4e6
    assert known(state.queue_delay) < 0.005
    assert not state.congested
    assert state.loss == 0.0
    path.run(20, 1e6)
    assert known(path.estimator.state(path.now).estimate) >= 1.9e6, "what was shown once is still true"


def test_bursts_tell_how_fast_the_path_is() -> None:
    path = FifoPath(PathEstimator(), lambda _: 4e6)
    path.run(4, 2.5e6)
    assert known(path.estimator.state(path.now).capacity) == pytest.approx(4e6, rel=0.1)


@pytest.mark.parametrize("capacity", [0.5e6, 1e6, 2e6])
def test_a_growing_queue_is_seen_soon_and_lowers_the_estimate_to_what_gets_through(capacity: float) -> None:
    path = FifoPath(PathEstimator(), lambda now: 4e6 if now < 5 else capacity)
    path.run(5, 2.5e6)
    assert not path.estimator.state(path.now).congested
    while not path.estimator.state(path.now).congested:
        path.run(0.1, 2.5e6)
    assert path.now - 5 < 0.6
    path.run(0.5, 2.5e6)
    assert 0.6 * capacity < known(path.estimator.state(path.now).estimate) <= 1.01 * capacity


@pytest.mark.parametrize("capacity", [0.4e6, 0.8e6, 1.2e6])
def test_a_path_that_has_become_narrow_is_seen_within_a_few_frames_with_its_width(capacity: float) -> None:
    path = FifoPath(PathEstimator(), lambda now: 4e6 if now < 5 else capacity)
    path.run(5, 2.5e6)
    assert not path.estimator.state(path.now).sinking
    while not path.estimator.state(path.now).sinking:
        path.run(1 / 30, 2.5e6)
    assert path.now - 5 < 0.6
    assert known(path.estimator.state(path.now).estimate) == pytest.approx(0.9 * capacity, rel=0.25)


def test_a_radio_that_others_hold_for_a_moment_has_not_become_narrow() -> None:
    """Capacity 0 for 0.12 s in each second: one delay is long, those after it are shorter and shorter."""
    path = FifoPath(PathEstimator(), lambda _: 5e6)
    for _ in range(20):
        path.run(0.88, 2.5e6)
        path.hold(0.12)
        path.run(0.12, 2.5e6)
        assert not path.estimator.state(path.now).sinking


def test_an_emptying_queue_lowers_nothing_more() -> None:
    path = FifoPath(PathEstimator(), lambda now: 4e6 if now < 5 else 1e6)
    path.run(5.8, 2.5e6)
    before = known(path.estimator.state(path.now).estimate)
    path.run(6, 0.5e6)
    state = path.estimator.state(path.now)
    assert known(state.estimate) >= 0.9 * before
    assert known(state.queue_delay) < 0.05
    assert not state.congested


def test_a_keyframe_in_slices_is_no_congestion() -> None:
    path = FifoPath(PathEstimator(), lambda _: 3.2e6)
    for _ in range(5):
        path.run(2, 2.5e6)
        for _ in range(4):
            path.send(7)
            path.wait(0.005)
        for _ in range(30):
            path.run(0.1, 2.3e6)
            assert not path.estimator.state(path.now).congested


def test_loss_by_chance_is_not_blamed_on_the_rate_once_it_stays_at_a_lower_one() -> None:
    path = FifoPath(PathEstimator(), lambda _: 10e6, loss=0.1)
    path.run(6, 2e6)
    path.run(6, 1e6)
    state = path.estimator.state(path.now)
    assert state.loss == pytest.approx(0.1, abs=0.06)
    assert known(state.excess_loss) < 0.02
    path.run(6, 2e6)
    state = path.estimator.state(path.now)
    assert not state.congested
    assert known(state.estimate) > 1.6e6


def test_two_percent_of_loss_change_nothing() -> None:
    path = FifoPath(PathEstimator(), lambda _: 10e6, loss=0.02)
    for _ in range(60):
        path.run(1, 2.5e6)
        assert not path.estimator.state(path.now).congested
    assert known(path.estimator.state(path.now).estimate) > 2.3e6


def test_a_policer_shows_by_loss() -> None:
    """No queue: what is too much is dropped."""
    path = FifoPath(PathEstimator(), lambda _: 1e6, limit=0.02)
    path.run(0.5, 0.8e6)
    while not path.estimator.state(path.now).congested:
        path.run(0.1, 2e6)
        assert path.now < 4
    path.run(1, 2e6)
    state = path.estimator.state(path.now)
    assert known(state.estimate) == pytest.approx(1e6, rel=0.25)
    assert known(state.excess_loss) > 0.2


def test_silence_counts_from_the_first_packet_that_nobody_acknowledged() -> None:
    path = FifoPath(PathEstimator(), lambda _: 4e6)
    path.run(2, 1e6)
    assert path.estimator.state(path.now).silent < 0.2
    path.loss = 1.0
    path.run(1.5, 1e6)
    assert 1.2 < path.estimator.state(path.now).silent < 1.7
    path.loss = 0.0
    path.run(0.5, 1e6)
    assert path.estimator.state(path.now).silent < 0.2


def test_nothing_is_believed_before_anything_was_heard() -> None:
    estimator = PathEstimator()
    estimator.arrived(0.0, [(1, 2)])
    state = estimator.state(0.0)
    assert (state.estimate, state.throughput, state.queue_delay, state.loss, state.rtt) == (None,) * 5
    assert (state.congested, state.silent, state.measured) == (False, 0.0, 0)


def test_the_same_records_lead_to_the_same_state() -> None:
    def play() -> list[dict[str, object]]:
        path = FifoPath(PathEstimator(), lambda now: 3e6 if int(now) % 7 < 4 else 0.8e6, loss=0.03)
        states = []
        for _ in range(40):
            path.run(0.5, 1.5e6)
            states.append(asdict(path.estimator.state(path.now)))
        return states

    assert play() == play()


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("sent"), st.integers(0, 0xFFFF), st.integers(1, 64), st.integers(1, 1500)),
            st.tuples(
                st.just("arrived"),
                st.lists(st.tuples(st.integers(0, 0xFFFF), st.none() | st.integers(0, 0xFFFFFFFF)), max_size=30),
            ),
        ),
        max_size=40,
    )
)
def test_no_feedback_can_upset_it(calls: list[tuple[object, ...]]) -> None:
    estimator = PathEstimator()
    now, octets = 1.0, 0
    for call in calls:
        now += 0.02
        if call[0] == "sent":
            _, sequence, packets, size = call
            assert isinstance(sequence, int)
            assert isinstance(packets, int)
            assert isinstance(size, int)
            estimator.sent(now, sequence, packets, packets * size)
            octets += packets * size
        else:
            estimator.arrived(now, call[1])  # type: ignore[arg-type]
        state = estimator.state(now)
        for value in asdict(state).values():
            assert value is None or math.isfinite(value)
        assert state.loss is None or 0.0 <= state.loss <= 1.0
        assert (state.queue_delay or 0.0) >= 0.0


def test_a_trend_needs_a_slope_and_not_a_step() -> None:
    trendline = Trendline()
    for number in range(60):
        assert trendline.update(number / 30, 0.02) == "normal"
    usages = [trendline.update(2 + number / 30, 0.02 + 0.015 * number) for number in range(12)]
    assert "over" in usages
    usages = [trendline.update(2.4 + number / 30, 0.2 - 0.01 * number) for number in range(20)]
    assert "under" in usages


def test_packets_are_told_by_number_over_the_wrap() -> None:
    path = FifoPath(PathEstimator(), lambda _: 10e6, sequence=0xFFFF - 20)
    path.run(3, 1e6)
    assert path.octets > 30 * PACKET
    state = path.estimator.state(path.now)
    assert state.loss == 0.0
    assert state.throughput == pytest.approx(1e6, rel=0.1)
