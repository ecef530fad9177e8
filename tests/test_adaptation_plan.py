"""Audience and Planner: histograms that add up, and rungs that go where the audience is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcaster.adaptation.audience import BINS, bin_of, bitrate_of, histogram, merged, quantile
from broadcaster.broadcast import planner
from tests.three_rungs import LADDER

RUNGS = LADDER.rungs
OWN = tuple(rung.bitrate for rung in RUNGS)
ALL = {0: True, 1: True, 2: True}


@given(st.floats(0, 1e13))
def test_a_bin_promises_no_more_than_was_estimated(estimate: float) -> None:
    number = bin_of(estimate)
    assert 0 <= number < BINS
    assert bitrate_of(number) <= estimate
    if 50_000 < estimate < bitrate_of(BINS - 1):
        assert bitrate_of(number) > 0.91 * estimate


def test_histograms_add_up_and_tell_quantiles() -> None:
    one, two = histogram([1e6, 1e6, 3e6]), histogram([1e6, 9e6])
    both = merged([one, two])
    assert sum(both.values()) == 5
    assert both[bin_of(1e6)] == 3
    assert quantile(both, 0.25) == bitrate_of(bin_of(1e6))
    assert quantile(both, 0.9) == bitrate_of(bin_of(9e6))
    assert quantile({}, 0.5) is None


def test_an_audience_that_carries_everything_changes_nothing() -> None:
    assert planner(RUNGS).plan(OWN, histogram([8e6] * 100), ALL) is None
    assert planner(RUNGS).plan(OWN, {}, ALL) is None


def test_a_rung_goes_down_to_where_its_viewers_are() -> None:
    plan = planner(RUNGS).plan(OWN, histogram([0.7e6] * 100), ALL)
    assert plan is not None
    top, middle, _ = plan.bitrates
    assert top == 2_500_000
    assert 0.5e6 < middle < 0.7e6 / 1.06
    assert plan.after > 1.03 * plan.before


def test_an_audience_that_widens_gets_the_rung_back() -> None:
    low = (1_200_000, 800_000, 200_000)
    plan = planner(RUNGS).plan(low, histogram([5e6] * 10), ALL)
    assert plan is not None
    assert plan.bitrates[0] == 2_500_000


def test_an_unwatched_rung_costs_nothing_to_move_and_a_plan_is_stable() -> None:
    random.seed(4)
    audience = histogram([random.choice((0.7e6, 0.71e6, 0.72e6)) for _ in range(1000)])
    plan = planner(RUNGS).plan(OWN, audience, ALL)
    assert plan is not None
    assert planner(RUNGS).plan(plan.bitrates, audience, ALL) is None


@given(st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 1000), min_size=1, max_size=12))
def test_every_plan_keeps_the_bounds_and_is_better(audience: dict[int, int]) -> None:
    plan = planner(RUNGS).plan(OWN, audience, ALL)
    if plan is None:
        return
    assert plan.after >= 1.03 * plan.before
    for bitrate, own in zip(plan.bitrates, OWN, strict=True):
        assert 0.29 * own <= bitrate <= own
    assert plan.bitrates[0] >= 1.29 * plan.bitrates[1] >= 1.29 * plan.bitrates[2]
    assert plan.after == pytest.approx(planner(RUNGS).quality(plan.bitrates, audience))
