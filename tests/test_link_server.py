"""The broadcaster's end of the frame link, and workers that are slow, silent or no workers at all."""

from __future__ import annotations

import asyncio

import pytest

from broadcaster.errors import LinkError
from broadcaster.link import ServerLimits, WireLimits
from broadcaster.link.address import split_address
from broadcaster.link.backlog import BacklogLimits
from broadcaster.link.wire import VERSION, Decoder, Demand, Hello, KeyframeRequest, Refusal, encode
from broadcaster.stream import EncodedFrame
from tests.link_ends import (
    DESCRIPTION,
    WATCHED,
    Broadcaster,
    broadcasting,
    slow_reader,
    stranger,
    working,
)
from tests.patience import PATIENCE, until


async def test_a_slow_worker_loses_whole_frames_and_nobody_else_notices() -> None:
    limits = ServerLimits(socket_buffer=65536, backlog=BacklogLimits(size=200_000, age=10.0))
    async with broadcasting(limits=limits) as server, working(*server.addresses) as fast:
        await fast.ready(PATIENCE)
        fast.demand({0: WATCHED})
        await until(lambda: server.demands[0].viewers == 1)
        with slow_reader(server.addresses[0], Hello(VERSION, "main"), Demand({0: WATCHED})) as slow:
            await until(lambda: server.demands[0].viewers == 2)
            server.keyframes.clear()
            sent = [server.send(0, keyframe=True, size=20_000)]
            for _ in range(99):
                sent.append(server.send(0, size=20_000))
                await asyncio.sleep(0)
            await until(lambda: len(fast.frames) == 100)
            assert fast.frames == sent
            statistics = server.statistics()
            assert statistics.dropped > 50
            assert statistics.waiting <= 10

            decoder = Decoder(frames=True)
            received: list[EncodedFrame] = []

            def read() -> None:
                while True:
                    try:
                        data = slow.recv(65536)
                    except BlockingIOError:
                        return
                    received.extend(m for m in decoder.feed(data) if isinstance(m, EncodedFrame))

            def drained() -> bool:
                read()
                return server.keyframes == [0]

            await until(drained)
            assert received == sent[: len(received)]
            server.send(0, size=20_000)
            restart = server.send(0, keyframe=True, size=20_000)

            def restarted() -> bool:
                read()
                return restart in received

            await until(restarted)
            assert received == [*sent[: len(received) - 1], restart]
        await until(lambda: server.statistics().connections == 1)
        assert server.statistics().dropped == statistics.dropped + 1


async def test_an_old_backlog_is_lost_whole() -> None:
    limits = ServerLimits(socket_buffer=4096, backlog=BacklogLimits(age=0.0))
    async with broadcasting(limits=limits) as server:
        with slow_reader(server.addresses[0], Hello(VERSION, "main"), Demand({0: WATCHED})):
            await until(lambda: server.demands[0].viewers == 1)
            server.send(0, keyframe=True, size=1_000_000)
            for _ in range(10):
                server.send(0)
                await asyncio.sleep(0.002)
            assert server.statistics().waiting <= 1
            assert server.statistics().dropped >= 9


async def test_a_frame_beyond_the_limit_is_dropped_and_counted() -> None:
    limits = ServerLimits(wire=WireLimits(frame=70_000))
    async with broadcasting(limits=limits) as server, working(*server.addresses) as worker:
        await worker.ready(PATIENCE)
        worker.demand({0: WATCHED})
        await until(lambda: server.demands[0].viewers == 1)
        server.send(0, keyframe=True, size=80_000)
        good = server.send(0, keyframe=True)
        await until(lambda: worker.frames == [good])
        assert server.statistics().oversized == 1


async def test_a_worker_that_says_nothing_is_dropped() -> None:
    async with (
        broadcasting(limits=ServerLimits(hello=0.05)) as server,
        stranger(server.addresses[0]) as silent,
    ):
        assert await silent.next() is None
        assert server.statistics().silent == 1


async def test_a_half_open_worker_is_dropped_and_one_that_answers_is_kept() -> None:
    limits = ServerLimits(ping=0.05, silence=0.2)
    async with (
        broadcasting(limits=limits) as server,
        working(*server.addresses) as worker,
        stranger(server.addresses[0]) as dead,
    ):
        dead.send(Hello(VERSION, "main"))
        assert await dead.next() == DESCRIPTION
        pings = 0
        while await dead.next() is not None:
            pings += 1
        assert pings >= 2
        await until(lambda: server.statistics().connections == 1)
        assert worker.up
        assert worker.downs == 0


async def test_connections_are_limited() -> None:
    limits = ServerLimits(connections=1)
    async with (
        broadcasting(limits=limits) as server,
        stranger(server.addresses[0]) as idle,
        working(*server.addresses) as worker,
    ):
        await worker.ready(PATIENCE)
        async with stranger(server.addresses[0]) as third:
            assert await third.next() is None
        idle.send(Hello(VERSION, "main"))
        answer = await idle.next()
        assert isinstance(answer, Refusal)
        assert "serves 1 workers already" in answer.reason
        assert await idle.next() is None
        assert worker.up


async def test_another_version_is_refused_with_a_reason() -> None:
    async with broadcasting() as server, stranger(server.addresses[0]) as worker:
        worker.send(Hello(9, "main"))
        answer = await worker.next()
        assert isinstance(answer, Refusal)
        assert "version 3 of the frame link, not 9" in answer.reason
        assert await worker.next() is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\xff" * 64,
        encode(KeyframeRequest(0)),
        encode(Hello(VERSION, "main")) * 2,
        encode(Hello(VERSION, "main")) + encode(EncodedFrame(0, 0, 0, True, 0, False, b"x")),
        encode(Hello(VERSION, "main")) + encode(DESCRIPTION),
    ],
    ids=["http", "ones", "no-hello", "two-hellos", "frame", "description"],
)
async def test_a_worker_that_breaks_the_protocol_is_cut(data: bytes) -> None:
    async with (
        broadcasting() as server,
        working(*server.addresses) as good,
        stranger(server.addresses[0]) as bad,
    ):
        await good.ready(PATIENCE)
        bad.writer.write(data)
        while await bad.next() is not None:
            pass
        await until(lambda: server.statistics().errors == 1)
        assert good.up


async def test_a_port_in_use_is_one_clear_error() -> None:
    async with broadcasting() as server:
        port = split_address(server.addresses[0])[1]
        with pytest.raises(LinkError, match=f"cannot listen on 127.0.0.1:{port} .*choose another"):
            await Broadcaster().start("127.0.0.1", port)
