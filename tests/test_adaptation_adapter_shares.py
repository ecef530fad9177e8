"""ViewerAdapter: what it makes of its share of a line that neighbours use, too."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from broadcaster.adaptation.adapter import ViewerAdapter
from broadcaster.adaptation.neighbours import Share
from broadcaster.adaptation.path import PathState
from tests.adapter_stage import CLEAR, congested, run
from tests.three_rungs import LEVELS, TOP, level


def test_who_is_spared_gives_way_late_and_who_waits_does_not_probe() -> None:
    share = Share(cap=9, waits=True, spared=True)
    adapter, alone = ViewerAdapter(LEVELS, TOP), ViewerAdapter(LEVELS, TOP)
    adapter.share = share
    (at, _), *_ = run(adapter, congested(1e6), 3, 0)
    (before, _), *_ = run(alone, congested(1e6), 3, 0)
    assert at - before >= 0.9
    adapter = ViewerAdapter(LEVELS, level("360p", 15.0))
    adapter.share = share
    assert run(adapter, PathState(estimate=520_000.0, queue_delay=0.0), 20, 0) == []
    assert adapter.probe == 0.0
    assert run(adapter, PathState(estimate=2e6, queue_delay=0.0), 0.5, 20) == [], "although it seems to fit"
    adapter.share = replace(share, waits=False)
    run(adapter, PathState(estimate=520_000.0, queue_delay=0.0), 0.5, 20.5)
    assert adapter.probe


def test_who_is_burdened_by_anothers_attempt_bears_a_longer_queue() -> None:
    def after(queue: float, **share: bool) -> float:
        adapter = ViewerAdapter(LEVELS, TOP)
        adapter.share = Share(cap=9, **share)
        ((at, _), *_) = run(adapter, congested(1e6, queue=queue), 3.0, 0)
        return at

    assert after(0.35) == after(0.35, spared=True) == 0.0
    assert after(0.35, burdened=True) == after(0.25, spared=True) == pytest.approx(1.5)
    assert after(0.46, burdened=True) == 0.0


def test_where_a_line_was_too_narrow_before_a_probe_lasts() -> None:
    def lasted(failed: bool) -> float:
        adapter = ViewerAdapter(LEVELS, level("360p", 15.0))
        path = PathState(estimate=520_000.0, queue_delay=0.0)
        adapter.share = Share(cap=9, failed=failed)
        run(adapter, path, 1.2, 0)
        assert adapter.probe
        ((at, _),) = run(adapter, replace(path, estimate=880_000.0), 3.0, 1.2)
        return at

    assert lasted(True) - lasted(False) == pytest.approx(0.5, abs=0.11)


def test_a_queue_where_bursts_come_fast_is_a_radio_that_others_hold() -> None:
    def after(capacity: float | None, share: Share | None = None, queue: float = 0.2) -> float | None:
        adapter = ViewerAdapter(LEVELS, TOP)
        adapter.share = share
        found = run(adapter, replace(congested(1e6, queue=queue), capacity=capacity), 1.0, 0)
        return found[0][0] if found else None

    assert after(None) == after(2e6) == 0.0
    assert after(4e6) == pytest.approx(0.3)
    assert after(4e6, queue=0.31) == 0.0
    assert after(4e6, Share(cap=9)) == 0.0, "they come fast through a line that others fill, too"


def test_a_probe_that_crowds_others_has_failed() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 15.0))
    adapter.share = Share(cap=9)
    path = PathState(estimate=520_000.0, queue_delay=0.0)
    run(adapter, path, 2, 0)
    assert adapter.probe
    assert adapter.aim == adapter._options.levels.index(level("360p", 30.0))
    adapter.share = Share(cap=9, crowded=True)
    assert run(adapter, path, 0.1, 2) == []
    assert adapter.probe == 0.0
    assert adapter.aim is None
    adapter.share = Share(cap=9)
    run(adapter, path, 1.5, 2.1)
    assert adapter.probe == 0.0, "not again at once"


def test_what_was_too_much_for_the_line_is_neither_probed_nor_taken() -> None:
    for estimate in (520_000.0, 2e6):
        adapter = ViewerAdapter(LEVELS, level("360p", 15.0))
        adapter.share = Share(cap=9, closed=adapter.place + 1)
        assert run(adapter, PathState(estimate=estimate, queue_delay=0.0), 20, 0) == []
        assert adapter.probe == 0.0
        adapter.share = Share(cap=9, closed=len(LEVELS))
        run(adapter, PathState(estimate=estimate, queue_delay=0.0), 0.5, 20)
        assert adapter.probe or adapter.level != level("360p", 15.0)


def test_where_the_smooth_level_is_too_much_fewer_frames_of_a_larger_picture_are_taken() -> None:
    adapter = ViewerAdapter(LEVELS, level("180p", 30.0))
    adapter.share = Share(cap=9, closed=LEVELS.index(level("360p", 30.0)))
    run(adapter, PathState(estimate=700_000.0, queue_delay=0.0), 5, 0)
    assert adapter.level == level("360p", 15.0)


def test_who_has_more_than_its_share_goes_down_step_by_step() -> None:
    adapter = ViewerAdapter(LEVELS, TOP)
    adapter.share = Share(cap=4)
    decisions = run(adapter, CLEAR, 30, 0)
    assert {decision.rule for _, decision in decisions} == {"fair-share"}
    assert adapter.place == 4
    assert all(later - earlier >= 2 for (earlier, _), (later, _) in pairwise(decisions))
