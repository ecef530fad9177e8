"""The worker's end of the frame link: how it finds its broadcaster, and leaves one that misbehaves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broadcaster.errors import ConfigurationError, LinkError
from broadcaster.link import ClientLimits, LinkClient, RungDemand
from broadcaster.link.address import split_address
from broadcaster.link.wire import VERSION, Hello, Ping, Pong, Refusal, encode
from broadcaster.stream import EncodedFrame, StreamDescription
from tests.link_ends import (
    DESCRIPTION,
    OTHER_LADDER,
    Broadcaster,
    Worker,
    broadcasting,
    working,
)
from tests.patience import PATIENCE, until


async def test_demand_is_said_again_after_a_reconnect() -> None:
    async with broadcasting() as first:
        address = first.addresses[0]
        client = working(address)
        worker = await client.__aenter__()
        worker.demand({1: RungDemand(4)})
        await worker.ready(PATIENCE)
        await until(lambda: first.demands[1] == RungDemand(4))
    await until(lambda: worker.downs == 1)
    assert not worker.up
    async with broadcasting(OTHER_LADDER, port=split_address(address)[1]) as second:
        assert await worker.ready(PATIENCE) == OTHER_LADDER
        second.describe(DESCRIPTION)
        await until(lambda: second.demands[1] == RungDemand(4))
        await client.__aexit__(None, None, None)
    assert worker.downs == 1
    assert not worker.up


async def test_all_located_addresses_are_tried() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
        other = StreamDescription("other", 1, DESCRIPTION.rungs)
        async with (
            broadcasting(other) as wrong,
            broadcasting() as right,
            working("nonsense", dead, *wrong.addresses, *right.addresses) as worker,
        ):
            assert await worker.ready(PATIENCE) == DESCRIPTION
            await until(lambda: wrong.statistics().connections == 0)
            assert wrong.statistics().refused == 1


async def test_ready_says_why_it_failed() -> None:
    other = StreamDescription("other", 1, DESCRIPTION.rungs)
    async with broadcasting(other) as server, working(*server.addresses) as worker:
        await until(lambda: server.statistics().refused > 1)
        with pytest.raises(LinkError, match="this broadcaster has the stream other, not main"):
            await worker.ready(0.01)
    async with working() as worker:
        await asyncio.sleep(0)
        with pytest.raises(LinkError, match="no broadcaster has it on the air"):
            await worker.ready(0.05)


def listener(locate: Callable[[], Awaitable[list[str]]], **more: Any) -> LinkClient:
    """A client that keeps nothing of what it hears."""
    return LinkClient(
        "main", locate, on_description=lambda _: None, on_frame=lambda _: None, on_down=lambda: None, **more
    )


async def test_an_error_while_locating_is_a_failed_round() -> None:
    async with broadcasting() as server:
        rounds = 0

        async def locate() -> list[str]:
            nonlocal rounds
            rounds += 1
            if rounds < 3:
                raise ConfigurationError("the registry is away")
            return server.addresses

        client = listener(locate, limits=ClientLimits(retry_least=0.01))
        client.start()
        await client.ready(PATIENCE)
        assert rounds == 3
        await client.close()


async def test_a_fault_while_locating_is_logged_and_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async with broadcasting() as server:
        faults = [KeyError("nobody expected this")]

        async def locate() -> list[str]:
            if faults:
                raise faults.pop()
            return server.addresses

        client = listener(locate)
        client.start()
        await client.ready(PATIENCE)
        await client.close()
    assert "nobody expected this" in caplog.text


async def test_close_ends_even_when_locating_loses_a_cancellation() -> None:
    locating = asyncio.Event()
    lost = 0

    async def locate() -> list[str]:
        nonlocal lost
        locating.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            lost += 1
            if lost > 1:
                raise
        return []

    client = listener(locate, limits=ClientLimits(retry_least=0.0))
    client.start()
    async with asyncio.timeout(PATIENCE):
        await locating.wait()
        await client.close()
    assert lost == 2


async def test_the_pause_between_rounds_doubles_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await real(0)

    monkeypatch.setattr("broadcaster.link.client.asyncio.sleep", sleep)

    async def nowhere() -> list[str]:
        return []

    client = listener(nowhere, jitter=lambda: 1.0)
    client.start()
    async with asyncio.timeout(PATIENCE):
        while len(pauses) < 7:
            await real(0)
    await client.close()
    assert pauses[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


async def test_a_broadcaster_that_falls_silent_is_left() -> None:
    limits = ClientLimits(silence=0.1, retry_least=0.01, retry_most=0.05)
    async with broadcasting() as server, working(*server.addresses, limits=limits) as worker:
        await until(lambda: worker.downs == 2)
        assert len(worker.descriptions) >= 2


async def test_a_broadcaster_that_never_describes_is_left() -> None:
    refused = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()
        refused.set()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with working(f"{host}:{port}", limits=ClientLimits(connect=0.05)) as worker:
        async with asyncio.timeout(PATIENCE):
            await refused.wait()
        with pytest.raises(LinkError, match="no description came"):
            await worker.ready(0.01)
        assert worker.downs == 0
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        encode(EncodedFrame(0, 0, 0, True, 0, False, b"x")),
        encode(Ping(1)),
        encode(StreamDescription("other", 1, DESCRIPTION.rungs)),
        encode(DESCRIPTION) + encode(EncodedFrame(2, 0, 0, True, 0, False, b"x")),
        encode(DESCRIPTION) + encode(Pong(1)),
        encode(DESCRIPTION) + encode(Refusal("late")),
    ],
    ids=["ssh", "early-frame", "early-ping", "other", "no-such-rung", "pong", "late-refusal"],
)
async def test_a_broadcaster_that_breaks_the_protocol_is_left(data: bytes) -> None:
    hellos = 0

    async def bad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hellos
        writer.write(data)
        with_hello = await reader.read(1000)
        hellos += with_hello == encode(Hello(VERSION, "main"))
        writer.close()

    server = await asyncio.start_server(bad, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with working(f"{host}:{port}") as worker:
        await until(lambda: hellos >= 2)
        assert worker.frames == []
    server.close()
    await server.wait_closed()


async def test_closing_what_was_not_started() -> None:
    await Broadcaster().close()
    await Worker().close()
