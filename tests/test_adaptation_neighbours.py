"""Neighbours: who shares a line is kept together; who only shares an address is left alone."""

from __future__ import annotations

import pytest

from benchmarks.adaptation.run import play
from benchmarks.adaptation.score import judge, mean
from benchmarks.adaptation.traces import traces
from broadcaster.adaptation.neighbours import NO_CAP, Neighbours, Share


class Household:
    """Viewers who may share a line."""

    def __init__(self, **places: int) -> None:
        self.neighbours: Neighbours[str] = Neighbours()
        self.places = places

    def compare(self, now: float, queue: float = 0.1, **places: int) -> None:
        """A look at all of them, who have moved to `places`."""
        self.places |= places
        self.neighbours.compare(now, {name: (place, queue) for name, place in self.places.items()})

    def see(
        self,
        now: float,
        name: str,
        *,
        aim: int | None = None,
        queue: float = 0.0,
        congested: bool = False,
        capacity: float = 4e6,
    ) -> None:
        place = self.places[name]
        self.neighbours.see(now, name, place=place, aim=aim, queue=queue, congested=congested, capacity=capacity)

    def share(self, now: float, name: str) -> Share:
        share = self.neighbours.share(now, name, self.places[name])
        assert share is not None
        return share

    def caps(self, now: float) -> set[int]:
        return {self.share(now, name).cap for name in self.places}

    def spared(self, now: float) -> set[str]:
        return {name for name in self.places if self.share(now, name).spared}

    def burdened(self, now: float) -> set[str]:
        return {name for name in self.places if self.share(now, name).burdened}

    def moves(self, now: float, name: str, place: int) -> None:
        self.places[name] = place
        self.see(now, name)

    def fails(self, now: float, name: str, aim: int) -> None:
        """A probe that does not go through."""
        self.see(now, name, aim=aim)
        self.see(now + 0.5, name)

    def closed(self, now: float, name: str = "b") -> int | None:
        return self.share(now, name).closed


def sharing(**places: int) -> Household:
    """A household whose line is found to be shared in second 0."""
    household = Household(**places)
    household.compare(0.0)
    return household


def test_nobody_runs_ahead_on_a_line_that_is_shared() -> None:
    household = sharing(a=7, b=2, c=7)
    assert household.caps(0.0) == {3}
    household.compare(40.0, queue=0.0)
    assert household.caps(40.0) == {3}
    household.compare(61.0, queue=0.0)
    assert household.caps(61.0) == {NO_CAP}


def test_a_line_that_was_found_to_be_shared_again_is_taken_for_one_for_longer() -> None:
    household = sharing(a=7, b=2, c=7)
    household.compare(70.0, queue=0.0)
    assert household.caps(70.0) == {NO_CAP}
    household.compare(80.0)
    household.compare(190.0, queue=0.0)
    assert household.caps(190.0) == {3}
    household.compare(201.0, queue=0.0)
    assert household.caps(201.0) == {NO_CAP}


def test_queues_that_come_apart_are_no_shared_line() -> None:
    household = Household(a=0, b=1, c=2, d=3)
    for second in range(60):
        queues = {name: 0.3 if second % 4 == number else 0.0 for number, name in enumerate("abcd")}
        household.neighbours.compare(
            float(second), {name: (number, queues[name]) for number, name in enumerate("abcd")}
        )
        for name, queue in queues.items():
            household.see(second + 0.5, name, queue=queue, congested=queue > 0)
        assert household.caps(second + 0.5) == {NO_CAP}
        assert not household.spared(second + 0.5) | household.burdened(second + 0.5)


def test_queues_that_come_together_between_two_looks_are_a_shared_line() -> None:
    household = Household(a=5, b=5, c=5)
    household.compare(0.0, queue=0.0)
    for name in "ab":
        household.see(0.4, name, queue=0.1, congested=True)
    household.compare(1.0, queue=0.0)
    assert household.caps(1.0) == {6}


def test_two_are_no_neighbours() -> None:
    neighbours: Neighbours[str] = Neighbours()
    neighbours.compare(0.0, {"a": (7, 0.1), "b": (2, 0.1)})
    neighbours.see(0.0, "a", place=7, aim=None, queue=0.1, congested=True, capacity=None)
    assert neighbours.share(0.0, "a", 7) is None


def test_who_is_low_for_a_moment_holds_nobody_back() -> None:
    household = sharing(a=5, b=5, c=5)
    household.compare(3.0, b=1)
    assert household.caps(3.0) == {6}
    household.compare(7.0)
    assert household.caps(7.0) == {2}


def test_who_left_is_forgotten() -> None:
    household = sharing(a=5, b=0, c=5, d=5)
    del household.places["b"]
    household.compare(8.0)
    assert household.caps(8.0) == {6}


def test_a_fifth_tries_for_more_at_a_time_and_those_with_least_go_first() -> None:
    household = Household(**{str(number): 3 if number < 3 else 4 for number in range(10)})
    turns: list[set[str]] = []
    for second in range(9):
        household.compare(float(second))
        turns.append({name for name in household.places if not household.share(float(second), name).waits})
    assert all(len(climbing) == 2 for climbing in turns)
    assert turns[0] == turns[2] == {"0", "1"}, "a turn lasts three seconds"
    assert turns[3] >= {"2"}, "the third of those with least comes next"
    assert {"0", "1", "2"} <= set.union(*turns)


def test_who_has_more_gives_way_first_and_among_equals_who_tries_for_more() -> None:
    household = sharing(a=4, b=3, c=3)
    assert household.spared(0.0) == {"b", "c"}
    household.compare(1.0, a=3)
    assert household.spared(1.0) == {name for name in "abc" if household.share(1.0, name).waits}
    assert len(household.spared(1.0)) == 2


def test_of_those_who_have_most_the_one_who_came_last_gives_way_first() -> None:
    household = sharing(a=4, b=3, c=3)
    for name in "abc":
        household.see(0.0, name)
    household.moves(1.0, "c", 4)
    household.compare(5.0)
    assert household.spared(5.0) == {"a", "b"}


def test_before_anybody_knows_a_fifth_probes_at_a_time_and_one_where_it_was_a_shared_line() -> None:
    household = Household(**dict.fromkeys("abcdefghij", 5))
    household.compare(0.0, queue=0.0)
    household.see(0.1, "a", aim=7)
    assert not household.share(0.2, "b").waits
    household.see(0.2, "b", aim=7)
    assert household.share(0.3, "c").waits
    assert not household.share(0.3, "a").waits, "a probe that runs goes on"
    assert not household.share(1.0, "c").waits
    household.compare(2.0)
    household.compare(100.0, queue=0.0)
    household.see(100.0, "a", aim=7)
    assert household.share(100.1, "b").waits


def test_who_goes_on_to_probe_counts_once_and_who_stopped_no_longer() -> None:
    household = Household(**dict.fromkeys("abcdefghij", 5))
    household.compare(0.0, queue=0.0)
    for at, name in ((0.1, "a"), (0.2, "b"), (0.6, "a")):
        household.see(at, name, aim=7)
    assert household.share(0.7, "c").waits
    assert not household.share(0.85, "c").waits, "b does not probe any more, although a began before it"
    household.see(0.9, "d", aim=7)
    assert household.share(1.0, "c").waits
    del household.places["a"]
    household.compare(1.0, queue=0.0)
    assert not household.share(1.0, "c").waits, "who left does not probe"


def test_while_one_probes_the_others_are_spared_and_tell_it_that_it_is_too_much() -> None:
    household = sharing(a=5, b=6, c=5)
    household.see(0.1, "a", aim=6)
    assert household.burdened(0.2) == {"b", "c"}, "b, too, although it has most"
    assert not household.share(0.2, "a").crowded
    household.see(0.3, "b", queue=0.1, congested=True)
    assert household.share(0.4, "a").crowded
    assert not household.share(0.4, "b").crowded, "nobody else complains"
    assert not household.share(1.0, "a").crowded, "that was some time ago"
    assert not household.burdened(1.0), "the probe, too"


def test_after_a_step_up_those_who_were_there_before_are_spared() -> None:
    household = sharing(a=5, b=6, c=5)
    for name in "abc":
        household.see(0.0, name)
    household.moves(0.5, "a", 6)
    assert household.burdened(1.0) == {"b", "c"}
    assert not household.burdened(4.0)


def test_when_a_step_up_is_taken_back_the_others_wait_for_its_effect() -> None:
    household = sharing(a=5, b=6, c=5)
    for at, place in ((0.5, 6), (1.6, 5)):
        household.moves(at, "a", place)
    assert household.burdened(2.5) == {"b", "c"}
    assert not household.burdened(2.7)
    for at, place in ((10.0, 6), (20.0, 5)):
        household.moves(at, "a", place)
    assert not household.burdened(20.1), "it had been there for long"


def test_after_a_change_of_the_ladder_they_go_up_one_after_the_other() -> None:
    household = sharing(a=5, b=5, c=5)
    household.neighbours.relevel()
    household.places |= dict.fromkeys("abc", 4)
    assert all(household.share(0.5, name).waits for name in "abc")
    assert not household.share(0.5, "a").alone
    household.compare(1.0)
    (first,) = (name for name in "abc" if not household.share(1.0, name).waits)
    household.moves(1.0, first, 5)
    household.compare(3.4)
    assert all(household.share(3.4, name).waits for name in "abc" if name != first)


def test_while_the_effect_of_a_step_up_is_not_known_nobody_else_tries() -> None:
    household = sharing(a=5, b=5, c=5)
    (first,) = (name for name in "abc" if not household.share(0.0, name).waits)
    household.see(0.0, first)
    household.moves(2.9, first, 6)
    household.compare(3.5)
    assert all(household.share(3.6, name).waits for name in "abc" if name != first)
    assert not all(household.share(5.6, name).waits for name in "abc" if name != first)


def test_where_two_may_try_the_other_goes_on_while_the_effect_of_a_step_up_is_not_known() -> None:
    household = sharing(**dict.fromkeys("abcdefghij", 5))
    first, second = (name for name in household.places if not household.share(0.0, name).waits)
    household.see(0.0, first)
    household.moves(1.0, first, 6)
    assert not household.share(1.1, second).waits


def test_what_failed_for_one_is_not_tried_by_the_others_for_a_while_and_longer_each_time() -> None:
    household = sharing(a=5, b=5, c=5)
    assert household.closed(0.0) is None
    household.fails(0.0, "a", 6)
    assert (household.closed(6.0), household.closed(7.0)) == (6, None)
    assert household.share(7.0, "b").failed
    household.fails(7.0, "b", 6)
    assert (household.closed(19.0), household.closed(20.0)) == (6, None)
    assert not household.share(400.0, "c").failed
    household.fails(400.0, "c", 6)
    assert household.closed(407.0) is None, "long ago"


def test_what_fails_together_counts_once() -> None:
    household = sharing(a=5, b=5, c=5)
    for name in "abc":
        household.fails(0.0, name, 7 if name == "a" else 6)
    assert (household.closed(6.0), household.closed(7.0)) == (6, None)


def test_a_step_up_that_was_taken_back_counts_as_failed() -> None:
    household = sharing(a=5, b=5, c=5)
    for at, place in ((0.0, 5), (1.0, 7), (9.0, 5)):
        household.moves(at, "a", place)
    assert household.closed(10.0) == 7
    for at, place in ((20.0, 5), (21.0, 6), (60.0, 5)):
        household.moves(at, "a", place)
    assert household.closed(61.0) is None, "it had lasted"


@pytest.mark.parametrize("reason", ["wider", "left", "ladder"])
def test_a_line_that_has_changed_is_tried_again(reason: str) -> None:
    household = sharing(a=5, b=5, c=5, d=5)
    household.fails(0.0, "a", 6)
    assert household.closed(1.0) == 6
    if reason == "wider":
        household.see(1.0, "b", capacity=6e6)
    elif reason == "left":
        del household.places["d"]
        household.compare(1.0)
    else:
        household.neighbours.relevel()
        household.places |= dict.fromkeys("abcd", 2)
        household.see(1.0, "a")
    assert household.closed(1.1) is None


@pytest.mark.parametrize("seed", [1, 11])
def test_three_behind_one_line_find_their_places_and_stay_there(seed: int) -> None:
    trace = next(trace for trace in traces() if trace.name == "shared-3")
    session = play(trace, "beamcast", seed)
    found = mean([judge(session, viewer) for viewer in session.viewers])
    assert found["changes"] <= 2.0
    assert found["queue_p95"] < 0.12
    assert found["frozen"] < 0.005
    assert found["utilisation"] > 0.95
