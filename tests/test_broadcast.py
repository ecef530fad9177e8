"""The broadcaster as a real process, beside a real redis-server, watched by a worker's end of the frame link."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import av
import pytest
import pytest_asyncio

from broadcaster.adaptation.audience import histogram
from broadcaster.broadcast import Broadcast, public_source
from broadcaster.bus import Bus
from broadcaster.bus.messages import StreamLease
from broadcaster.errors import BusUnavailableError
from broadcaster.ladder import LadderSettings, parse_rungs
from broadcaster.link import LinkClient, RungDemand
from broadcaster.process import Shutdown
from broadcaster.source import SharedSource
from broadcaster.source.shared import Outlet
from broadcaster.stream import EncodedFrame
from tests.patience import eventually, until
from tests.redis_server import RedisServer

pytestmark = pytest.mark.processes

PATIENCE = 20.0
SOURCE = "pattern:320x180@30"
LADDER = "320x180@300k,160x90@100k"


@asynccontextmanager
async def broadcaster(url: str, *arguments: str, source: str = SOURCE, stream: str = "main") -> AsyncIterator[Process]:
    command = [sys.executable, "-m", "broadcaster", "broadcast", source, "--stream", stream, "--redis-url", url]
    child = await asyncio.create_subprocess_exec(*command, *arguments, stdout=PIPE, stderr=PIPE, env=dict(os.environ))
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


@pytest_asyncio.fixture
async def bus(redis_server: RedisServer) -> AsyncIterator[Bus]:
    bus = Bus(redis_server.url, source="test")
    await bus.start()
    yield bus
    await bus.close()


async def lease(bus: Bus, matches: Callable[[StreamLease], bool] = lambda _: True) -> StreamLease:
    async def ask() -> StreamLease | None:
        return next((living.lease for living in await bus.streams() if matches(living.lease)), None)

    return await eventually(ask)


class Worker:
    """A link client that collects the frames of a stream."""

    def __init__(self, addresses: list[str]) -> None:
        self.frames: list[EncodedFrame] = []
        self.downs = 0
        self._addresses = addresses
        self.client = LinkClient(
            "main",
            self._locate,
            on_description=lambda _: None,
            on_frame=self.frames.append,
            on_down=self._down,
        )

    async def _locate(self) -> list[str]:
        return self._addresses

    def _down(self) -> None:
        self.downs += 1

    async def gather(self, count: int, *, rung: int) -> list[EncodedFrame]:
        """The next `count` frames of `rung`."""
        start = len(self.frames)

        async def ask() -> list[EncodedFrame] | None:
            found = [frame for frame in self.frames[start:] if frame.rung == rung]
            return found[:count] if len(found) >= count else None

        return await eventually(ask)


@asynccontextmanager
async def working(addresses: list[str]) -> AsyncIterator[Worker]:
    worker = Worker(addresses)
    worker.client.start()
    await worker.client.ready(PATIENCE)
    yield worker
    await worker.client.close()


def decoded(frames: list[EncodedFrame]) -> list[av.VideoFrame]:
    decoder = av.CodecContext.create("vp8", "r")
    return [picture for frame in frames for picture in decoder.decode(av.Packet(frame.payload))]


async def test_a_stream_from_source_to_worker(redis_server: RedisServer, bus: Bus) -> None:
    async with broadcaster(redis_server.url, "--ladder", LADDER) as process:
        record = await lease(bus)
        assert record.name == "main"
        assert record.pid == process.pid
        assert record.live
        assert [(rung.width, rung.height, rung.bitrate) for rung in record.rungs] == [
            (320, 180, 300_000),
            (160, 90, 100_000),
        ]
        assert not any(rung.active for rung in record.rungs)

        async with working(record.link) as worker:
            assert worker.client.description is not None
            assert worker.client.description.epoch == record.epoch
            worker.client.demand({1: RungDemand(1)})
            small = await worker.gather(30, rung=1)
            assert {frame.rung for frame in worker.frames} == {1}
            assert small[0].keyframe
            pictures = decoded(small)
            assert len(pictures) == 30
            assert {(picture.width, picture.height) for picture in pictures} == {(160, 90)}
            await lease(bus, lambda record: [rung.active for rung in record.rungs] == [False, True])

            worker.client.demand({0: RungDemand(3), 1: RungDemand(1)})
            large = await worker.gather(10, rung=0)
            assert large[0].keyframe
            assert {(picture.width, picture.height) for picture in decoded(large)} == {(320, 180)}
            both = {rung: {frame.timestamp for frame in worker.frames if frame.rung == rung} for rung in (0, 1)}
            assert both[0] & both[1]

            known = len(worker.frames)
            await asyncio.sleep(1.0)
            worker.client.request_keyframe(1)

            await until(lambda: any(frame.keyframe and frame.rung == 1 for frame in worker.frames[known:]))

        await lease(bus, lambda record: not any(rung.active for rung in record.rungs))
        thumbnail = await eventually(lambda: bus.get_picture("main"))
        assert thumbnail.startswith(b"\xff\xd8")

        process.terminate()
        _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 0, err
        assert b"WARNING" not in err
        assert await bus.streams() == []


async def test_the_stream_goes_on_while_redis_is_away(redis_server: RedisServer, bus: Bus) -> None:
    async with broadcaster(redis_server.url, "--ladder", LADDER) as process:
        record = await lease(bus)
        async with working(record.link) as worker:
            worker.client.demand({1: RungDemand(1)})
            await worker.gather(5, rung=1)
            await asyncio.to_thread(redis_server.stop)
            frames = await worker.gather(90, rung=1)
            indexes = [frame.index for frame in frames]
            assert indexes == list(range(indexes[0], indexes[0] + 90))
            await asyncio.to_thread(redis_server.start)

            async def back() -> StreamLease | None:
                try:
                    return (await bus.streams())[0].lease
                except (IndexError, BusUnavailableError):
                    return None

            again = await eventually(back)
            assert (again.epoch, again.link) == (record.epoch, record.link)
            assert worker.downs == 0
        process.terminate()
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0


class Camera:
    """A feed of black pictures that the test can take away and give back."""

    def __init__(self) -> None:
        self.there = threading.Event()
        self.there.set()

    def run(self, outlet: Outlet) -> None:
        while not outlet.stopped.wait(1 / 30):
            outlet.report(live=self.there.is_set(), detail="unplugged")
            outlet.publish(av.VideoFrame(320, 180, "yuv420p"), time.time())


@asynccontextmanager
async def broadcasting(camera: Camera, bus: Bus, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Broadcast]:
    source = SharedSource("main", 30.0, 320, 180, camera)
    options = argparse.Namespace(source="camera", stream="main", link_host="127.0.0.1", link_port=0, link_announce=[])
    broadcast = Broadcast(options, source, parse_rungs(LADDER, 320, 180, 30.0), bus)
    shutdown = Shutdown()
    with caplog.at_level("INFO"):
        running = asyncio.create_task(broadcast.run(shutdown))
        try:
            yield broadcast
        finally:
            shutdown.request("the test is over")
            await asyncio.wait_for(running, PATIENCE)
            await asyncio.to_thread(source.close)


async def test_the_lease_says_whether_the_source_is_live(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    camera = Camera()
    async with broadcasting(camera, bus, caplog):
        await lease(bus, lambda record: record.live)
        camera.there.clear()
        await lease(bus, lambda record: not record.live)
        assert "a slate stands in: unplugged" in caplog.text
        camera.there.set()
        await lease(bus, lambda record: record.live)


def described_bitrate(worker: Worker) -> int:
    assert worker.client.description is not None
    return worker.client.description.rungs[0].bitrate


async def test_the_ladder_follows_its_audience(
    bus: Bus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broadcaster.ladder.ladder.LadderSettings", partial(LadderSettings, retarget_interval=0.5))
    async with broadcasting(Camera(), bus, caplog) as broadcast:
        record = await lease(bus)
        own = record.rungs[0].bitrate

        def target() -> int:
            return broadcast._ladder.statistics()[0].target_bitrate

        async with working(record.link) as worker:
            narrow = {0: RungDemand(40, histogram([0.55 * own] * 40))}
            worker.client.demand(narrow)
            await worker.gather(2, rung=0)
            await until(lambda: described_bitrate(worker) < 0.8 * own)
            assert 0.5 * own < target() == described_bitrate(worker)


async def test_a_second_broadcaster_of_a_stream_is_refused_in_one_line(
    redis_server: RedisServer,
    bus: Bus,
) -> None:
    async with broadcaster(redis_server.url, "--ladder", LADDER) as first:
        record = await lease(bus)
        async with broadcaster(redis_server.url, "--ladder", LADDER) as second:
            _, err = await asyncio.wait_for(second.communicate(), PATIENCE)
            assert second.returncode == 2
            lines = err.decode().splitlines()
            assert len(lines) == 1
            assert "another living stream has the name 'main'" in lines[0]
        assert first.returncode is None
        assert (await lease(bus)).epoch == record.epoch


async def test_the_link_is_announced_under_other_names(redis_server: RedisServer, bus: Bus) -> None:
    arguments = ("--ladder", LADDER, "--link-announce", "films.example", "--link-announce", "::1")
    async with broadcaster(redis_server.url, *arguments):
        record = await lease(bus)
    port = record.link[0].rpartition(":")[2]
    assert record.link == [f"films.example:{port}", f"[::1]:{port}"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--ladder", "640x360@800k"), 2, "larger than the source"),
        (("--ladder", "huge"), 2, "'huge' is no rung"),
        (("--link-host", "192.0.2.1"), 1, "cannot listen on 192.0.2.1"),
        (("--link-port", "70000"), 2, "70000"),
        (("--stream", "No!"), 2, "cannot name a stream"),
        (("--log-level", "loud"), 2, "not a log level"),
        (("--redis-url", "redis://127.0.0.1:1"), 1, "does not answer"),
    ],
)
async def test_what_cannot_be_broadcast_is_one_line(
    redis_server: RedisServer,
    arguments: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    async with broadcaster(redis_server.url, *arguments) as process:
        _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == code
    lines = err.decode().splitlines()
    assert len(lines) == 1, lines
    assert says in lines[0]


def test_a_url_is_shown_without_its_secrets() -> None:
    assert public_source("rtsp://user:secret@camera.example:554/live?token=1#x") == "rtsp://camera.example:554/live"
    assert public_source("/films/a film?.mp4") == "/films/a film?.mp4"
    assert public_source("pattern:1280x720@30") == "pattern:1280x720@30"
