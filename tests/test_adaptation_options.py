"""Options: whatever is taken away, something is left, and nothing that was taken is offered."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcaster.adaptation.frames import FrameCap, FrameCapSettings
from broadcaster.adaptation.options import Options
from tests.three_rungs import LEVELS, TOP, level

OVERHEAD = 1.06


def options(*, halvings: int = 0) -> Options:
    frames = FrameCap(FrameCapSettings(shed_pause=0.0))
    mixed = random.Random(1).sample(LEVELS, len(LEVELS))
    made = Options(mixed, frames, OVERHEAD)
    for turn in range(halvings):
        assert frames.shed(float(turn), overloaded=True)
    return made


def test_no_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one level"):
        Options([], FrameCap(FrameCapSettings()), OVERHEAD)


@given(st.integers(0, 2), st.none() | st.integers(0, len(LEVELS)), st.floats(0, 4e6), st.floats(0, 3e6))
def test_only_what_is_allowed_is_offered_and_always_something(
    halvings: int, reach: int | None, carried: float, below: float
) -> None:
    offers = options(halvings=halvings)
    offers.reach = reach
    allowed = offers.allowed
    assert allowed
    assert [one.bitrate for one in allowed] == sorted(one.bitrate for one in allowed)
    assert all(reach is None or offers.place(one) <= reach for one in allowed)
    assert all(one.fps <= 30 / 2**halvings for one in allowed) or allowed == [offers.levels[0]]
    best = offers.best(carried, below=below)
    fitting = [one for one in allowed if offers.need(one) <= carried and one.bitrate < below]
    assert best == (fitting[-1] if fitting else None)


def test_what_takes_a_levels_place_in_another_ladder() -> None:
    offers = options()
    assert offers.instead_of(replace(level("360p", 30.0), bitrate=900_000)) == level("360p", 30.0)
    assert offers.instead_of(replace(level("360p", 30.0), name="480p")) == level("360p", 30.0)
    assert offers.instead_of(replace(level("360p", 30.0), name="90p", bitrate=40_000)) == level("180p", 7.5)


def test_the_next_ones_up_and_down() -> None:
    offers = options()
    middle = level("360p", 15.0)
    assert offers.below(middle) == level("360p", 7.5)
    assert [one.bitrate for one in offers.above(middle)] == [800_000, 1_500_000, 2_500_000]
    assert offers.smoother(middle) == level("360p", 30.0)
    assert offers.fewest(level("360p", 30.0)) == level("360p", 7.5)
    assert offers.below(level("180p", 7.5)) is None
    assert offers.above(TOP) == []
    assert offers.smoother(TOP) is None
