"""Leases and the registry on a real redis-server, through crashes and outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
from redis.asyncio import Redis

from broadcaster.bus import Bus, BusSettings, Registry, new_epoch
from broadcaster.bus.messages import GatewayLease, RungInfo, StreamLease, WorkerLease, key
from broadcaster.errors import BusUnavailableError, ConfigurationError
from tests.patience import eventually, until
from tests.quick_bus import QUICK
from tests.redis_server import RedisServer


def worker(name: str = "worker-1", *, epoch: int, viewers: int = 0) -> WorkerLease:
    return WorkerLease(
        id=name, epoch=epoch, pid=1, host="host", capacity=100, viewers=viewers, streams={}, state="ready",
        udp_port=40000, since=0.0,
    )  # fmt: skip


@asynccontextmanager
async def leased(bus: Bus, make: Callable[[], WorkerLease], name: str = "worker-1") -> AsyncIterator[None]:
    lease = bus.lease("worker", name, make)
    await lease.acquire()
    try:
        yield
    finally:
        await lease.release()


async def test_a_lease_is_listed_renewed_and_released(bus: Bus, redis: Redis) -> None:
    epoch, viewers = new_epoch(), 0
    lease = bus.lease("worker", "worker-1", lambda: worker(epoch=epoch, viewers=viewers))
    await lease.acquire()
    assert lease.held
    (living,) = await bus.workers()
    assert living.lease == worker(epoch=epoch)
    assert 0.0 <= living.age < QUICK.lease_ttl
    viewers = 3
    await asyncio.sleep(2 * QUICK.lease_ttl)
    (living,) = await bus.workers()
    assert living.lease.viewers == 3
    assert living.age < QUICK.lease_ttl
    await lease.release()
    assert not lease.held
    assert await bus.workers() == []
    assert await redis.keys("*") == []


async def test_every_kind_is_listed(bus: Bus) -> None:
    rung = RungInfo(name="720p", width=1280, height=720, fps=30.0, bitrate=2_500_000, layers=2)
    stream = StreamLease(
        name="main", epoch=1, pid=1, host="host", source="test", live=True, link=["127.0.0.1:5000"], fps=30.0,
        rungs=[rung], since=0.0,
    )  # fmt: skip
    gateway = GatewayLease(id="gateway-1", epoch=1, pid=1, host="host", url="http://127.0.0.1:8080", since=0.0)
    leases = [bus.lease("stream", "main", lambda: stream), bus.lease("gateway", "gateway-1", lambda: gateway)]
    for lease in leases:
        await lease.acquire()
    assert [living.lease for living in await bus.streams()] == [stream]
    assert [living.lease for living in await bus.gateways()] == [gateway]
    assert await bus.workers() == []
    for lease in leases:
        await lease.release()


async def test_renew_soon_does_not_wait_for_its_turn(redis_server: RedisServer) -> None:
    bus = Bus(redis_server.url, "worker-1", settings=BusSettings(renew_every=30.0, lease_ttl=60.0))
    await bus.start()
    viewers = 0
    lease = bus.lease("worker", "worker-1", lambda: worker(epoch=1, viewers=viewers))
    await lease.acquire()
    viewers = 7
    lease.renew_soon()

    async def shown() -> bool:
        return (await bus.workers())[0].lease.viewers == 7

    await eventually(shown)
    await lease.release()
    await bus.close()


async def test_the_name_of_a_living_process_is_refused(bus: Bus) -> None:
    async with leased(bus, lambda: worker(epoch=1)):
        with pytest.raises(ConfigurationError, match="another living worker has the name 'worker-1'"):
            await bus.lease("worker", "worker-1", lambda: worker(epoch=2)).acquire()
        assert (await bus.workers())[0].lease.epoch == 1


async def test_the_name_of_a_dead_process_is_taken_over(bus: Bus, redis: Redis) -> None:
    await redis.set(key("worker", "worker-1"), msgspec.msgpack.encode(worker(epoch=1)), px=300)
    async with leased(bus, lambda: worker(epoch=2)):
        assert (await bus.workers())[0].lease.epoch == 2


async def test_a_lease_taken_over_is_neither_overwritten_nor_deleted(bus: Bus, redis: Redis) -> None:
    taken = asyncio.Event()
    lease = bus.lease("worker", "worker-1", lambda: worker(epoch=1), on_taken=taken.set)
    await lease.acquire()
    await redis.set(key("worker", "worker-1"), msgspec.msgpack.encode(worker(epoch=2)), px=30_000)
    await asyncio.wait_for(taken.wait(), 5)
    assert not lease.held
    await lease.release()
    assert (await bus.workers())[0].lease.epoch == 2


async def test_a_lease_comes_back_after_an_outage(bus: Bus, redis_server: RedisServer) -> None:
    lease = bus.lease("worker", "worker-1", lambda: worker(epoch=1))
    await lease.acquire()
    await asyncio.to_thread(redis_server.stop)
    await until(lambda: not lease.held)
    with pytest.raises(BusUnavailableError):
        await bus.workers()
    await asyncio.to_thread(redis_server.start)
    await until(lambda: lease.held)
    assert [living.lease.epoch for living in await bus.workers()] == [1]
    await asyncio.to_thread(redis_server.stop)
    await lease.release()


async def test_a_failing_record_does_not_end_the_renewal(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    broken = False

    def make() -> WorkerLease:
        if broken:
            raise RuntimeError("a bug of the owner")
        return worker(epoch=1)

    async with leased(bus, make):
        broken = True
        await until(lambda: "a bug of the owner" in caplog.text)
        broken = False
        await asyncio.sleep(2 * QUICK.lease_ttl)
        assert len(await bus.workers()) == 1


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x80", b"\xff" * 100, msgspec.msgpack.encode({"epoch": "x"})])
async def test_records_of_strangers_are_counted_and_ignored(bus: Bus, redis: Redis, payload: bytes) -> None:
    await redis.set(key("worker", "stranger"), payload)
    await redis.rpush(key("worker", "list"), payload)
    await redis.sadd(key("workers"), "stranger", "list", b"\xff\xfe")
    registry = Registry(bus)
    async with leased(bus, lambda: worker(epoch=1)):
        await registry.refresh()
    assert list(registry.workers) == ["worker-1"]
    assert bus.counters["rejected"] == 2


# --- the registry ---


@asynccontextmanager
async def registries(bus: Bus, count: int) -> AsyncIterator[tuple[list[Registry], list[str]]]:
    lost: list[str] = []
    made = [Registry(bus, on_lost=lambda lease: lost.append(lease.id)) for _ in range(count)]
    for registry in made:
        await registry.start()
    try:
        yield made, lost
    finally:
        for registry in made:
            await registry.close()


async def die(bus: Bus, redis: Redis, name: str) -> None:
    """What Redis sees of a worker that was killed: its lease expires, its id stays."""
    await redis.set(key("worker", name), msgspec.msgpack.encode(worker(name, epoch=1)), px=400)
    await redis.sadd(key("workers"), name)


async def test_the_view_follows(bus: Bus) -> None:
    async with registries(bus, 1) as ((registry,), lost):
        assert registry.fresh
        assert registry.workers == {}
        async with leased(bus, lambda: worker(epoch=1, viewers=2)):
            await until(lambda: "worker-1" in registry.workers)
            assert registry.workers["worker-1"].lease.viewers == 2
        await until(lambda: registry.workers == {})
        await asyncio.sleep(2 * QUICK.lease_ttl)
        assert lost == [], "a released worker is not lost"


async def test_a_killed_worker_is_lost_exactly_once_for_all(bus: Bus, redis: Redis) -> None:
    async with registries(bus, 3) as (made, lost):
        await asyncio.sleep(QUICK.lease_ttl)
        for round_number in range(2):
            await redis.delete(*(await redis.keys(key("lost", "*")) or ["none"]))
            await die(bus, redis, "worker-9")
            await until(lambda: all("worker-9" in registry.workers for registry in made))
            await until(lambda wanted=round_number + 1: len(lost) == wanted)  # type: ignore[misc]
            await asyncio.sleep(4 * QUICK.refresh_every)
        assert lost == ["worker-9", "worker-9"]
        assert await redis.smembers(key("workers")) == set()


async def test_an_onlooker_leaves_the_lost_to_those_who_tell(bus: Bus, redis: Redis) -> None:
    onlooker = Registry(bus)
    await onlooker.start()
    await asyncio.sleep(QUICK.lease_ttl)
    await die(bus, redis, "worker-9")
    await until(lambda: "worker-9" in onlooker.workers)
    await until(lambda: "worker-9" not in onlooker.workers)
    await onlooker.close()
    assert await redis.smembers(key("workers")) == {b"worker-9"}


async def test_a_registry_that_died_with_its_duty_is_replaced(bus: Bus, redis: Redis) -> None:
    async with registries(bus, 1) as ((registry,), lost):
        await asyncio.sleep(QUICK.lease_ttl)
        await redis.set(key("lost", "worker-9", "1"), b"", px=1500)
        await die(bus, redis, "worker-9")
        await until(lambda: "worker-9" in registry.workers)
        await until(lambda: lost == ["worker-9"])
        assert await redis.exists(key("lost", "worker-9", "1"))


async def test_nobody_is_lost_in_an_outage(bus: Bus, redis_server: RedisServer) -> None:
    async with registries(bus, 1) as ((registry,), lost), leased(bus, lambda: worker(epoch=1)):
        await until(lambda: "worker-1" in registry.workers)
        await asyncio.sleep(QUICK.lease_ttl)
        redis_server.pause()
        try:
            await until(lambda: not registry.fresh)
            await asyncio.sleep(2 * QUICK.lease_ttl)
            assert "worker-1" in registry.workers, "the last view stays"
        finally:
            redis_server.resume()
        await until(lambda: registry.fresh and "worker-1" in registry.workers)
        await asyncio.to_thread(redis_server.stop)
        await until(lambda: not registry.fresh)
        await asyncio.to_thread(redis_server.start)
        await until(lambda: registry.fresh and "worker-1" in registry.workers)
        await asyncio.sleep(2 * QUICK.lease_ttl)
        assert lost == []
