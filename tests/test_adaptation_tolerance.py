"""Tolerance: which queues are borne."""

from __future__ import annotations

import pytest

from broadcaster.adaptation.neighbours import Share
from broadcaster.adaptation.path import PathState
from broadcaster.adaptation.tolerance import Tolerance, ToleranceSettings

S = ToleranceSettings()
TOLERANCE = Tolerance(S)


@pytest.mark.parametrize(
    ("share", "queue", "stuck", "spares"),
    [
        (None, 0.0, 0.0, False),
        (Share(), 0.0, 0.0, False),
        (Share(spared=True), 0.29, 1.4, True),
        (Share(spared=True), 0.31, 0.0, False),
        (Share(spared=True), 0.0, 1.6, False),
        (Share(burdened=True), 0.44, 0.0, True),
        (Share(burdened=True), 0.46, 0.0, False),
    ],
)
def test_others_give_way_first_for_a_while(share: Share | None, queue: float, stuck: float, spares: bool) -> None:
    assert TOLERANCE.spares(share, queue, stuck) is spares


@pytest.mark.parametrize(
    ("queue", "stuck", "width", "waits"),
    [
        (0.14, 0.2, None, True),
        (0.16, 0.2, None, False),
        (0.14, 0.4, None, False),
        (0.29, 0.2, 1.3e6, True),
        (0.31, 0.2, 1.3e6, False),
        (0.29, 0.2, 1.1e6, False),
    ],
)
def test_a_radio_that_others_hold_is_waited_for(queue: float, stuck: float, width: float | None, waits: bool) -> None:
    assert TOLERANCE.waits(queue, stuck, width=width, need=1e6) is waits


def test_a_short_queue_through_which_everything_comes_is_borne() -> None:
    assert TOLERANCE.bears(PathState(throughput=0.91e6, queue_delay=0.11), 1e6)
    assert not TOLERANCE.bears(PathState(throughput=0.89e6, queue_delay=0.11), 1e6)
    assert not TOLERANCE.bears(PathState(throughput=0.91e6, queue_delay=0.13), 1e6)
    assert not TOLERANCE.bears(PathState(queue_delay=0.0), 1e6)


def test_a_path_that_sinks_below_what_is_needed_is_not_waited_for() -> None:
    assert TOLERANCE.sinks(PathState(sinking=True), 0.8e6, 1e6)
    assert not TOLERANCE.sinks(PathState(sinking=True), 0.95e6, 1e6)
    assert not TOLERANCE.sinks(PathState(), 0.8e6, 1e6)
