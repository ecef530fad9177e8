"""Commands on a real redis-server: answers go to whoever asked, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.exceptions import RedisError, ResponseError

from broadcaster.bus import BusSettings
from broadcaster.bus.commands import Commands, packed
from broadcaster.bus.server import Server
from tests.redis_server import RedisServer

PATIENCE = 0.3


@pytest_asyncio.fixture
async def commands(redis_server: RedisServer) -> AsyncIterator[Commands]:
    server = Server(redis_server.url, BusSettings(command_timeout=PATIENCE))
    commands = Commands(server)
    yield commands
    await commands.close()
    await server.close()


def test_a_command_is_packed_as_redis_reads_it() -> None:
    assert packed(b"GET", b"\r\n") == b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n"


async def test_everybody_gets_the_answer_to_what_was_asked(commands: Commands) -> None:
    words = [b"%d" % number for number in range(500)]
    assert await asyncio.gather(*(commands.run(b"ECHO", word) for word in words)) == words
    assert await commands.run(b"GET", b"nothing") is None


async def test_one_connection_does_it_all(commands: Commands) -> None:
    first = await commands.run(b"CLIENT", b"ID")
    assert await asyncio.gather(*(commands.run(b"CLIENT", b"ID") for _ in range(10))) == [first] * 10


async def test_a_refusal_is_heard_by_the_one_who_is_refused(commands: Commands) -> None:
    answers = await asyncio.gather(
        commands.run(b"SET", b"name", b"text"),
        commands.run(b"INCR", b"name"),
        commands.run(b"GET", b"name"),
        return_exceptions=True,
    )
    assert isinstance(answers[1], ResponseError)
    assert (answers[0], answers[2]) == (b"OK", b"text")


async def test_who_gives_up_shifts_nobodys_answer(commands: Commands) -> None:
    await commands.run(b"PING")
    hasty = asyncio.create_task(commands.run(b"ECHO", b"one"))
    await asyncio.sleep(0)
    other = asyncio.create_task(commands.run(b"ECHO", b"two"))
    await asyncio.sleep(0)
    hasty.cancel()
    assert await other == b"two"
    assert hasty.cancelled()


async def test_a_redis_that_hangs_is_given_up_on_in_time(
    commands: Commands,
    redis_server: RedisServer,
) -> None:
    await commands.run(b"PING")
    redis_server.pause()
    try:
        since = time.monotonic()
        answers = await asyncio.gather(*(commands.run(b"PING") for _ in range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [TimeoutError] * 3
        assert PATIENCE * 0.9 < time.monotonic() - since < PATIENCE * 5
    finally:
        redis_server.resume()
    assert await commands.run(b"ECHO", b"again") == b"again"


async def test_all_who_wait_for_a_connection_wait_once(
    commands: Commands,
    redis_server: RedisServer,
) -> None:
    redis_server.pause()
    try:
        since = time.monotonic()
        answers = await asyncio.gather(*(commands.run(b"PING") for _ in range(10)), return_exceptions=True)
        assert all(isinstance(answer, OSError | RedisError) for answer in answers)
        assert time.monotonic() - since < PATIENCE * 5
    finally:
        redis_server.resume()
    assert await commands.run(b"PING") == b"PONG"


async def test_who_gives_up_on_a_connection_leaves_it_to_the_others(commands: Commands) -> None:
    hasty, patient = (asyncio.create_task(commands.run(b"ECHO", b"here")) for _ in range(2))
    await asyncio.sleep(0)
    hasty.cancel()
    assert await patient == b"here"


async def test_answers_in_time_are_no_reason_to_give_up(commands: Commands) -> None:
    first = await commands.run(b"CLIENT", b"ID")
    async with asyncio.timeout(PATIENCE * 10):
        for _ in range(8):
            assert await commands.run(b"CLIENT", b"ID") == first
            await asyncio.sleep(PATIENCE / 3)


async def test_a_connection_that_is_lost_is_made_again(commands: Commands) -> None:
    first = await commands.run(b"CLIENT", b"ID")
    blocked = asyncio.create_task(commands.run(b"BLPOP", b"never", b"0"))
    await asyncio.sleep(0)
    other = Commands(commands._server)
    await other.run(b"CLIENT", b"KILL", b"ID", b"%d" % first)
    with pytest.raises(RedisError):
        await blocked
    assert await commands.run(b"CLIENT", b"ID") != first
    await other.close()


async def test_who_waits_when_it_closes_is_told(commands: Commands) -> None:
    await commands.run(b"PING")
    blocked = asyncio.create_task(commands.run(b"BLPOP", b"never", b"0"))
    await asyncio.sleep(0)
    await commands.close()
    with pytest.raises(RedisError, match="closed"):
        await blocked
