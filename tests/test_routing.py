from __future__ import annotations

import random

import pytest

from gateway.routing import Candidate, RecentStreams, Router, RoutingSettings


def worker(name: str, viewers: int = 0, capacity: int = 100, **changed: object) -> Candidate:
    values: dict[str, object] = {"ready": True, "age": 0.1, "carries": False, **changed}
    return Candidate(id=name, viewers=viewers, capacity=capacity, **values)  # type: ignore[arg-type]


def test_fewest_viewers_per_capacity_win() -> None:
    chosen = Router().assign(10.0, [worker("a", 10, 20), worker("b", 40, 100), worker("c", 5, 10)])
    assert chosen.worker == "b"


def test_a_tie_goes_to_the_worker_with_the_stream_then_to_the_lowest_id() -> None:
    equal = [worker("c", 1, 2), worker("b", 50, 100), worker("a", 2, 4)]
    assert Router().assign(10.0, equal).worker == "a"
    assert Router().assign(10.0, [*equal, worker("d", 3, 6, carries=True)]).worker == "d"


@pytest.mark.parametrize("unusable", [{"ready": False}, {"age": 2.0}, {"viewers": 100}, {"capacity": 0}], ids=str)
def test_draining_late_and_full_workers_get_nobody(unusable: dict[str, object]) -> None:
    with pytest.raises(LookupError):
        Router().assign(10.0, [worker("a", **unusable)])  # type: ignore[arg-type]


def test_a_lease_that_is_a_second_late_is_the_limit() -> None:
    assert Router().assign(10.0, [worker("a", age=1.99)]).worker == "a"


def test_a_burst_spreads_by_capacity_before_any_lease_shows_it() -> None:
    router = Router()
    workers = [worker("a", capacity=100), worker("b", capacity=200), worker("c", capacity=100, viewers=50)]
    burst = [router.assign(10.0, workers).worker for _ in range(200)]
    # Levelled at 250 viewers on 400 places: 62.5 %.
    assert burst.count("a") in (62, 63)
    assert burst.count("b") in (125, 126)
    assert burst.count("c") in (12, 13)


def test_a_burst_fills_every_worker_before_it_asks_more_of_any() -> None:
    router = Router()
    workers = [worker("a", capacity=3), worker("b", capacity=2, viewers=1)]
    burst = [router.assign(10.0, workers).worker for _ in range(4)]
    assert sorted(burst) == ["a", "a", "a", "b"]
    # Beyond that the workers judge, because some of those viewers may have left again.
    assert router.assign(10.0, workers).worker == "a"


def test_a_renewal_replaces_what_was_counted_here() -> None:
    router = Router()
    router.joined(router.assign(10.0, [worker("a", age=0.5), worker("b", age=0.5, viewers=1)]), 10.1)
    # a is at one viewer by our count, b by its lease: a again by its id.
    stale = router.assign(10.2, [worker("a", age=0.7), worker("b", age=0.7, viewers=1)])
    assert stale.worker == "a"
    router.withdraw(stale)
    # Renewed at 10.15, after the join at 10.1: the lease's own figure counts alone.
    again = [router.assign(10.3, [worker("a", age=0.15, viewers=1), worker("b", age=0.8, viewers=2)]) for _ in range(2)]
    assert [assignment.worker for assignment in again] == ["a", "a"]


def test_viewers_on_their_way_count_through_renewals() -> None:
    router = Router()
    assert router.assign(10.0, [worker("a"), worker("b")]).worker == "a"
    assert router.assign(11.0, [worker("a", age=0.0), worker("b", age=0.0)]).worker == "b"


def test_withdrawn_viewers_weigh_nothing() -> None:
    router = Router()
    router.withdraw(router.assign(10.0, [worker("a"), worker("b")]))
    assert router.assign(10.0, [worker("a"), worker("b")]).worker == "a"


def test_a_worker_that_refused_is_avoided_until_it_renews() -> None:
    router = Router()
    router.refused(router.assign(10.0, [worker("a"), worker("b", viewers=90)]), 10.0)
    assert router.assign(10.1, [worker("a", age=0.5), worker("b", viewers=90)]).worker == "b"
    assert router.assign(10.6, [worker("a", age=0.5), worker("b", viewers=90)]).worker == "a"


def test_a_worker_that_was_tried_is_not_tried_again() -> None:
    router = Router()
    with pytest.raises(LookupError):
        router.assign(10.0, [worker("a")], tried=frozenset({"a"}))


def test_a_worker_that_vanished_leaves_nothing_behind() -> None:
    router = Router()
    router.joined(router.assign(10.0, [worker("a")]), 10.0)
    assert router.assign(10.1, [worker("c")]).worker == "c"
    # The lease is older than that join, and still the join is forgotten with the worker's absence.
    assert router.assign(10.2, [worker("a", age=0.5), worker("b", age=0.5)]).worker == "a"


def test_any_history_balances() -> None:
    """A worker is never given a viewer while another one is emptier by its true count, whatever failed before."""
    chance = random.Random(1)
    router = Router()
    true = {"a": 0, "b": 0, "c": 0}
    leases = dict(true)
    renewed = dict.fromkeys(true, 0.0)
    now = 0.0
    for _ in range(2000):
        now += chance.uniform(0.0, 0.01)
        for name, viewers in true.items():
            if now - renewed[name] > 1.0:
                renewed[name], leases[name] = now, viewers
        workers = [worker(name, leases[name], 1000, age=now - renewed[name]) for name in true]
        assignment = router.assign(now, workers)
        assert true[assignment.worker] == min(true.values())
        if chance.random() < 0.2:
            router.withdraw(assignment)
        else:
            now += 1e-6
            true[assignment.worker] += 1
            router.joined(assignment, now)


def test_recent_streams_are_awaited_for_a_while() -> None:
    recent = RecentStreams(0.0, RoutingSettings(remembered=60.0, names=3))
    recent.note(["a", "b"], 10.0)
    recent.note(["b"], 50.0)
    assert recent.awaited("a", 70.0)
    assert not recent.awaited("a", 70.1)
    assert recent.awaited("b", 70.1)
    assert not recent.awaited("never", 11.0)
    recent.note(["c", "d", "e"], 60.0)
    assert not recent.awaited("b", 60.0)


def test_a_young_gateway_awaits_the_first_stream_whatever_its_name() -> None:
    recent = RecentStreams(100.0, RoutingSettings(settling=30.0))
    recent.note([], 100.0)
    assert recent.awaited("any", 129.9)
    assert not recent.awaited("any", 130.0)
    recent.note(["main"], 110.0)
    assert not recent.awaited("any", 110.0)
