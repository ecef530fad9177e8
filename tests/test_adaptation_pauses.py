"""Pauses: longer each time that one was too short, up to an end."""

from __future__ import annotations

from broadcaster.adaptation.pauses import Pauses, PauseSettings

S = PauseSettings(after=2.0, first=3.0, longest=30.0, early=30.0)


def lengths(pauses: Pauses, times: int, since_change: float) -> list[int]:
    """Whole seconds that the next pauses last."""
    found = []
    for _ in range(times):
        pauses.begin(since_change)
        found.append(next(second for second in range(100) if pauses.over(float(second))))
    return found


def test_a_pause_is_due_after_a_while() -> None:
    assert not Pauses(S).due(1.9)
    assert Pauses(S).due(2.0)


def test_pauses_double_to_an_end_and_are_short_again_after_a_quiet_time() -> None:
    pauses = Pauses(S)
    assert lengths(pauses, 1, 31.0) == [3]
    assert lengths(pauses, 5, 5.0) == [6, 12, 24, 30, 30]
    assert lengths(pauses, 1, 30.0) == [3]
