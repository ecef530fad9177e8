"""`beamcast events` as a process of its own, and the subscriber of docs/events.md."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from broadcaster.bus import Bus
from broadcaster.bus.messages import Adaptation, Connected, Left, Operating, WorkerNotice, key
from broadcaster.events import main
from tests.redis_server import RedisServer

pytestmark = pytest.mark.processes

ADAPTATION = Adaptation(
    rule="loss-high",
    from_=Operating(fps=30.0, rung="720p", bitrate=2_500_000),
    to=Operating(fps=15.0, rung="720p", bitrate=1_500_000),
    inputs={"packet_loss": 0.081},
    thresholds={"packet_loss": 0.05},
)
LEFT = Left(reason="closed", duration=1.0)


@pytest_asyncio.fixture
async def bus(redis_server: RedisServer) -> AsyncIterator[Bus]:
    bus = Bus(redis_server.url, "worker-1")
    await bus.start()
    yield bus
    await bus.close()


@asynccontextmanager
async def process(*command: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


def events(*arguments: str, url: str) -> Any:
    code = "import sys; from broadcaster.events import main; sys.exit(main(sys.argv[1:]))"
    return process("-c", code, *arguments, BEAMCAST_REDIS_URL=url)


async def listening(redis: Redis) -> None:
    async with asyncio.timeout(15.0):
        while await redis.pubsub_numpat() == 0:
            await asyncio.sleep(0.02)


async def line(running: asyncio.subprocess.Process) -> Any:
    assert running.stdout is not None
    async with asyncio.timeout(10.0):
        return json.loads(await running.stdout.readline())


async def test_events_are_json_lines(redis_server: RedisServer, redis: Redis, bus: Bus) -> None:
    async with events(url=redis_server.url) as running:
        await listening(redis)
        await redis.publish(key("events", "main"), b"\xc1 no event")
        await redis.publish(key("events", "main"), msgpack.packb({"type": "unheard-of"}))
        bus.publish("adaptation", ADAPTATION, stream="main", viewer="v-1")
        notice = WorkerNotice(worker="worker-1", host="host", capacity=1, viewers=0)
        bus.publish("up", notice, stream=None)
        first, second = await line(running), await line(running)
        assert first["type"] == "adaptation"
        assert first["data"]["from"] == {"fps": 30.0, "rung": "720p", "bitrate": 2_500_000}
        assert first["data"]["inputs"] == {"packet_loss": 0.081}
        assert (second["type"], second["stream"], second["seq"]) == ("up", None, 2)
        running.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(running.communicate(), 10.0)
        assert running.returncode in {0, 130}
        assert errors == b""


async def test_a_stream_and_a_type_are_selected(redis_server: RedisServer, redis: Redis, bus: Bus) -> None:
    async with events("--stream", "main", "--type", "adaptation", url=redis_server.url) as running:
        await listening(redis)
        bus.publish("adaptation", ADAPTATION, stream="other")
        bus.publish("left", LEFT, stream="main")
        bus.publish("adaptation", ADAPTATION, stream="main")
        assert (await line(running))["seq"] == 3


async def test_replay_shows_the_past_once(redis_server: RedisServer, redis: Redis, bus: Bus) -> None:
    bus.publish("left", LEFT, stream="main")
    bus.publish("connected", Connected(elapsed=0.1), stream="other")
    while bus.counters["published"] < 2:
        await asyncio.sleep(0.01)
    await redis.xadd(key("events", "main"), {"event": b"\xc1"})
    await redis.xadd(key("events", "main"), {"else": b"x"})
    async with events("--replay", url=redis_server.url) as running:
        assert [(await line(running))["seq"] for _ in range(2)] == [1, 2]
        bus.publish("left", LEFT, stream="main")
        assert (await line(running))["seq"] == 3


async def test_it_survives_an_outage(redis_server: RedisServer, redis: Redis, bus: Bus) -> None:
    async with events(url=redis_server.url) as running:
        await listening(redis)
        await asyncio.to_thread(redis_server.stop)
        await asyncio.to_thread(redis_server.start)
        await redis.connection_pool.disconnect()
        await listening(redis)
        bus.publish("left", LEFT, stream="main")
        assert (await line(running))["type"] == "left"


async def test_a_closed_pipe_ends_it_quietly(redis_server: RedisServer, redis: Redis, bus: Bus) -> None:
    reading, writing = os.pipe()
    code = "import sys; from broadcaster.events import main; sys.exit(main([]))"
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=writing, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "BEAMCAST_REDIS_URL": redis_server.url},
    )  # fmt: skip
    os.close(writing)
    await listening(redis)
    os.close(reading)
    bus.publish("left", LEFT, stream="main")
    _, errors = await asyncio.wait_for(running.communicate(), 10.0)
    assert errors == b""
    assert running.returncode == 0


def test_without_redis_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with RedisServer() as server:
        url = server.url
    assert main(["--redis-url", url]) == 1
    output = capsys.readouterr()
    assert re.fullmatch(rf"beamcast: Redis at {url} does not answer: .*\n", output.err)
    assert output.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--type", "explosion"], "no such type of event; use one of adaptation, joined"),
        (["--stream", "../x"], "cannot name a stream"),
        (["--redis-url", "http://x"], "is not a Redis URL"),
    ],
)
def test_bad_options_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


async def test_the_subscriber_of_the_guide(
    redis_server: RedisServer,
    redis: Redis,
    bus: Bus,
) -> None:
    guide = (Path(__file__).parent.parent / "docs" / "events.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len([text for text in snippet.splitlines() if text]) <= 20
    async with process("-c", snippet, BEAMCAST_REDIS_URL=redis_server.url) as running:
        await listening(redis)
        bus.publish("adaptation", ADAPTATION, stream="main", viewer="v-1")
        bus.publish("left", LEFT, stream="main", viewer="v-1")
        assert running.stdout is not None
        async with asyncio.timeout(10.0):
            assert (
                await running.stdout.readline()
                == b"v-1 loss-high 720p at 30 fps -> 720p at 15 fps {'packet_loss': 0.081}\n"
            )
            assert await running.stdout.readline() == b"left main v-1 (0 on other channels, or lost)\n"
