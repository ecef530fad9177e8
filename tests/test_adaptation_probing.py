"""Prober: when it knocks, when it pushes, what it makes of the answer, and how long it waits after a failure."""

from __future__ import annotations

from itertools import pairwise

import pytest

from broadcaster.adaptation.path import PathState
from broadcaster.adaptation.probing import Prober

NEED, SENDING = 1_600_000.0, 850_000.0
CALM = PathState(estimate=900_000.0, throughput=850_000.0, queue_delay=0.0, excess_loss=0.0)
WIDE = PathState(estimate=900_000.0, capacity=5e6, queue_delay=0.0, excess_loss=0.0)


def test_it_knocks_first_and_pushes_when_the_burst_came_fast() -> None:
    prober = Prober()
    assert prober.update(0.0, CALM, NEED, SENDING) is None
    assert prober.rate > SENDING
    assert prober.octets == 6000
    prober.update(0.15, CALM, NEED, SENDING)
    assert (prober.rate, prober.active) == (0.0, True)
    prober.update(0.3, WIDE, NEED, SENDING)
    assert prober.rate == pytest.approx(1.15 * NEED)
    assert prober.octets is None
    assert prober.update(0.5, WIDE, NEED, SENDING) is None
    reached = PathState(estimate=1.03 * NEED, capacity=5e6, queue_delay=0.0)
    assert prober.update(0.9, reached, NEED, SENDING) == "passed"
    assert not prober.active
    assert prober.last is not None
    assert prober.last.outcome == "passed"
    assert prober.last.reached == pytest.approx(1.03 * NEED, abs=1)


def test_a_burst_that_came_slowly_ends_it_before_anybody_waits() -> None:
    prober = Prober()
    prober.update(0.0, CALM, NEED, SENDING)
    prober.update(0.2, CALM, NEED, SENDING)
    narrow = PathState(estimate=900_000.0, capacity=1e6, queue_delay=0.0)
    assert prober.update(0.9, narrow, NEED, SENDING) is None
    assert not prober.active
    assert prober.last is None
    prober.update(1.5, narrow, NEED, SENDING)
    assert not prober.active, "knocks keep a distance"
    prober.update(2.1, narrow, NEED, SENDING)
    assert prober.active


def test_small_steps_need_no_knock() -> None:
    prober = Prober()
    prober.update(0.0, CALM, 500_000.0, 340_000.0)
    assert prober.rate == pytest.approx(575_000.0)


def test_where_bursts_came_slowly_a_small_step_is_knocked_for() -> None:
    prober = Prober()
    narrow = PathState(estimate=490_000.0, capacity=400_000.0, queue_delay=0.0)
    prober.update(0.0, narrow, 500_000.0, 340_000.0)
    assert prober.octets == 6000
    prober.update(0.2, narrow, 500_000.0, 340_000.0)
    prober.update(0.9, narrow, 500_000.0, 340_000.0)
    assert not prober.active
    assert prober.last is None, "nothing was pushed through"


@pytest.mark.parametrize(
    "bad",
    [
        PathState(estimate=900_000.0, congested=True),
        PathState(estimate=900_000.0, queue_delay=0.08),
        PathState(estimate=900_000.0, excess_loss=0.06),
        PathState(estimate=900_000.0, capacity=1_000_000.0),
    ],
)
def test_a_queue_or_loss_or_slow_bursts_end_it(bad: PathState) -> None:
    prober = Prober()
    prober.update(0.0, WIDE, NEED, SENDING)
    assert prober.rate > NEED
    assert prober.update(0.3, bad, NEED, SENDING) == "failed"
    assert prober.rate == 0.0


def test_an_estimate_that_does_not_rise_fails_in_the_end() -> None:
    prober = Prober()
    prober.update(0.0, WIDE, NEED, SENDING)
    assert prober.update(1.0, WIDE, NEED, SENDING) is None
    assert prober.update(2.0, WIDE, NEED, SENDING) == "failed"


def failures(prober: Prober, path: PathState, until: float) -> list[float]:
    found = []
    now = 0.0
    while now < until:
        congested = PathState(estimate=path.estimate, capacity=path.capacity, congested=prober.rate > 0.0)
        if prober.update(now, congested if prober.active else path, NEED, SENDING) == "failed":
            found.append(now)
        now += 0.1
    return found


def test_each_failure_doubles_the_pause_up_to_a_limit() -> None:
    barely = PathState(estimate=900_000.0, capacity=1.2 * NEED, queue_delay=0.0)
    waits = [later - earlier for earlier, later in pairwise(failures(Prober(), barely, 120.0))]
    assert waits[0] == pytest.approx(2.0, abs=0.4)
    assert waits[1] == pytest.approx(4.0, abs=0.4)
    assert waits[2] == pytest.approx(8.0, abs=0.4)
    assert 23.5 <= max(waits) <= 24.5


def test_where_bursts_come_fast_the_pause_stays_short() -> None:
    waits = [later - earlier for earlier, later in pairwise(failures(Prober(), WIDE, 120.0))]
    assert waits[1] == pytest.approx(4.0, abs=0.4)
    assert 11.5 <= max(waits) <= 12.5


def test_a_path_that_has_widened_is_tried_at_once() -> None:
    prober = Prober()
    failures(prober, WIDE, 20.0)
    assert not prober.active
    prober.update(20.1, WIDE, NEED, SENDING)
    assert not prober.active
    prober.update(20.2, PathState(estimate=900_000.0, capacity=9e6), NEED, SENDING)
    assert prober.active


def test_it_can_be_stopped_and_postponed() -> None:
    prober = Prober()
    prober.update(0.0, WIDE, NEED, SENDING)
    prober.stop(0.2, WIDE)
    assert prober.last is not None
    assert prober.last.outcome == "stopped"
    prober.postpone(5.0)
    prober.update(4.9, WIDE, NEED, SENDING)
    assert not prober.active
    prober.update(5.0, WIDE, NEED, SENDING)
    assert prober.active


def test_another_goal_starts_anew() -> None:
    prober = Prober()
    prober.update(0.0, WIDE, NEED, SENDING)
    prober.update(0.1, WIDE, 2.0 * NEED, SENDING)
    assert prober.rate == pytest.approx(1.15 * 2.0 * NEED)


def test_what_was_lost_before_a_probe_is_not_its_fault_and_much_makes_it_wait() -> None:
    def losing(excess: float) -> PathState:
        return PathState(estimate=900_000.0, capacity=5e6, queue_delay=0.0, excess_loss=excess)

    prober = Prober()
    prober.update(0.0, losing(0.05), NEED, SENDING)
    assert not prober.active
    prober.update(1.0, losing(0.035), NEED, SENDING)
    assert prober.active
    assert prober.update(1.3, losing(0.045), NEED, SENDING) is None
    assert prober.update(1.4, losing(0.08), NEED, SENDING) == "failed"


def test_a_probe_that_cost_packets_is_not_repeated_soon() -> None:
    prober, now, failures = Prober(), 0.0, []
    while now < 300:
        path = PathState(estimate=900_000.0, capacity=5e6, queue_delay=0.0, excess_loss=0.1 if prober.rate else 0.0)
        if prober.update(now, path, NEED, SENDING) == "failed":
            failures.append(now)
            assert prober.refused(now + 11, NEED)
        now += 0.1
    waits = [later - earlier for earlier, later in pairwise(failures)]
    assert waits[0] == pytest.approx(12, abs=2)
    assert waits[1] == pytest.approx(24, abs=2)
    assert max(waits) <= 125
