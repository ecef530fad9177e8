"""Neighbours: who shares a line is kept together; who only shares an address is left alone."""

from __future__ import annotations

from broadcaster.adaptation.neighbours import Neighbours, Share


def caps(shares: dict[str, Share]) -> set[int]:
    return {share.cap for share in shares.values()}


def test_nobody_runs_ahead_on_a_line_that_is_shared() -> None:
    neighbours: Neighbours[str] = Neighbours()
    assert caps(neighbours.shares(0.0, {"a": (7, 0.1), "b": (2, 0.1), "c": (7, 0.1)})) == {3}
    assert caps(neighbours.shares(20.0, {"a": (7, 0.0), "b": (2, 0.0), "c": (7, 0.0)})) == {3}
    assert neighbours.shares(31.0, {"a": (7, 0.0), "b": (2, 0.0), "c": (7, 0.0)}) == {}


def test_queues_that_come_apart_are_no_shared_line() -> None:
    neighbours: Neighbours[str] = Neighbours()
    for second in range(60):
        queues = {name: 0.3 if second % 4 == number else 0.0 for number, name in enumerate("abcd")}
        viewers = {name: (number, queues[name]) for number, name in enumerate("abcd")}
        assert neighbours.shares(float(second), viewers) == {}


def test_two_are_no_neighbours() -> None:
    neighbours: Neighbours[str] = Neighbours()
    assert neighbours.shares(0.0, {"a": (7, 0.1), "b": (2, 0.1)}) == {}


def test_who_is_low_for_a_moment_holds_nobody_back() -> None:
    neighbours: Neighbours[str] = Neighbours()
    neighbours.shares(0.0, {"a": (5, 0.1), "b": (5, 0.1), "c": (5, 0.1)})
    assert caps(neighbours.shares(3.0, {"a": (5, 0.1), "b": (1, 0.1), "c": (5, 0.1)})) == {6}
    assert caps(neighbours.shares(7.0, {"a": (5, 0.1), "b": (1, 0.1), "c": (5, 0.1)})) == {2}


def test_who_left_is_forgotten() -> None:
    neighbours: Neighbours[str] = Neighbours()
    neighbours.shares(0.0, {"a": (5, 0.1), "b": (0, 0.1), "c": (5, 0.1), "d": (5, 0.1)})
    assert caps(neighbours.shares(8.0, {"a": (5, 0.1), "c": (5, 0.1), "d": (5, 0.1)})) == {6}


def test_a_fifth_tries_for_more_at_a_time_and_those_with_least_go_first() -> None:
    neighbours: Neighbours[int] = Neighbours()
    viewers = {number: (3 if number < 3 else 4, 0.1) for number in range(10)}
    turns: list[set[int]] = []
    for second in range(9):
        shares = neighbours.shares(float(second), viewers)
        turns.append({number for number, share in shares.items() if not share.waits})
    assert all(len(climbing) == 2 for climbing in turns)
    assert turns[0] == turns[2] == {0, 1}, "a turn lasts three seconds"
    assert turns[3] >= {2}, "the third of those with least comes next"
    assert {0, 1, 2} <= set.union(*turns)


def test_who_has_more_gives_way_first_and_among_equals_who_tries_for_more() -> None:
    neighbours: Neighbours[str] = Neighbours()
    shares = neighbours.shares(0.0, {"a": (4, 0.1), "b": (3, 0.1), "c": (3, 0.1)})
    assert {name for name, share in shares.items() if share.spared} == {"b", "c"}
    shares = neighbours.shares(1.0, {"a": (3, 0.1), "b": (3, 0.1), "c": (3, 0.1)})
    assert {name for name, share in shares.items() if share.spared} == {
        name for name, share in shares.items() if share.waits
    }
    assert sum(share.spared for share in shares.values()) == 2
