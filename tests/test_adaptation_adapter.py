"""ViewerAdapter: each rule, one viewer on a queue that narrows and widens, replay, and any input at all."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from broadcaster.adaptation.adapter import AdaptationSettings, ViewerAdapter
from broadcaster.adaptation.controller import Controller
from broadcaster.adaptation.decision import Decision
from broadcaster.adaptation.levels import Level
from broadcaster.adaptation.neighbours import Share
from broadcaster.adaptation.path import PathState
from broadcaster.adaptation.samples import Sample
from broadcaster.stream import Rung, StreamDescription
from tests.fifo_path import FifoPath

LEVELS = StreamDescription(
    name="main",
    epoch=1,
    rungs=(
        Rung("720p", 1280, 720, 30.0, 2_500_000, 2),
        Rung("360p", 640, 360, 30.0, 800_000, 3),
        Rung("180p", 320, 180, 30.0, 200_000, 3),
    ),
).levels()

FINE = Sample(packet_loss=0.0, rtt=0.04, jitter=0.002)
CLEAR = PathState(estimate=8e6, throughput=2.6e6, queue_delay=0.0, loss=0.0, excess_loss=0.0)


def level(name: str, fps: float) -> Level:
    return next(level for level in LEVELS if level.name == name and level.fps == fps)


TOP = level("720p", 30.0)


def run(
    adapter: ViewerAdapter, path: PathState, seconds: float, start: float, sample: Sample = FINE
) -> list[tuple[float, Decision]]:
    found = []
    for step in range(int(seconds * 10)):
        now = start + step / 10
        decision = adapter.update(now, sample, path)
        if decision is not None:
            found.append((now, decision))
    return found


def congested(estimate: float, *, queue: float = 0.15) -> PathState:
    return PathState(estimate=estimate, throughput=estimate, queue_delay=queue, congested=True, loss=0.0)


def test_loss_lowers_the_frame_rate_within_six_seconds_and_no_loss_raises_it_within_ten() -> None:
    adapter = ViewerAdapter(LEVELS, TOP)
    assert run(adapter, CLEAR, 20, 0) == []
    ((at, lowered),) = run(adapter, CLEAR, 6, 20, Sample(packet_loss=0.08, rtt=0.04))
    assert at <= 26
    assert lowered.rule == "loss-high"
    assert (lowered.before.fps, lowered.after.fps) == (30.0, 15.0)
    assert lowered.before.rung == lowered.after.rung == "720p"
    assert lowered.thresholds == {"packet_loss": 0.05}
    assert lowered.inputs["packet_loss"] is not None
    assert lowered.inputs["packet_loss"] > 0.05
    assert lowered.estimate == 8e6
    assert adapter.fps_cap == 15.0
    assert adapter.level == level("720p", 15.0)
    ((at, raised),) = run(adapter, CLEAR, 15, 26)
    assert at <= 36
    assert raised.rule == "loss-low"
    assert adapter.level == TOP
    assert adapter.fps_cap == 30.0


def test_loss_that_has_other_reasons_than_the_rate_costs_one_step_only() -> None:
    adapter = ViewerAdapter(LEVELS, TOP)
    path = PathState(estimate=8e6, throughput=2e6, queue_delay=0.0, loss=0.1, excess_loss=0.01)
    decisions = run(adapter, path, 120, 0, Sample(packet_loss=0.1, rtt=0.04))
    assert [decision.rule for _, decision in decisions] == ["loss-high"]
    assert adapter.level == level("720p", 15.0)


def test_loss_that_the_rate_explains_costs_a_second_step() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
    path = PathState(estimate=8e6, throughput=2e6, queue_delay=0.0, loss=0.1, excess_loss=0.1)
    run(adapter, path, 60, 0, Sample(packet_loss=0.1, rtt=0.04))
    assert adapter.level == level("360p", 7.5)


def test_a_second_step_for_loss_waits_until_it_is_blamed_on_the_rate_for_a_while() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
    chance = PathState(estimate=2e6, throughput=8e5, queue_delay=0.0, loss=0.1, excess_loss=0.01)
    noise = replace(chance, excess_loss=0.06)
    lossy = Sample(packet_loss=0.1, rtt=0.04)
    for turn in range(15):
        run(adapter, chance, 3, 4.0 * turn, lossy)
        run(adapter, noise, 1, 4.0 * turn + 3, lossy)
    assert adapter.fps_cap == 15.0


def test_frames_that_the_estimate_cost_already_are_not_taken_for_loss_again() -> None:
    adapter = ViewerAdapter(LEVELS, level("720p", 15.0))
    path = PathState(estimate=1.7e6, throughput=1.5e6, queue_delay=0.0, loss=0.1, excess_loss=0.01)
    assert run(adapter, path, 60, 0, Sample(packet_loss=0.1, rtt=0.04)) == []
    assert adapter.fps_cap == 15.0


def test_loss_between_the_lines_changes_nothing() -> None:
    adapter = ViewerAdapter(LEVELS, level("720p", 30.0))
    assert run(adapter, CLEAR, 120, 0, Sample(packet_loss=0.035, rtt=0.04)) == []


@pytest.mark.parametrize(
    ("estimate", "rung", "fps"),
    [
        (2_100_000, "720p", 15.0),
        (1_150_000, "360p", 30.0),
        (700_000, "360p", 15.0),
        (290_000, "180p", 30.0),
        (40_000, "180p", 7.5),
    ],
)
def test_a_growing_queue_leads_in_one_step_to_what_fits(estimate: float, rung: str, fps: float) -> None:
    adapter = ViewerAdapter(LEVELS, TOP)
    run(adapter, CLEAR, 5, 0)
    ((at, decision),) = run(adapter, congested(estimate, queue=0.13), 0.6, 5)
    assert at <= 5.4, "a short stall is no congestion, but this is none"
    assert decision.rule == "estimate-low"
    assert (decision.after.rung, decision.after.fps) == (rung, fps)


def test_what_fits_is_less_while_a_long_queue_has_to_drain() -> None:
    adapter = ViewerAdapter(LEVELS, TOP)
    run(adapter, CLEAR, 5, 0)
    ((at, _),) = run(adapter, congested(1_100_000, queue=0.5), 0.5, 5)
    assert at == 5, "a long queue is acted on at once"
    assert adapter.level == level("360p", 7.5)


def test_a_small_queue_through_which_everything_arrives_is_nothing() -> None:
    adapter = ViewerAdapter(LEVELS, TOP)
    path = PathState(estimate=2.4e6, throughput=2.6e6, queue_delay=0.06, congested=True, excess_loss=0.0)
    assert run(adapter, path, 10, 0) == []


def test_an_easy_picture_does_not_need_its_whole_bitrate() -> None:
    adapter = ViewerAdapter(LEVELS, TOP)
    easy = Sample(packet_loss=0.0, rtt=0.04, sent_bitrate=900_000)
    run(adapter, CLEAR, 5, 0, easy)
    path = PathState(estimate=1.2e6, throughput=0.9e6, queue_delay=0.15, congested=True)
    assert run(adapter, path, 0.5, 5, easy) == []


def test_silence_leaves_the_fewest_frames_of_the_rung_and_the_estimate_brings_them_back() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
    run(adapter, CLEAR, 0.5, 0)
    silent = PathState(estimate=0.9e6, throughput=0.8e6, queue_delay=0.0, silent=1.2)
    ((_, decision),) = run(adapter, silent, 3, 1)
    assert (decision.rule, decision.after.rung, decision.after.fps) == ("silence", "360p", 7.5)
    back = PathState(estimate=0.9e6, throughput=0.8e6, queue_delay=0.0)
    ((at, decision),) = run(adapter, back, 3, 4)
    assert at < 6
    assert (decision.rule, decision.after.fps) == ("headroom", 30.0)


def test_a_long_way_lowers_where_nothing_else_tells_of_a_queue_and_a_satellite_does_not() -> None:
    unknown = PathState(estimate=8e6)
    near = ViewerAdapter(LEVELS, TOP)
    assert run(near, unknown, 5, 0) == []
    ((_, decision),) = run(near, unknown, 1.5, 5, Sample(packet_loss=0.0, rtt=0.5))
    assert (decision.rule, decision.after.bitrate) == ("rtt-high", 1_500_000)
    far = ViewerAdapter(LEVELS, TOP)
    assert run(far, unknown, 120, 0, Sample(packet_loss=0.0, rtt=0.6)) == []


def test_an_estimate_that_carries_more_climbs_without_a_probe() -> None:
    adapter = ViewerAdapter(LEVELS, level("180p", 30.0))
    ((at, decision),) = run(adapter, CLEAR, 5, 0)
    assert at <= 2
    assert (decision.rule, decision.after.rung, decision.after.fps) == ("headroom", "720p", 30.0)
    assert decision.probe is None


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


def sinking(estimate: float, *, queue: float = 0.06, rtt: float = 0.1) -> PathState:
    return replace(congested(estimate, queue=queue), sinking=True, throughput=2.6e6, rtt=rtt)


def test_a_path_that_has_become_narrow_is_not_waited_for() -> None:
    adapter = ViewerAdapter(LEVELS, TOP)
    run(adapter, CLEAR, 3, 0)
    decision = adapter.update(3.1, FINE, sinking(1e6))
    assert decision is not None
    assert (decision.rule, decision.after.rung, decision.after.fps) == ("estimate-low", "360p", 15.0)


def test_a_queue_that_grows_though_the_level_fits_is_no_narrow_path() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
    run(adapter, PathState(estimate=900_000.0, queue_delay=0.0), 0.5, 0)
    assert adapter.update(0.6, FINE, sinking(800_000.0)) is None


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


def test_losses_that_came_with_a_step_up_take_it_back_and_those_that_were_there_do_not() -> None:
    def climbed(loss: float) -> ViewerAdapter:
        adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
        path = PathState(estimate=2.72e6, throughput=0.85e6, queue_delay=0.0, loss=loss, excess_loss=0.0)
        run(adapter, path, 1.5, 0)
        assert adapter.level == TOP
        return adapter

    def after(loss: float) -> PathState:
        return PathState(estimate=2.72e6, throughput=2.6e6, queue_delay=0.0, loss=loss, excess_loss=0.045)

    ((at, decision),) = run(climbed(0.0), after(0.07), 3, 1.5)
    assert at < 3
    assert (decision.rule, decision.after.rung) == ("estimate-low", "360p")
    assert run(climbed(0.05), after(0.07), 3, 1.5) == []


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
    assert adapter.aim == adapter._levels.index(level("360p", 30.0))
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


def test_an_upgrade_that_fails_doubles_the_wait_for_the_next() -> None:
    adapter = ViewerAdapter(LEVELS, level("720p", 15.0))
    climbs: list[float] = []
    now = 0.0
    while now < 400:
        too_much = adapter.level == TOP
        path = congested(2.1e6) if too_much and now - climbs[-1] > 3 else PathState(estimate=2.71e6, queue_delay=0.0)
        decision = adapter.update(now, FINE, path)
        if decision is not None and decision.rule == "headroom":
            climbs.append(now)
        now += 0.1
    waits = [later - earlier for earlier, later in pairwise(climbs)]
    assert waits[0] == pytest.approx(8 + 3, abs=1)
    assert waits[1] == pytest.approx(16 + 3, abs=1)
    assert waits[-1] > 60


def test_a_pause_when_nothing_fits_and_longer_ones_when_it_was_too_early() -> None:
    adapter = ViewerAdapter(LEVELS, level("180p", 7.5))
    run(adapter, PathState(estimate=80_000.0, queue_delay=0.0), 2, 0)
    (*_, (at, decision)) = run(adapter, congested(20_000.0, queue=0.8), 4, 2)
    assert at < 6
    assert (decision.rule, decision.after) == ("pause", type(decision.after)(0.0, None, 0))
    assert adapter.level is None
    ((resumed, decision),) = run(adapter, PathState(estimate=20_000.0), 3.5, at + 0.1)
    assert resumed - at == pytest.approx(3.0, abs=0.2)
    assert decision.rule == "resume"
    assert adapter.level == level("180p", 7.5)
    (*_, (at, decision)) = run(adapter, congested(20_000.0, queue=0.8), 4, resumed + 0.1)
    assert decision.rule == "pause"
    ((resumed, _),) = run(adapter, PathState(estimate=20_000.0), 6.5, at + 0.1)
    assert resumed - at == pytest.approx(6.0, abs=0.2)


def test_our_own_overload_sheds_frames_and_gives_them_back() -> None:
    adapter = ViewerAdapter(LEVELS, TOP)
    run(adapter, CLEAR, 3, 0)
    adapter.overloaded = True
    decisions = run(adapter, CLEAR, 10, 3)
    assert [decision.rule for _, decision in decisions] == ["overload"] * 2
    assert [decision.after.fps for _, decision in decisions] == [15.0, 7.5]
    assert decisions[1][0] - decisions[0][0] >= 2
    adapter.overloaded = False
    run(adapter, CLEAR, 10, 13)
    assert adapter.level == TOP


def test_relevel_keeps_the_rung_by_name_and_finds_the_next_best() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
    slower = StreamDescription(
        "main", 2, (Rung("720p", 1280, 720, 30.0, 1_500_000, 2), Rung("360p", 640, 360, 30.0, 500_000, 3))
    )
    adapter.relevel(slower.levels())
    assert adapter.level is not None
    assert (adapter.level.name, adapter.level.bitrate, adapter.level.fps) == ("360p", 500_000, 30.0)
    only = StreamDescription("main", 3, (Rung("90p", 160, 90, 15.0, 90_000, 1),))
    adapter.relevel(only.levels())
    assert adapter.level is not None
    assert adapter.level.name == "90p"
    with pytest.raises(ValueError, match="at least one level"):
        adapter.relevel([])


# --- on a queue ---------------------------------------------------------------------------------------------------


def watch(controller: Controller, path: FifoPath, seconds: float) -> None:
    """A viewer that is sent what its controller says, picture by picture."""
    owed, end, number = 0.0, path.now + seconds, 0
    reported = path.now
    while path.now < end:
        here = controller.level
        bitrate = max(0.0 if here is None else 1.06 * here.bitrate, controller.probe)
        every = 1 if controller.probe or here is None else round(30 / here.fps)
        owed += bitrate / 30 / 8 / 1200
        number += 1
        if number % every == 0:
            path.send(int(owed))
            owed -= int(owed)
        path.wait(1 / 30)
        controller.tick(path.now)
        if path.now - reported >= 1.0:
            reported = path.now
            controller.reported(path.now, loss=path.loss, rtt=0.06 + path.queue, jitter=0.001)


def test_down_with_the_link_at_once_and_up_again_within_ten_seconds() -> None:
    controller = Controller(LEVELS, level("360p", 30.0))
    path = FifoPath(controller, lambda now: 1e6 if 20 <= now < 40 else 4e6)
    watch(controller, path, 10)
    assert controller.level == TOP
    watch(controller, path, 10)
    assert controller.level == TOP
    watch(controller, path, 1.5)
    assert controller.level is not None
    assert controller.level.bitrate <= 800_000
    watch(controller, path, 18.5)
    assert controller.level == level("360p", 30.0)
    watch(controller, path, 10)
    assert controller.level == TOP


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    capacity=st.floats(130_000, 8e6),
    loss=st.sampled_from([0.0, 0.01, 0.02, 0.1]),
    start=st.sampled_from(LEVELS),
    seed=st.integers(0, 100),
)
def test_a_steady_link_switches_at_most_twice_a_minute(capacity: float, loss: float, start: Level, seed: int) -> None:
    # Where a level needs just about what the path carries, every breath decides, and it is not steady.
    assume(not any(0.9 < capacity / (1.06 * level.bitrate) < 1.2 for level in LEVELS))
    controller = Controller(LEVELS, start)
    path = FifoPath(controller, lambda _: capacity, loss=loss, seed=seed)
    watch(controller, path, 140)
    recent: deque[float] = deque(maxlen=3)
    for at, _ in controller.decisions:
        if at >= 20:
            recent.append(at)
            assert len(recent) < 3 or recent[2] - recent[0] >= 60, controller.decisions


odd = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(0.0, 1.0), st.floats(0.0, 1e7))
samples = st.builds(Sample, odd, odd, odd, odd, odd)
number = st.none() | st.floats(0.0, 1e7)
queues = st.none() | st.floats(0, 3)
paths = st.builds(PathState, number, number, number, queues, st.booleans(), number, number, number, st.floats(0, 9))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(odd, samples, paths, st.booleans()), max_size=60), st.sampled_from(LEVELS), st.booleans())
def test_no_input_fails_and_a_replay_decides_alike(
    steps: list[tuple[float | None, Sample, PathState, bool]], start: Level, probes: bool
) -> None:
    def play() -> list[Decision | None]:
        adapter = ViewerAdapter(LEVELS, start, AdaptationSettings(), probes=probes)
        found = []
        for now, sample, path, overloaded in steps:
            before = adapter.level
            adapter.overloaded = overloaded
            decision = adapter.update(float("nan") if now is None else now, sample, path)
            assert adapter.level is None or adapter.level in LEVELS
            assert (decision is None) == (adapter.level == before)
            assert adapter.probe >= 0.0
            found.append(decision)
        return found

    assert play() == play()
