"""Neighbours: who shares a line is kept together; who only shares an address is left alone."""

from __future__ import annotations

from broadcaster.adaptation.neighbours import Neighbours


def test_nobody_runs_ahead_on_a_line_that_is_shared() -> None:
    neighbours = Neighbours()
    assert neighbours.cap(0.0, {"a": (7, 0.1), "b": (2, 0.1), "c": (7, 0.1)}) == 3
    assert neighbours.cap(20.0, {"a": (7, 0.0), "b": (2, 0.0), "c": (7, 0.0)}) == 3
    assert neighbours.cap(31.0, {"a": (7, 0.0), "b": (2, 0.0), "c": (7, 0.0)}) is None


def test_queues_that_come_apart_are_no_shared_line() -> None:
    neighbours = Neighbours()
    for second in range(60):
        queues = {name: 0.3 if second % 4 == number else 0.0 for number, name in enumerate("abcd")}
        assert (
            neighbours.cap(float(second), {name: (number, queues[name]) for number, name in enumerate("abcd")}) is None
        )


def test_two_are_no_neighbours() -> None:
    assert Neighbours().cap(0.0, {"a": (7, 0.1), "b": (2, 0.1)}) is None


def test_who_is_low_for_a_moment_holds_nobody_back() -> None:
    neighbours = Neighbours()
    neighbours.cap(0.0, {"a": (5, 0.1), "b": (5, 0.1), "c": (5, 0.1)})
    assert neighbours.cap(3.0, {"a": (5, 0.1), "b": (1, 0.1), "c": (5, 0.1)}) == 6
    assert neighbours.cap(7.0, {"a": (5, 0.1), "b": (1, 0.1), "c": (5, 0.1)}) == 2


def test_who_left_is_forgotten() -> None:
    neighbours = Neighbours()
    neighbours.cap(0.0, {"a": (5, 0.1), "b": (0, 0.1), "c": (5, 0.1), "d": (5, 0.1)})
    assert neighbours.cap(8.0, {"a": (5, 0.1), "c": (5, 0.1), "d": (5, 0.1)}) == 6
