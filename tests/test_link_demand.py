"""What goes over the frame link: the frames that workers demand, and what they ask for."""

from __future__ import annotations

import pytest

from broadcaster.link import ClientLimits, RungDemand, WireLimits
from broadcaster.link.server import aggregate
from broadcaster.link.wire import Message, encode
from broadcaster.stream import EncodedFrame
from tests.link_ends import (
    DESCRIPTION,
    OTHER_LADDER,
    WATCHED,
    broadcasting,
    working,
)
from tests.patience import PATIENCE, until


async def test_frames_of_demanded_rungs_arrive_from_a_keyframe_on() -> None:
    async with broadcasting() as server, working(*server.addresses) as worker:
        assert await worker.ready(PATIENCE) == DESCRIPTION
        assert worker.up
        worker.demand({1: WATCHED})
        await until(lambda: server.keyframes == [1])
        assert server.heard == [{0: RungDemand(0), 1: WATCHED}]
        server.send(1)
        server.send(0, keyframe=True)
        sent = [server.send(1, keyframe=True, size=300_000), server.send(1), server.send(1)]
        await until(lambda: len(worker.frames) == 3)
        assert worker.frames == sent
        statistics = server.statistics()
        assert (statistics.connections, statistics.published, statistics.sent) == (1, 5, 3)
        assert statistics.dropped == 1


async def test_a_frame_is_encoded_once_for_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    from broadcaster.link import server as module

    calls = 0

    def counting(message: Message, limits: WireLimits) -> bytes:
        nonlocal calls
        calls += isinstance(message, EncodedFrame)
        return encode(message, limits)

    monkeypatch.setattr(module, "encode", counting)
    async with broadcasting() as server, working(*server.addresses) as one, working(*server.addresses) as two:
        for worker in (one, two):
            await worker.ready(PATIENCE)
            worker.demand({0: WATCHED})
        await until(lambda: server.demands[0].viewers == 2)
        server.send(0, keyframe=True)
        await until(lambda: len(one.frames) == len(two.frames) == 1)
        assert calls == 1


async def test_demand_adds_up_and_shrinks_when_a_worker_leaves() -> None:
    async with broadcasting() as server, working(*server.addresses) as one:
        await one.ready(PATIENCE)
        one.demand({0: RungDemand(1, {42: 1})})
        await until(lambda: server.demands[0] == RungDemand(1, {42: 1}))
        async with working(*server.addresses) as two:
            await two.ready(PATIENCE)
            two.demand({0: RungDemand(2, {42: 1, 7: 1}), 1: RungDemand(1)})
            await until(lambda: server.demands == {0: RungDemand(3, {7: 1, 42: 2}), 1: RungDemand(1)})
        await until(lambda: server.demands == {0: RungDemand(1, {42: 1}), 1: RungDemand(0)})
        one.demand({})
        await until(lambda: server.demands == {0: RungDemand(0), 1: RungDemand(0)})
        assert server.heard[-1] == server.demands
    assert len(server.heard) == 4


def test_audiences_add_up_over_workers() -> None:
    alone = {0: RungDemand(1, {5: 1})}
    assert aggregate([alone], 1) == {0: RungDemand(1, {5: 1})}
    assert aggregate([alone, {0: RungDemand(0, {9: 4})}], 1) == {0: RungDemand(1, {5: 1})}
    assert aggregate([alone, {0: RungDemand(3, {5: 1, 6: 1})}], 2) == {0: RungDemand(4, {5: 2, 6: 1}), 1: RungDemand(0)}
    assert aggregate([{3: RungDemand(1, {5: 1})}], 1) == {0: RungDemand(0)}


async def test_numbers_of_viewers_that_change_fast_are_told_once() -> None:
    async with broadcasting() as server, working(*server.addresses) as worker:
        await worker.ready(PATIENCE)
        for viewers in range(1, 6):
            worker.demand({0: RungDemand(viewers)}, 2)
        await until(lambda: server.demands[0] == RungDemand(5))
        assert [told[0].viewers for told in server.heard] == [1, 5]
        worker.demand({0: RungDemand(5)}, 3)
        await until(lambda: server.listeners == 3)


async def test_a_change_of_who_gets_anything_does_not_wait() -> None:
    patient = ClientLimits(demand_pause=3600.0)
    async with broadcasting() as server, working(*server.addresses, limits=patient) as worker:
        await worker.ready(PATIENCE)
        worker.demand({0: WATCHED})
        await until(lambda: server.demands[0] == WATCHED)
        worker.demand({0: RungDemand(2)})
        worker.demand({0: RungDemand(2), 1: WATCHED})
        await until(lambda: server.demands == {0: RungDemand(2), 1: WATCHED})
        worker.demand({0: RungDemand(3), 1: WATCHED})
        worker.demand({0: RungDemand(3), 1: WATCHED}, 1)
        await until(lambda: (server.demands[0].viewers, server.listeners) == (3, 1))
        worker.demand({0: RungDemand(4), 1: WATCHED})
        worker.demand({0: RungDemand(4), 1: WATCHED})
        worker.demand({1: WATCHED})
        await until(lambda: server.demands[0].viewers == 0)


async def test_a_rung_that_a_worker_begins_to_demand_later_is_as_urgent_as_it_says() -> None:
    async with broadcasting() as server, working(*server.addresses) as worker:
        await worker.ready(PATIENCE)
        worker.demand({1: WATCHED})
        await until(lambda: server.keyframes == [1])
        worker.demand({0: WATCHED, 1: WATCHED})
        await until(lambda: server.patient == [0])
        worker.request_keyframe(0, patient=True)
        await until(lambda: server.patient == [0, 0])
        worker.demand({1: WATCHED})
        worker.request_keyframe(0)
        worker.request_keyframe(0, patient=True)
        worker.demand({0: WATCHED, 1: WATCHED})
        await until(lambda: server.keyframes == [1, 0])
        assert server.patient == [0, 0]


async def test_a_worker_joins_a_rung_that_others_watch_without_a_new_keyframe() -> None:
    async with broadcasting() as server, working(*server.addresses) as one, working(*server.addresses) as two:
        for worker in (one, two):
            await worker.ready(PATIENCE)
        two.demand({1: WATCHED})
        one.demand({0: WATCHED})
        await until(lambda: server.demands == {0: WATCHED, 1: WATCHED})
        server.keyframes.clear()
        sent = [server.send(0, keyframe=True), server.send(0)]
        two.request_keyframe(0)
        two.demand({0: WATCHED, 1: WATCHED})
        await until(lambda: len(two.frames) == 2)
        sent.append(server.send(0))
        await until(lambda: len(two.frames) == 3)
        assert [frame.index for frame in two.frames] == [frame.index for frame in sent]
        newest = sent[1].timestamp
        assert [frame.timestamp for frame in two.frames] == [newest - 1, newest, sent[2].timestamp]
        assert server.keyframes == server.patient == []


async def test_what_nobody_has_watched_for_a_while_is_no_start() -> None:
    async with broadcasting() as server, working(*server.addresses) as worker:
        await worker.ready(PATIENCE)
        worker.demand({0: WATCHED, 1: WATCHED})
        await until(lambda: server.demands[0] == WATCHED)
        server.send(0, keyframe=True)
        await until(lambda: len(worker.frames) == 1)
        worker.demand({1: WATCHED})
        worker.demand({0: WATCHED, 1: WATCHED})
        await until(lambda: server.patient == [0])
        assert len(worker.frames) == 1


async def test_keyframe_requests_arrive_unless_the_rung_does_not_exist() -> None:
    async with broadcasting() as server, working(*server.addresses) as worker:
        worker.request_keyframe(0)
        await worker.ready(PATIENCE)
        worker.demand({1: WATCHED, 9: WATCHED})
        await until(lambda: server.keyframes == [1])
        worker.request_keyframe(9)
        worker.request_keyframe(1)
        worker.request_keyframe(1, patient=True)
        await until(lambda: server.patient == [1])
        assert server.keyframes == [1, 1]


async def test_a_changed_ladder_is_described_and_starts_at_keyframes() -> None:
    async with broadcasting() as server, working(*server.addresses) as worker:
        await worker.ready(PATIENCE)
        worker.demand({0: WATCHED, 1: WATCHED})
        await until(lambda: server.demands[1].viewers == 1)
        server.send(0, keyframe=True)
        server.describe(OTHER_LADDER)
        server.send(1, keyframe=True)
        server.send(0)
        last = server.send(0, keyframe=True)
        await until(lambda: len(worker.frames) == 2)
        assert worker.frames[1] == last
        assert worker.descriptions == [DESCRIPTION, OTHER_LADDER]
        assert worker.description == OTHER_LADDER
        assert server.heard[-1] == {0: WATCHED}
