"""ViewerAdapter: each rule by itself, replay, and any input at all."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.adaptation.adapter import AdaptationSettings, ViewerAdapter
from broadcaster.adaptation.decision import Decision
from broadcaster.adaptation.levels import Level
from broadcaster.adaptation.path import PathState
from broadcaster.adaptation.samples import Sample
from broadcaster.stream import Rung, StreamDescription
from tests.adapter_stage import CLEAR, FINE, congested, run, sinking
from tests.three_rungs import LEVELS, TOP, level


def test_loss_lowers_the_frame_rate_within_six_seconds_and_no_loss_raises_it_within_ten() -> None:
    adapter = ViewerAdapter(LEVELS, TOP)
    assert run(adapter, CLEAR, 20, 0) == []
    ((_, lowered),) = run(adapter, CLEAR, 6, 20, Sample(packet_loss=0.08, rtt=0.04))
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
