"""The bus on a real redis-server, through outages: events, calls, sessions, pictures."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from broadcaster.bus import Bus, BusSettings
from broadcaster.bus.messages import (
    Connected,
    Event,
    LeaveParams,
    LeaveResult,
    Left,
    Stats,
    ViewersParams,
    ViewersResult,
    decode,
    key,
)
from broadcaster.errors import (
    BeamcastError,
    BusUnavailableError,
    CallTimeoutError,
    CallUnheardError,
    ConfigurationError,
    MessageError,
    OverloadedError,
    SessionNotFoundError,
)
from tests.patience import until
from tests.quick_bus import QUICK, SESSION, STATS
from tests.redis_server import RedisServer


def _with(**changes: Any) -> BusSettings:
    return dataclasses.replace(QUICK, **changes)


@pytest_asyncio.fixture
async def caller(redis_server: RedisServer) -> AsyncIterator[Bus]:
    bus = Bus(redis_server.url, "gateway-ab12", settings=QUICK)
    await bus.start()
    yield bus
    await bus.close()


async def kept(redis: Redis, name: str) -> list[Event]:
    entries: Any = await redis.xrange(name)
    return [decode(fields[b"event"], Event) for _, fields in entries]


# --- starting ---


async def test_without_redis_one_clear_sentence() -> None:
    server = RedisServer()
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(server.stop)
    bus = Bus(server.url.replace("redis://", "redis://:secret@"), "worker-1", settings=QUICK)
    with pytest.raises(
        BusUnavailableError, match=f"Redis at redis://127.0.0.1:{server.port}/0 does not answer"
    ) as caught:
        await bus.start()
    assert "secret" not in caught.value.detail
    assert "\n" not in caught.value.detail


async def test_redis_that_hangs_is_no_redis(redis_server: RedisServer) -> None:
    redis_server.pause()
    try:
        with pytest.raises(BusUnavailableError, match="does not answer"):
            await Bus(redis_server.url, "worker-1", settings=QUICK).start()
    finally:
        redis_server.resume()


async def test_wrong_password_is_told(redis_server: RedisServer, redis: Redis) -> None:
    await redis.config_set("requirepass", "right")
    with pytest.raises(BusUnavailableError, match="refuses us"):
        await Bus(redis_server.url.replace("redis://", "redis://:wrong@"), "worker-1", settings=QUICK).start()


def test_url_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="Redis URL"):
        Bus("http://127.0.0.1/", "worker-1")


# --- events ---


async def test_events_are_published_and_kept(bus: Bus, redis: Redis) -> None:
    pubsub = redis.pubsub()
    await pubsub.psubscribe(key("*"))
    assert (await pubsub.get_message(timeout=1.0) or {})["type"] == "psubscribe"
    bus.publish("connected", Connected(elapsed=0.2), stream="main", viewer="v-1")
    bus.publish("stats", STATS, stream="main", viewer="v-1")
    bus.publish("connected", Connected(elapsed=0.3), stream=None)
    heard: list[tuple[bytes, Event]] = []
    async with asyncio.timeout(5.0):
        while len(heard) < 3:
            if message := await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0):
                heard.append((message["channel"], decode(message["data"], Event)))
    await pubsub.aclose()  # type: ignore[no-untyped-call]
    assert [channel for channel, _ in heard] == [
        b"beamcast:v1:events:main", b"beamcast:v1:stats:main", b"beamcast:v1:events:_cluster",
    ]  # fmt: skip
    events = [event for _, event in heard]
    assert [event.seq for event in events] == [1, 2, 3]
    assert len({event.id for event in events}) == 3
    assert events[0].data == {"elapsed": 0.2}
    assert (events[0].source, events[0].stream, events[0].viewer) == ("worker-1", "main", "v-1")
    assert abs(events[0].ts - time.time()) < 10
    assert msgspec.convert(events[1].data, Stats) == STATS
    assert await kept(redis, "beamcast:v1:events:main") == [events[0]]
    assert await kept(redis, "beamcast:v1:stats:main") == [events[1]]
    assert 0 < await redis.ttl("beamcast:v1:stats:main") <= 86_400


async def test_many_batches_all_arrive_in_order(bus: Bus, redis: Redis) -> None:
    for _ in range(20):
        for _ in range(100):
            bus.publish("stats", STATS, stream="main")
        await asyncio.sleep(0.005)
    await until(lambda: bus.counters["published"] == 2000)
    assert [event.seq for event in await kept(redis, "beamcast:v1:stats:main")] == list(range(1, 2001))
    assert bus.counters["dropped"] == 0


async def test_streams_are_capped(redis_server: RedisServer, redis: Redis) -> None:
    small = Bus(redis_server.url, "worker-1", settings=_with(kept=100))
    await small.start()
    for _ in range(1000):
        small.publish("stats", STATS, stream="main")
    await small.close()
    assert 100 <= await redis.xlen("beamcast:v1:stats:main") < 400


async def test_the_queue_drops_the_oldest_and_counts(redis_server: RedisServer, redis: Redis) -> None:
    bus = Bus(redis_server.url, "worker-1", settings=_with(queue=10))
    await bus.start()
    for number in range(25):
        bus.publish("left", Left(reason="closed", duration=float(number)), stream="main")
    await bus.close()
    assert bus.counters["dropped"] == 15
    assert [event.seq for event in await kept(redis, "beamcast:v1:events:main")] == list(range(16, 26))


async def test_events_wait_for_the_end_of_an_outage(bus: Bus, redis_server: RedisServer, redis: Redis) -> None:
    bus.publish("left", Left(reason="closed", duration=0.0), stream="main")
    await until(lambda: bus.counters["published"] == 1)
    await asyncio.to_thread(redis_server.stop)
    await until(lambda: not bus.connected)
    for _ in range(3):
        bus.publish("left", Left(reason="closed", duration=1.0), stream="main")
    await asyncio.to_thread(redis_server.start)
    await until(lambda: bus.counters["published"] == 4 and bus.connected)
    assert [event.seq for event in await kept(redis, "beamcast:v1:events:main")] == [2, 3, 4]
    assert bus.counters["dropped"] == 0


async def test_a_redis_that_refuses_writes_stops_nothing(
    bus: Bus, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.set("beamcast:v1:events:main", "not a stream")
    bus.publish("left", Left(reason="closed", duration=0.0), stream="main")
    bus.publish("left", Left(reason="closed", duration=0.0), stream="other")
    await until(lambda: bus.counters["published"] == 2)
    assert "WRONGTYPE" in caplog.text
    assert len(await kept(redis, "beamcast:v1:events:other")) == 1


async def test_closing_during_an_outage_ends(bus: Bus, redis_server: RedisServer) -> None:
    redis_server.pause()
    bus.publish("left", Left(reason="closed", duration=0.0), stream="main")
    try:
        async with asyncio.timeout(5.0):
            await bus.close()
    finally:
        redis_server.resume()


# --- calls ---


async def test_a_call_is_answered(bus: Bus, caller: Bus) -> None:
    async def leave(params: dict[str, Any]) -> LeaveResult:
        return LeaveResult(viewer="v-" + params["secret"])

    await bus.serve("worker-1", {"leave": leave})
    results = await asyncio.gather(
        *(
            caller.call("worker-1", "leave", LeaveParams(secret=str(n)), timeout=5.0, result=LeaveResult)
            for n in range(50)
        )
    )
    assert [result.viewer for result in results] == [f"v-{n}" for n in range(50)]


async def test_an_error_travels_as_itself(bus: Bus, caller: Bus) -> None:
    async def leave(params: dict[str, Any]) -> LeaveResult:
        raise SessionNotFoundError("no session of that id")

    await bus.serve("worker-1", {"leave": leave})
    with pytest.raises(SessionNotFoundError, match="no session of that id"):
        await caller.call("worker-1", "leave", LeaveParams(secret="x"), timeout=5.0, result=LeaveResult)


async def test_a_bug_in_a_handler_is_told_without_its_secrets(
    bus: Bus, caller: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave(params: dict[str, Any]) -> LeaveResult:
        raise KeyError("inner detail")

    await bus.serve("worker-1", {"leave": leave})
    with pytest.raises(BeamcastError, match="worker-1 failed at 'leave'") as caught:
        await caller.call("worker-1", "leave", LeaveParams(secret="x"), timeout=5.0, result=LeaveResult)
    assert "inner detail" not in caught.value.detail
    assert "inner detail" in caplog.text


async def test_an_unknown_method_and_an_answer_of_the_wrong_shape(bus: Bus, caller: Bus) -> None:
    async def leave(params: dict[str, Any]) -> LeaveResult:
        return LeaveResult(viewer="v-1")

    await bus.serve("worker-1", {"leave": leave})
    with pytest.raises(MessageError, match="no method 'viewers'"):
        await caller.call("worker-1", "viewers", ViewersParams(), timeout=5.0, result=ViewersResult)
    with pytest.raises(MessageError, match="something else than ViewersResult"):
        await caller.call("worker-1", "leave", LeaveParams(secret="x"), timeout=5.0, result=ViewersResult)


async def test_a_late_handler_is_cancelled_and_its_caller_told(bus: Bus, caller: Bus) -> None:
    cancelled = asyncio.Event()

    async def leave(params: dict[str, Any]) -> LeaveResult:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    await bus.serve("worker-1", {"leave": leave})
    with pytest.raises(CallTimeoutError, match=r"did not answer 'leave' within 0\.2 s"):
        await caller.call("worker-1", "leave", LeaveParams(secret="x"), timeout=0.2, result=LeaveResult)
    await asyncio.wait_for(cancelled.wait(), 2.0)


async def test_a_process_with_too_many_calls_says_so(redis_server: RedisServer, caller: Bus) -> None:
    async def leave(params: dict[str, Any]) -> LeaveResult:
        await busy.wait()
        return LeaveResult(viewer="v-1")

    busy = asyncio.Event()
    bus = Bus(redis_server.url, "worker-1", settings=_with(concurrent_calls=2))
    await bus.start()
    await bus.serve("worker-1", {"leave": leave})
    calls = [
        asyncio.create_task(caller.call("worker-1", "leave", LeaveParams(secret="x"), timeout=5.0, result=LeaveResult))
        for _ in range(3)
    ]
    done, _ = await asyncio.wait(calls, timeout=5.0, return_when=asyncio.FIRST_COMPLETED)
    (refused,) = done
    assert isinstance(refused.exception(), OverloadedError)
    busy.set()
    results = await asyncio.gather(*(call for call in calls if call is not refused))
    assert [result.viewer for result in results] == ["v-1", "v-1"]
    await bus.close()


async def test_a_call_that_nobody_hears_fails_at_once(caller: Bus) -> None:
    started = time.monotonic()
    with pytest.raises(CallUnheardError, match="nobody answers as 'worker-9'"):
        await caller.call("worker-9", "leave", LeaveParams(secret="x"), timeout=30.0, result=LeaveResult)
    assert time.monotonic() - started < 5.0


async def test_calls_through_an_outage(bus: Bus, caller: Bus, redis_server: RedisServer) -> None:
    asked = asyncio.Event()

    async def leave(params: dict[str, Any]) -> LeaveResult:
        asked.set()
        if params["secret"] == "slow":
            await asyncio.sleep(30)
        return LeaveResult(viewer="v-1")

    await bus.serve("worker-1", {"leave": leave})
    waiting = asyncio.create_task(
        caller.call("worker-1", "leave", LeaveParams(secret="slow"), timeout=30.0, result=LeaveResult)
    )
    await asyncio.wait_for(asked.wait(), 5.0)
    await asyncio.to_thread(redis_server.stop)
    with pytest.raises(BusUnavailableError, match="was lost"):
        await asyncio.wait_for(waiting, 5.0)
    await until(lambda: not bus.connected and not caller.connected)
    with pytest.raises(BusUnavailableError, match="does not answer"):
        await caller.call("worker-1", "leave", LeaveParams(secret="x"), timeout=30.0, result=LeaveResult)
    await asyncio.to_thread(redis_server.start)
    await until(lambda: bus.connected and caller.connected)
    async with asyncio.timeout(5.0):
        while True:
            try:
                result = await caller.call(
                    "worker-1", "leave", LeaveParams(secret="x"), timeout=2.0, result=LeaveResult
                )
                break
            except CallUnheardError:
                await asyncio.sleep(0.02)
    assert result.viewer == "v-1"


async def test_a_half_open_connection_is_noticed_and_rebuilt(bus: Bus, redis_server: RedisServer) -> None:
    redis_server.pause()
    try:
        await until(lambda: not bus.connected)
    finally:
        redis_server.resume()
    await until(lambda: bus.connected)


async def test_a_quiet_subscription_stays(bus: Bus, redis: Redis) -> None:
    before = {client["id"] for client in await redis.client_list()}
    await asyncio.sleep(3 * QUICK.silence)
    assert bus.connected
    assert before <= {client["id"] for client in await redis.client_list()}


# --- sessions and pictures ---


async def test_a_session_lives_as_long_as_it_is_refreshed(bus: Bus, caller: Bus, redis: Redis) -> None:
    await bus.put_session("s3cret", SESSION)
    assert await caller.get_session("s3cret") == SESSION
    await redis.pexpire(key("session", "s3cret"), 200)
    assert await bus.refresh_sessions(["s3cret", "unknown"])
    assert await redis.pttl(key("session", "s3cret")) > 500
    assert await caller.get_session("unknown") is None
    await caller.delete_session("s3cret")
    assert await caller.get_session("s3cret") == SESSION, "only the owner deletes"
    await bus.delete_session("s3cret")
    assert await caller.get_session("s3cret") is None


async def test_an_outage_that_wipes_redis_does_not_lose_sessions(bus: Bus, redis_server: RedisServer) -> None:
    await bus.put_session("s3cret", SESSION)
    await asyncio.to_thread(redis_server.stop)
    assert not await bus.refresh_sessions(["s3cret"])
    with pytest.raises(BusUnavailableError):
        await bus.get_session("s3cret")
    await bus.put_picture("main", b"lost")
    await asyncio.to_thread(redis_server.start)
    assert await bus.get_session("s3cret") is None
    assert await bus.refresh_sessions(["s3cret"])
    assert await bus.get_session("s3cret") == SESSION


async def test_pictures_expire(bus: Bus, redis: Redis) -> None:
    assert await bus.get_picture("main") is None
    await bus.put_picture("main", b"\xff\xd8\xff")
    assert await bus.get_picture("main") == b"\xff\xd8\xff"
    assert 9_000 < await redis.pttl(key("picture", "main")) <= 10_000


# --- strangers' bytes ---

HOSTILE = [b"", b"\xc1", b"\x80", b"not msgpack", b"\xff" * 1000, b"\x91" * 100_000, msgspec.msgpack.encode([1, 2])]


@pytest.mark.parametrize("payload", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_messages_are_counted_and_ignored(bus: Bus, caller: Bus, redis: Redis, payload: bytes) -> None:
    async def leave(params: dict[str, Any]) -> LeaveResult:
        return LeaveResult(viewer="v-1")

    await bus.serve("worker-1", {"leave": leave})
    (reply_channel,) = list(await redis.pubsub_channels("*reply:worker-1:*"))
    await redis.publish(key("rpc", "worker-1"), payload)
    await redis.publish(reply_channel, payload)
    await until(lambda: bus.counters["rejected"] == 2)
    await redis.set(key("session", "s3cret"), payload)
    with pytest.raises(MessageError):
        await bus.get_session("s3cret")
    result = await caller.call("worker-1", "leave", LeaveParams(secret="x"), timeout=5.0, result=LeaveResult)
    assert result.viewer == "v-1"


async def test_a_call_cannot_make_us_publish_anywhere(bus: Bus, redis: Redis) -> None:
    await bus.serve("worker-1", {})
    call = {"id": "1", "method": "leave", "params": {}, "reply_to": "beamcast:v1:events:main", "deadline": 1.0}
    for changes in ({}, {"reply_to": key("reply", "x"), "deadline": -1.0}, {"v": 2, "reply_to": key("reply", "x")}):
        await redis.publish(key("rpc", "worker-1"), msgspec.msgpack.encode({**call, **changes}))
    await until(lambda: bus.counters["rejected"] == 3)


async def test_a_rush_of_commands_waits_its_turn(bus: Bus, redis: Redis) -> None:
    secrets = [f"s3cret-{number}" for number in range(300)]
    await asyncio.gather(*(bus.put_session(secret, SESSION) for secret in secrets))
    assert len(await redis.keys(key("session", "*"))) == 300
    await asyncio.gather(*(bus.delete_session(secret) for secret in secrets[:100]))
    assert len(await redis.keys(key("session", "*"))) == 200
    await redis.set(key("session", "foreign"), b"")
    await bus.delete_session("foreign", *secrets)
    assert await redis.keys(key("session", "*")) == [key("session", "foreign").encode()]
