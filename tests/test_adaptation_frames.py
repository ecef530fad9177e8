"""FrameCap: when losses and overload take frames, and when they give them back."""

from __future__ import annotations

import pytest

from broadcaster.adaptation.frames import FrameCap, FrameCapSettings


@pytest.fixture
def frames() -> FrameCap:
    cap = FrameCap(FrameCapSettings())
    cap.arrange((7.5, 15.0, 30.0))
    return cap


def lose(frames: FrameCap, start: int, end: int, *, high: bool = True, blamed: bool) -> None:
    for now in range(start, end):
        frames.see(float(now), high=high, low=not high, blamed=blamed)
        frames.lower(float(now))
        frames.excuse()
        frames.give_back()


def test_chance_takes_one_step_and_the_rate_two(frames: FrameCap) -> None:
    lose(frames, 0, 60, blamed=False)
    assert frames.fps == 15.0
    lose(frames, 60, 120, blamed=True)
    assert frames.fps == 7.5


def test_a_second_step_that_was_chances_fault_is_given_back_while_the_loss_lasts(frames: FrameCap) -> None:
    lose(frames, 0, 20, blamed=True)
    assert frames.fps == 7.5
    lose(frames, 20, 24, blamed=False)
    assert frames.fps == 7.5
    lose(frames, 24, 60, blamed=False)
    assert frames.fps == 15.0


def test_low_loss_gives_a_step_back_when_it_has_lasted(frames: FrameCap) -> None:
    lose(frames, 0, 20, blamed=False)
    lose(frames, 20, 24, high=False, blamed=False)
    assert frames.fps == 15.0
    lose(frames, 24, 25, high=False, blamed=False)
    assert frames.fps == 30.0


def test_a_step_waits_for_the_effect_of_what_was_lowered(frames: FrameCap) -> None:
    frames.postpone(0.0)
    lose(frames, 0, 8, blamed=True)
    assert frames.fps == 30.0
    lose(frames, 8, 9, blamed=True)
    assert frames.fps == 15.0


def test_more_is_out_of_the_question_only_where_the_rate_is_blamed(frames: FrameCap) -> None:
    for high, blamed in ((False, False), (False, True), (True, False), (True, True)):
        frames.see(0.0, high=high, low=False, blamed=blamed)
        assert frames.blocks == (high and blamed)


def test_overload_and_loss_do_not_add_up(frames: FrameCap) -> None:
    lose(frames, 0, 20, blamed=False)
    assert frames.shed(20.0, overloaded=True)
    assert frames.fps == 15.0
    assert not frames.shed(21.0, overloaded=True), "steps keep a distance"
    assert frames.shed(22.0, overloaded=True)
    assert frames.fps == 7.5
    assert not frames.shed(24.0, overloaded=True), "the fewest frames are left"
    assert frames.shed(26.0, overloaded=False)
    assert frames.fps == 15.0
