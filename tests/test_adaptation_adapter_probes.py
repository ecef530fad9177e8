"""ViewerAdapter: how it climbs by probes and without, and what a probe's own effects are taken for."""

from __future__ import annotations

from dataclasses import replace

from broadcaster.adaptation.adapter import ViewerAdapter
from broadcaster.adaptation.path import PathState
from broadcaster.adaptation.samples import Sample
from tests.adapter_stage import FINE, congested, run, sinking
from tests.three_rungs import LEVELS, level


def test_a_probe_goes_ahead_of_a_step_up() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 15.0))
    path = PathState(estimate=520_000.0, throughput=500_000.0, queue_delay=0.0, excess_loss=0.0)
    assert run(adapter, path, 2, 0) == []
    assert adapter.probe > 800_000
    ((_, decision),) = run(adapter, PathState(estimate=0.88e6, queue_delay=0.0), 1, 2)
    assert (decision.rule, decision.after.fps) == ("headroom", 30.0)
    assert decision.probe is not None
    assert decision.probe.outcome == "passed"
    assert adapter.probe == 0.0


def test_congestion_stops_a_probe_and_what_fits_stays() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 15.0))
    path = PathState(estimate=520_000.0, throughput=500_000.0, queue_delay=0.0, excess_loss=0.0)
    run(adapter, path, 2, 0)
    assert adapter.probe
    assert run(adapter, congested(560_000.0), 0.8, 2) == []
    assert adapter.probe == 0.0
    assert run(adapter, path, 2, 2.8) == []
    assert adapter.level == level("360p", 15.0)


def test_a_path_that_becomes_narrow_while_it_is_probed_is_seen_at_once() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
    run(adapter, PathState(estimate=900_000.0, capacity=5e6, queue_delay=0.0), 4, 0)
    assert adapter.probe
    decision = adapter.update(4.1, FINE, sinking(360_000.0))
    assert decision is not None
    assert adapter.probe == 0.0
    assert decision.after.rung == "180p"
    assert decision.probe is not None
    assert decision.probe.outcome == "failed"


def test_packets_that_a_probe_cost_are_not_the_levels_fault_and_what_it_reached_is_doubted() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
    run(adapter, PathState(estimate=900_000.0, capacity=5e6, queue_delay=0.0), 4, 0)
    assert adapter.probe
    lossy = PathState(estimate=1.8e6, throughput=1.2e6, queue_delay=0.0, congested=True, loss=0.2, excess_loss=0.18)
    assert run(adapter, lossy, 2, 4) == []
    assert adapter.level == level("360p", 30.0)
    assert adapter.probe == 0.0
    calm = PathState(estimate=1.8e6, throughput=0.85e6, queue_delay=0.0, loss=0.0, excess_loss=0.0)
    assert run(adapter, calm, 11, 6) == []
    assert adapter.level == level("360p", 30.0)


def test_a_step_up_is_not_taken_back_for_what_the_next_probe_lost() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 15.0))
    run(adapter, PathState(estimate=0.9e6, queue_delay=0.0), 2, 0)
    assert adapter.level == level("360p", 30.0)
    run(adapter, PathState(estimate=0.9e6, capacity=5e6, queue_delay=0.0), 1, 2)
    assert adapter.probe
    told = PathState(estimate=1.2e6, capacity=5e6, queue_delay=0.0, loss=0.06, excess_loss=0.05)
    assert run(adapter, told, 2, 3) == []
    assert adapter.level == level("360p", 30.0)


def test_what_a_probe_lost_can_be_sent_again_once_unless_a_queue_stands() -> None:
    for queue, tight in ((0.0, False), (0.1, True)):
        adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
        run(adapter, PathState(estimate=900_000.0, capacity=5e6, queue_delay=0.0, loss=0.0, excess_loss=0.0), 4, 0)
        assert adapter.probe
        lossy = PathState(estimate=1.8e6, queue_delay=queue, congested=True, loss=0.2, excess_loss=0.18)
        adapter.update(4.0, FINE, lossy)
        assert (adapter.probe, adapter.tight, adapter.copies) == (0.0, tight, 1)
        adapter.update(4.5, FINE, lossy)
        assert (adapter.tight, adapter.copies) == (tight, 1)
        adapter.update(8.0, FINE, lossy)
        assert adapter.tight, "by then it is no probe's fault"


def test_what_is_lost_while_a_probe_runs_is_not_taken_for_chance() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
    run(adapter, PathState(estimate=900_000.0, capacity=5e6, queue_delay=0.0, loss=0.0, excess_loss=0.0), 4, 0)
    assert adapter.probe
    chance = PathState(estimate=900_000.0, capacity=5e6, queue_delay=0.0, loss=0.05, excess_loss=0.0)
    adapter.update(4.0, FINE, chance)
    assert adapter.probe
    assert adapter.copies == 1
    rested = ViewerAdapter(LEVELS, level("720p", 30.0))
    run(rested, chance, 1, 0)
    assert rested.copies == 3


def test_a_probe_goes_on_for_the_same_level_when_the_ladder_changes() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 15.0))
    path = PathState(estimate=520_000.0, throughput=500_000.0, queue_delay=0.0, excess_loss=0.0)
    run(adapter, path, 2, 0)
    aim = adapter.aim
    assert aim is not None
    adapter.relevel([*(one for one in LEVELS if one.name != "720p"), replace(level("720p", 30.0), bitrate=2_000_000)])
    adapter.update(2.0, FINE, path)
    assert adapter.probe
    assert adapter.aim == aim


def test_what_is_doubted_counts_only_as_far_as_a_probe_went() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 15.0))
    run(adapter, PathState(estimate=520_000.0, queue_delay=0.0), 2, 0)
    assert adapter.probe
    helped = PathState(estimate=2.9e6, throughput=1.2e6, queue_delay=0.0, congested=True, loss=0.2, excess_loss=0.18)
    run(adapter, helped, 0.3, 2)
    calm = PathState(estimate=2.9e6, throughput=0.5e6, queue_delay=0.0, loss=0.0, excess_loss=0.0)
    ((_, decision),) = run(adapter, calm, 30, 2.3)[:1]
    assert decision.after.rung == "360p"
    assert decision.after.fps == 30.0


def test_a_path_that_becomes_narrow_right_after_a_probe_is_seen_before_the_probe_is_forgotten() -> None:
    for settled, estimate, expected in (
        (0.3, 600_000.0, None),
        (0.8, 600_000.0, "estimate-low"),
        (0.3, 360_000.0, "estimate-low"),
    ):
        adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
        run(adapter, PathState(estimate=900_000.0, capacity=5e6, queue_delay=0.0), 4, 0)
        assert adapter.probe
        assert adapter.update(4.0, FINE, congested(900_000.0, queue=0.05)) is None
        decision = adapter.update(4.0 + settled, FINE, sinking(estimate))
        assert (decision and decision.rule) == expected


def test_without_probes_a_quiet_link_is_tried() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 30.0), probes=False)
    ((at, decision),) = run(adapter, PathState(), 12, 0)
    assert 8 <= at <= 9
    assert (decision.rule, decision.after.rung, decision.after.fps) == ("headroom", "720p", 30.0)
    assert adapter.probe == 0.0


def test_nothing_is_raised_on_what_nobody_measured() -> None:
    for probes in (True, False):
        adapter = ViewerAdapter(LEVELS, level("180p", 7.5), probes=probes)
        assert run(adapter, PathState(), 60, 0, Sample()) == []
