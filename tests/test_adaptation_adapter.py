"""ViewerAdapter: each rule, a tiny link that queues and loses, replay, and any input at all."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from broadcaster.adaptation.adapter import AdaptationSettings, ViewerAdapter
from broadcaster.adaptation.decision import Decision
from broadcaster.adaptation.levels import Level
from broadcaster.adaptation.samples import Sample
from broadcaster.stream import Rung, StreamDescription

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


def level(name: str, fps: float) -> Level:
    return next(level for level in LEVELS if level.name == name and level.fps == fps)


TOP = level("720p", 30.0)


def run(adapter: ViewerAdapter, sample: Sample, seconds: int, start: int) -> list[tuple[int, Decision]]:
    found = []
    for second in range(start, start + seconds):
        decision = adapter.update(second, sample)
        if decision is not None:
            found.append((second, decision))
    return found


def test_loss_lowers_the_frame_rate_within_six_seconds_and_no_loss_raises_it_within_ten() -> None:
    adapter = ViewerAdapter(LEVELS, TOP)
    assert run(adapter, FINE, 20, 0) == []
    (at, lowered), *_ = run(adapter, Sample(packet_loss=0.08, rtt=0.04, estimate=4e6, sent_bitrate=2.4e6), 6, 20)
    assert at <= 25
    assert lowered.rule == "loss-high"
    assert (lowered.before.fps, lowered.after.fps) == (30.0, 15.0)
    assert lowered.before.rung == lowered.after.rung == "720p"
    assert lowered.thresholds == {"packet_loss": 0.05}
    assert lowered.inputs["packet_loss"] is not None
    assert lowered.inputs["packet_loss"] > 0.05
    assert adapter.fps_cap == 15.0
    assert adapter.level == level("720p", 15.0)
    ((at, raised),) = run(adapter, Sample(packet_loss=0.0, rtt=0.04, estimate=4e6, sent_bitrate=1.5e6), 12, 26)
    assert at <= 36
    assert raised.rule == "loss-low"
    assert adapter.level == TOP
    assert adapter.fps_cap == 30.0


def test_loss_that_stays_lowers_the_rung_when_the_layers_are_used_up() -> None:
    adapter = ViewerAdapter(LEVELS, level("720p", 15.0))
    ((_, decision), *_) = run(adapter, Sample(packet_loss=0.08, rtt=0.04), 6, 0)
    assert (decision.rule, decision.after.rung, decision.after.fps) == ("loss-high", "360p", 15.0)
    assert adapter.fps_cap == 15.0


def test_loss_between_the_lines_changes_nothing() -> None:
    adapter = ViewerAdapter(LEVELS, level("720p", 15.0))
    assert run(adapter, Sample(packet_loss=0.035, rtt=0.04), 120, 0) == []


@pytest.mark.parametrize(
    ("estimate", "rung", "fps"),
    [(1_200_000, "360p", 30.0), (500_000, "180p", 30.0), (180_000, "180p", 15.0), (20_000, "180p", 7.5)],
)
def test_a_low_estimate_steps_once_to_what_fits(estimate: float, rung: str, fps: float) -> None:
    adapter = ViewerAdapter(LEVELS, TOP)
    sample = Sample(packet_loss=0.0, rtt=0.04, estimate=estimate, sent_bitrate=2_400_000)
    ((at, decision), *_) = run(adapter, sample, 5, 0)
    assert at <= 3
    assert decision.rule == "estimate-low"
    assert (decision.after.rung, decision.after.fps) == (rung, fps)


def test_an_easy_picture_does_not_need_its_whole_bitrate() -> None:
    adapter = ViewerAdapter(LEVELS, TOP)
    sample = Sample(packet_loss=0.0, rtt=0.04, estimate=1_280_000, sent_bitrate=800_000)
    assert run(adapter, sample, 120, 0) == []


def test_a_queue_lowers_the_rung_and_a_satellite_does_not() -> None:
    near = ViewerAdapter(LEVELS, TOP)
    assert run(near, FINE, 5, 0) == []
    ((_, decision), *_) = run(near, Sample(packet_loss=0.0, rtt=0.5), 4, 5)
    assert (decision.rule, decision.after.rung) == ("rtt-high", "360p")
    far = ViewerAdapter(LEVELS, TOP)
    assert run(far, Sample(packet_loss=0.0, rtt=0.6), 120, 0) == []
    assert run(far, Sample(packet_loss=0.0, rtt=1.5), 4, 120)[0][1].rule == "rtt-high"


def test_a_single_high_rtt_is_nothing() -> None:
    adapter = ViewerAdapter(LEVELS, TOP)
    for second in range(60):
        assert adapter.update(second, Sample(packet_loss=0.0, rtt=0.9 if second % 5 == 4 else 0.04)) is None


def test_a_satellite_climbs_too() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
    ((_, decision),) = run(adapter, Sample(packet_loss=0.0, rtt=0.6), 20, 0)
    assert (decision.rule, decision.after.rung) == ("headroom", "720p")


def test_a_quiet_link_climbs_although_remb_only_plateaus() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
    sample = Sample(packet_loss=0.0, rtt=0.04, estimate=1.5 * 800_000, sent_bitrate=800_000)
    ((at, decision),) = run(adapter, sample, 30, 0)
    assert 8 <= at <= 12
    assert (decision.rule, decision.after.rung) == ("headroom", "720p")


def test_an_estimate_without_room_does_not_climb() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
    sample = Sample(packet_loss=0.0, rtt=0.04, estimate=1.1 * 800_000, sent_bitrate=800_000)
    assert run(adapter, sample, 300, 0) == []


def test_an_estimate_that_is_sure_climbs_in_one_step() -> None:
    adapter = ViewerAdapter(LEVELS, level("180p", 30.0))
    ((_, decision),) = run(adapter, Sample(packet_loss=0.0, rtt=0.04, estimate=4e6), 30, 0)
    assert decision.after.rung == "720p"


def test_nothing_is_raised_on_what_nobody_measured() -> None:
    adapter = ViewerAdapter(LEVELS, level("180p", 7.5))
    assert run(adapter, Sample(), 300, 0) == []


def test_a_failed_upgrade_doubles_the_wait_for_the_next() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
    climbs = []
    for second in range(900):
        bad = adapter.level == TOP
        sample = Sample(packet_loss=0.12 if bad else 0.0, rtt=0.04)
        decision = adapter.update(second, sample)
        if decision is not None and decision.rule == "headroom":
            climbs.append(second)
        if decision is not None and decision.rule == "loss-high":
            assert decision.after.rung == "360p", "a trial falls back in one step"
            assert adapter.level == level("360p", 30.0)
    waits = [later - earlier for earlier, later in pairwise(climbs)]
    assert len(waits) >= 3
    assert 60 <= waits[0] < 100
    assert waits[1] >= 1.7 * waits[0]
    assert max(waits) < 300


def test_the_frame_rate_cap_survives_a_change_of_rungs() -> None:
    adapter = ViewerAdapter(LEVELS, TOP)
    run(adapter, Sample(packet_loss=0.08, rtt=0.04), 4, 0)
    assert adapter.level == level("720p", 15.0)
    run(adapter, Sample(packet_loss=0.03, rtt=0.04, estimate=600_000, sent_bitrate=1.4e6), 10, 4)
    assert adapter.level == level("360p", 15.0)
    assert adapter.fps_cap == 15.0


def test_relevel_keeps_the_rung_by_name_and_finds_the_next_best() -> None:
    adapter = ViewerAdapter(LEVELS, level("360p", 30.0))
    slower = StreamDescription(
        "main", 2, (Rung("720p", 1280, 720, 30.0, 1_500_000, 2), Rung("360p", 640, 360, 30.0, 500_000, 3))
    )
    adapter.relevel(slower.levels())
    assert (adapter.level.name, adapter.level.bitrate, adapter.level.fps) == ("360p", 500_000, 30.0)
    only = StreamDescription("main", 3, (Rung("90p", 160, 90, 15.0, 90_000, 1),))
    adapter.relevel(only.levels())
    assert adapter.level.name == "90p"
    run(adapter, Sample(packet_loss=0.3, rtt=2.0, estimate=1000.0), 30, 0)
    assert adapter.level.name == "90p"
    with pytest.raises(ValueError, match="at least one level"):
        adapter.relevel([])


# --- a link -------------------------------------------------------------------------------------------------------


@dataclass
class Link:
    """A bottleneck of `capacity` bit/s with a queue of `queue` seconds, a base RTT, random loss, and REMB as browsers
    send it: 0.85 of what arrives while the queue grows, else at most 1.6 times that, growing 8 % a second."""

    capacity: float
    rtt: float = 0.04
    loss: float = 0.0
    queue: float = 0.5
    remb: bool = True
    noise: random.Random = field(default_factory=lambda: random.Random(7))
    _waiting: float = 0.0
    _estimate: float = 300_000.0

    def second(self, sent: float) -> Sample:
        sent *= self.noise.uniform(0.9, 1.1)
        waiting = self._waiting + sent - self.capacity
        dropped = max(0.0, waiting - self.queue * self.capacity)
        growing = waiting > self._waiting + 0.02 * sent and waiting > 0.0
        self._waiting = min(max(0.0, waiting), self.queue * self.capacity)
        loss = dropped / sent + self.loss * self.noise.uniform(0.8, 1.2)
        arrived = min(sent, self.capacity) * (1.0 - self.loss)
        if growing:
            self._estimate = 0.85 * arrived
        else:
            self._estimate = max(min(1.08 * self._estimate, 1.6 * arrived), min(self._estimate, 1.6 * arrived))
            self._estimate = max(self._estimate, 0.9 * arrived)
        return Sample(
            packet_loss=loss,
            rtt=self.rtt + self._waiting / self.capacity,
            jitter=0.002,
            estimate=self._estimate if self.remb else None,
            sent_bitrate=sent,
        )


def drive(adapter: ViewerAdapter, link: Link, seconds: range) -> Iterator[tuple[int, Decision]]:
    for second in seconds:
        decision = adapter.update(second, link.second(adapter.level.bitrate))
        if decision is not None:
            yield second, decision


def test_down_with_the_link_and_up_again() -> None:
    adapter, link = ViewerAdapter(LEVELS, TOP), Link(capacity=5e6)
    assert list(drive(adapter, link, range(30))) == []
    link.capacity = 1_000_000
    (at, first), *_ = drive(adapter, link, range(30, 45))
    assert at <= 34
    assert first.rule in ("estimate-low", "loss-high")
    assert first.after.rung in ("360p", "180p")
    assert first.after.bitrate is not None
    assert first.after.bitrate < 1_000_000
    link.capacity = 5e6
    list(drive(adapter, link, range(45, 180)))
    assert adapter.level == TOP


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    capacity=st.floats(60_000, 6e6),
    rtt=st.floats(0.001, 0.8),
    loss=st.sampled_from([0.0, 0.005, 0.015, 0.03, 0.08, 0.15]),
    start=st.sampled_from(LEVELS),
    remb=st.booleans(),
    seed=st.integers(0, 100),
)
def test_a_steady_link_switches_at_most_twice_a_minute(
    capacity: float, rtt: float, loss: float, start: Level, remb: bool, seed: int
) -> None:
    # Where a level needs just about what the path carries, the noise of the link decides, and it is not steady.
    assume(not any(0.8 < capacity / level.bitrate < 1.25 for level in LEVELS))
    adapter = ViewerAdapter(LEVELS, start)
    link = Link(capacity, rtt=rtt, loss=loss, remb=remb, noise=random.Random(seed))
    # The first minute is the search for the path's width, which nobody knows yet.
    switches = [at for at, _ in drive(adapter, link, range(600)) if at >= 60]
    recent: deque[int] = deque(maxlen=3)
    for at in switches:
        recent.append(at)
        assert len(recent) < 3 or recent[2] - recent[0] >= 60, switches


odd = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(0.0, 1.0), st.floats(0.0, 1e7))
samples = st.builds(Sample, odd, odd, odd, odd, odd)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(odd, samples), max_size=60), st.sampled_from(LEVELS))
def test_no_input_fails_and_a_replay_decides_alike(steps: list[tuple[float | None, Sample]], start: Level) -> None:
    def play() -> list[Decision | None]:
        adapter = ViewerAdapter(LEVELS, start, AdaptationSettings())
        found = []
        for now, sample in steps:
            before = adapter.level
            decision = adapter.update(float("nan") if now is None else now, sample)
            assert adapter.level in LEVELS
            assert (decision is None) == (adapter.level == before)
            found.append(decision)
        return found

    assert play() == play()


def test_an_estimate_that_still_climbs_after_a_step_up_is_not_low() -> None:
    """Chromium's REMB, recorded once a second after a step from 360p to 720p on a path without any limit."""
    adapter = ViewerAdapter(LEVELS, LEVELS[-1])
    remb = [1_160_000, 1_270_000, 1_360_000, 1_470_000, 1_580_000, 1_710_000, 1_850_000, 2_000_000, 2_160_000]
    for second, estimate in enumerate(remb):
        sample = Sample(packet_loss=0.0, rtt=0.002, estimate=estimate, sent_bitrate=2_200_000)
        assert adapter.update(float(second), sample) is None


def test_an_estimate_that_stays_low_after_a_step_up_is() -> None:
    adapter = ViewerAdapter(LEVELS, LEVELS[-1])
    sample = Sample(packet_loss=0.0, rtt=0.002, estimate=1_160_000, sent_bitrate=2_200_000)
    decisions = [adapter.update(float(second), sample) for second in range(8)]
    assert [decision.rule for decision in decisions if decision] == ["estimate-low"]
