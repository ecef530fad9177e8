"""Pacing with a fake clock: no drift, no burst."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from broadcaster.source.pacing import LiveTimeline, Metronome, PacingConfig, Timeline


@pytest.mark.parametrize("fps", [7.5, 24.0, 29.97, 30.0, 60.0])
def test_metronome_does_not_drift_over_a_minute_of_jittery_wakeups(fps: float) -> None:
    jitter = random.Random(1)
    metronome = Metronome(fps, start=100.0)
    now, ticks = 100.0, 0
    while now < 160.0:
        due = metronome.due(now)
        if due >= 160.0:
            break
        ticks += 1
        now = max(now, due) + jitter.uniform(0.0, 0.4 / fps)
    assert ticks == pytest.approx(fps * 60, abs=1)


def test_metronome_skips_what_a_stall_missed() -> None:
    metronome = Metronome(30.0, start=0.0)
    assert metronome.due(0.0) == 0.0
    after = [metronome.due(5.01) for _ in range(3)]
    assert after[0] == pytest.approx(5.0)
    assert after[1] == pytest.approx(5.0 + 1 / 30)
    assert after[2] == pytest.approx(5.0 + 2 / 30)


def play(timeline: Timeline, media_times: list[float], ready: list[float]) -> list[float]:
    """Show pictures one after the other, each decoded no earlier than `ready`; return when each was shown."""
    shown, now = [], 0.0
    for media_time, decoded in zip(media_times, ready, strict=True):
        now = max(now, decoded)
        due = timeline.due(media_time, now)
        if due is not None:
            assert due >= now
            now = due
            shown.append(due)
    return shown


def test_recording_keeps_its_rate_over_a_minute() -> None:
    times = [index / 29.97 for index in range(1799)]
    jitter = random.Random(2)
    shown = play(Timeline(29.97), times, [time + jitter.uniform(0, 0.01) for time in times])
    assert len(shown) == len(times)
    assert shown[-1] - shown[0] == pytest.approx(times[-1], abs=0.02)


def test_variable_rate_is_shown_as_recorded() -> None:
    times = [0.0, 0.02, 0.04, 0.5, 0.52, 1.6]
    assert play(Timeline(24.0), times, [0.0] * 6) == pytest.approx(times)


def test_recording_faster_than_the_cap_is_thinned_evenly() -> None:
    times = [index / 120 for index in range(1200)]
    shown = play(Timeline(60.0), times, [0.0] * 1200)
    assert len(shown) == pytest.approx(600, abs=1)
    assert min(b - a for a, b in pairwise(shown)) > 0.9 / 60


def test_short_stall_is_caught_up_by_dropping_not_by_bursting() -> None:
    times = [index / 30 for index in range(90)]
    shown = play(Timeline(30.0), times, [max(time, 1.4) if time > 1.0 else time for time in times])
    assert min(b - a for a, b in pairwise(shown)) >= 0.5 / 30 - 1e-9
    assert shown[-1] == pytest.approx(times[-1], abs=1 / 30), "it is back on its old timeline"
    assert len(shown) < 85


def test_long_stall_goes_on_from_where_it_was() -> None:
    times = [index / 30 for index in range(90)]
    shown = play(Timeline(30.0), times, [time if time <= 1.0 else time + 5.0 for time in times])
    assert len(shown) == 90
    gaps = [b - a for a, b in pairwise(shown)]
    assert sorted(gaps)[-1] > 4.9
    assert min(gaps) > 0.9 / 30


def test_decoder_that_is_too_slow_still_shows_evenly() -> None:
    times = [index / 30 for index in range(300)]
    shown = play(Timeline(30.0), times, [index / 20 for index in range(300)])
    assert len(shown) > 200, "a slow decoder's pictures are late, not lost"
    assert min(b - a for a, b in pairwise(shown)) >= 0.5 / 30 - 1e-9


@pytest.mark.parametrize("jump", [-1000.0, 1000.0])
def test_a_break_in_the_timestamps_is_no_pause(jump: float) -> None:
    times = [index / 30 for index in range(30)] + [jump + index / 30 for index in range(30)]
    shown = play(Timeline(30.0), times, [0.0] * 60)
    assert len(shown) >= 59
    assert max(b - a for a, b in pairwise(shown)) < 0.1


def test_live_pictures_are_shown_as_they_come() -> None:
    live = LiveTimeline(30.0)
    arrivals = [index / 30 for index in range(30)]
    assert [live.due(now) for now in arrivals] == arrivals


def test_live_backlog_is_bounded_and_spread() -> None:
    live = LiveTimeline(30.0, PacingConfig(backlog=3))
    burst = [live.due(10.0) for _ in range(20)]
    kept = [due for due in burst if due is not None]
    assert len(kept) == 4
    assert kept == pytest.approx([10.0 + index * 0.5 / 30 for index in range(4)])
