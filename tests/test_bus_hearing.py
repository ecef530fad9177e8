"""What a process hears of a stream, as it happens and as Redis has kept it."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from broadcaster.bus import Bus, Subscription
from broadcaster.bus.messages import Connected, Event, Left, decode, key
from broadcaster.errors import BusUnavailableError
from tests.patience import until
from tests.quick_bus import STATS
from tests.redis_server import RedisServer


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Event]] = []

    def __call__(self, channel: str, payload: bytes) -> None:
        self.heard.append((channel, decode(payload, Event)))

    @property
    def seqs(self) -> list[int]:
        return [event.seq for _, event in self.heard]


async def listeners(redis: Redis, stream: str) -> int:
    ((_, count),) = await redis.pubsub_numsub(key("events", stream))
    return int(count)


async def test_events_and_statistics_of_one_stream_are_heard(bus: Bus) -> None:
    listener = Listener()
    subscription = await bus.hear("main", listener)
    assert subscription.connected
    bus.publish("connected", Connected(elapsed=0.2), stream="other", viewer="v-0")
    bus.publish("connected", Connected(elapsed=0.2), stream="main", viewer="v-1")
    bus.publish("stats", STATS, stream="main", viewer="v-1")
    await until(lambda: len(listener.heard) == 2)
    assert [channel for channel, _ in listener.heard] == [key("events", "main"), key("stats", "main")]
    assert listener.seqs == [2, 3]
    await subscription.close()


async def test_a_closed_subscription_hears_no_more(bus: Bus, redis: Redis) -> None:
    closed, open_ = Listener(), Listener()
    subscription, other = await bus.hear("main", closed), await bus.hear("main", open_)
    await subscription.close()
    assert not subscription.connected
    bus.publish("connected", Connected(elapsed=0.2), stream="main")
    await until(lambda: open_.seqs == [1])
    assert closed.heard == []
    await other.close()
    async with asyncio.timeout(5):
        while await listeners(redis, "main"):
            await asyncio.sleep(0.01)


async def test_hearing_goes_on_after_an_outage(bus: Bus, redis_server: RedisServer) -> None:
    listener = Listener()
    subscription = await bus.hear("main", listener)
    await asyncio.to_thread(redis_server.stop)
    await until(lambda: not subscription.connected)
    with pytest.raises(BusUnavailableError):
        await bus.hear("main", listener)
    with pytest.raises(BusUnavailableError):
        await bus.past("main", 5)
    await asyncio.to_thread(redis_server.start)
    await until(lambda: subscription.connected)
    async with asyncio.timeout(5):
        while not listener.heard:
            bus.publish("connected", Connected(elapsed=0.2), stream="main")
            await asyncio.sleep(0.05)
    await subscription.close()


async def test_a_listener_that_fails_hears_what_comes_next(
    bus: Bus,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[bytes] = []

    def listener(channel: str, payload: bytes) -> None:
        seen.append(payload)
        if len(seen) == 1:
            raise ZeroDivisionError

    subscription = await bus.hear("main", listener)
    for _ in range(2):
        bus.publish("connected", Connected(elapsed=0.2), stream="main")
    await until(lambda: len(seen) == 2)
    assert "could not be handled" in caplog.text
    await subscription.close()


async def test_a_subscription_that_is_given_up_before_it_stands_leaves_nothing(
    bus: Bus,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = asyncio.Event()

    async def unconfirmed(subscription: Subscription) -> None:
        waits.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Subscription, "_all_confirmed", unconfirmed)
    hearing = asyncio.create_task(bus.hear("main", Listener()))
    async with asyncio.timeout(5):
        await waits.wait()
        while not await listeners(redis, "main"):
            await asyncio.sleep(0.01)
        hearing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hearing
        while await listeners(redis, "main"):
            await asyncio.sleep(0.01)


async def test_the_past_is_what_came_last_in_order(bus: Bus, redis: Redis) -> None:
    assert await bus.past("main", 5) == []
    for number in range(3):
        bus.publish("left", Left(reason="closed", duration=float(number)), stream="main", viewer="v-1")
        bus.publish("stats", STATS, stream="main", viewer="v-1")
    bus.publish("left", Left(reason="closed", duration=9.0), stream="other")
    await until(lambda: bus.counters["published"] == 7)
    assert [event.seq for event in await bus.past("main", 2, stats=True)] == [3, 4, 5, 6]
    await redis.xadd(key("events", "main"), {"event": b"no event of ours"})
    await redis.xadd(key("events", "main"), {"something": b"else"})
    assert [event.seq for event in await bus.past("main", 10)] == [1, 3, 5]
    assert [event.seq for event in await bus.past("main", 10, stats=True)] == [1, 2, 3, 4, 5, 6]
