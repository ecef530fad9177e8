"""The gateway over the real bus: a real redis-server, fake workers that serve real calls."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from broadcaster.bus import Bus, new_epoch
from broadcaster.bus.messages import (
    Event,
    GatewayLease,
    LeaveParams,
    OfferParams,
    OfferResult,
    PatchParams,
    PatchResult,
    RungInfo,
    SessionRecord,
    StreamLease,
    ViewersResult,
    ViewerStatus,
    WorkerLease,
    decode,
    key,
)
from broadcaster.errors import ConfigurationError, PreconditionFailedError, SessionNotFoundError
from broadcaster.process import Shutdown
from gateway.app import GatewaySettings, listen, serve
from gateway.whep import DEFAULT_WHEP
from tests.fake_bus import ANSWER, FRAGMENT, OFFER
from tests.patience import eventually
from tests.redis_server import RedisServer

SDP = {"Content-Type": "application/sdp"}
TRICKLE = {"Content-Type": "application/trickle-ice-sdpfrag"}


class FakeWorker:
    """Takes every viewer, and keeps sessions as a worker does."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.bus = Bus(url, source=name)
        self.sessions: dict[str, str] = {}
        self.answering = asyncio.Event()
        self.answering.set()
        self.asked = asyncio.Event()
        epoch = new_epoch()
        self.lease = self.bus.lease(
            "worker",
            name,
            lambda: WorkerLease(
                id=name, epoch=epoch, pid=1, host="here", capacity=10, viewers=len(self.sessions),
                streams={"main": len(self.sessions)}, state="ready", udp_port=1, since=1.0,
            ),
        )  # fmt: skip

    async def start(self) -> None:
        await self.bus.start()
        await self.bus.serve(
            self.name, {"offer": self.offer, "patch": self.patch, "leave": self.leave, "viewers": self.viewers}
        )
        await self.lease.acquire()

    async def close(self) -> None:
        await self.lease.release()
        await self.bus.close()

    async def offer(self, params: dict[str, Any]) -> OfferResult:
        self.asked.set()
        await self.answering.wait()
        request = msgspec.convert(params, OfferParams)
        secret = os.urandom(16).hex()
        self.sessions[secret] = request.stream
        record = SessionRecord(worker=self.name, stream=request.stream, viewer="v-1", since=time.time())
        await self.bus.put_session(secret, record)
        return OfferResult(secret=secret, viewer="v-1", etag="e1", sdp=ANSWER)

    async def patch(self, params: dict[str, Any]) -> PatchResult:
        request = msgspec.convert(params, PatchParams)
        if request.if_match not in ("e1", "*"):
            raise PreconditionFailedError("this ICE session is over")
        return PatchResult(etag="e2", fragment="a=ice-ufrag:n\r\n" if request.if_match == "*" else None)

    async def leave(self, params: dict[str, Any]) -> msgspec.Struct:
        request = msgspec.convert(params, LeaveParams)
        if self.sessions.pop(request.secret, None) is None:
            raise SessionNotFoundError("no such session")
        await self.bus.delete_session(request.secret)
        return request

    async def viewers(self, params: dict[str, Any]) -> ViewersResult:
        row = ViewerStatus(
            id="v-1", worker=self.name, stream="main", state="connected", level=None, fps=None, bitrate=None,
            loss=None, rtt=None, estimate=None, since=1.0,
        )  # fmt: skip
        return ViewersResult(viewers=[row for _ in self.sessions])


class House:
    """Gateways and workers around one redis-server."""

    def __init__(self, redis: RedisServer) -> None:
        self.redis = redis
        self.stack = AsyncExitStack()
        self.http: aiohttp.ClientSession
        self.shutdowns: dict[str, Shutdown] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[House]:
        async with self.stack:
            self.http = await self.stack.enter_async_context(aiohttp.ClientSession())
            self.bus = Bus(self.redis.url, source="broadcaster")
            await self.bus.start()
            self.stack.push_async_callback(self.bus.close)
            epoch = new_epoch()
            rung = RungInfo(name="360p", width=640, height=360, fps=30.0, bitrate=800_000, layers=3)
            lease = self.bus.lease(
                "stream",
                "main",
                lambda: StreamLease(
                    name="main", epoch=epoch, pid=1, host="here", source="pattern", live=True, link=[], fps=30.0,
                    rungs=[rung], since=1.0,
                ),
            )  # fmt: skip
            await lease.acquire()
            self.stack.push_async_callback(lease.release)
            yield self

    async def worker(self, name: str) -> FakeWorker:
        worker = FakeWorker(name, self.redis.url)
        await worker.start()
        self.stack.push_async_callback(worker.close)
        return worker

    async def gateway(self, name: str = "g-1", **changed: Any) -> str:
        """Start a gateway, and return its URL when its lease stands."""
        shutdown = self.shutdowns[name] = Shutdown()
        settings = GatewaySettings(id=name, port=0, redis_url=self.redis.url, **changed)
        task = asyncio.create_task(serve(settings, shutdown))

        async def stop() -> None:
            shutdown.request("the test is over")
            await task

        self.stack.push_async_callback(stop)
        lease = await eventually(lambda: self.gateway_lease(name))
        assert isinstance(lease, GatewayLease)
        return lease.url

    async def gateway_lease(self, name: str) -> GatewayLease | None:
        found = {living.lease.id: living.lease for living in await self.bus.gateways()}
        return found.get(name)

    async def gone(self, name: str) -> bool:
        return await self.gateway_lease(name) is None

    async def status(self, url: str) -> int:
        async with self.http.get(url) as response:
            return response.status

    async def join(self, url: str) -> tuple[int, str]:
        async with self.http.post(f"{url}/whep/main", data=OFFER, headers=SDP) as response:
            return response.status, response.headers.get("Location", "")


@pytest_asyncio.fixture
async def house(redis_server: RedisServer) -> AsyncIterator[House]:
    async with House(redis_server).running() as house:
        yield house


@pytest.mark.parametrize("said", [b"", b"POST /whep/main HTTP/1.1\r\nHost: x\r\nX: "], ids=["nothing", "half"])
async def test_a_connection_without_a_whole_request_is_hung_up(house: House, said: bytes) -> None:
    url = await house.gateway(idle=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(said)
    async with asyncio.timeout(5.0):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_any_gateway_serves_any_session(house: House) -> None:
    workers = [await house.worker("w-1"), await house.worker("w-2")]
    first, second = await house.gateway("g-1"), await house.gateway("g-2")
    joins = await asyncio.gather(*(house.join(first) for _ in range(10)))
    assert {status for status, _ in joins} == {201}
    assert [len(worker.sessions) for worker in workers] == [5, 5]

    url = second + joins[0][1]
    async with house.http.patch(url, data=FRAGMENT, headers={**TRICKLE, "If-Match": '"e1"'}) as response:
        assert response.status == 204
    async with house.http.patch(url, data=FRAGMENT, headers={**TRICKLE, "If-Match": '"e0"'}) as response:
        assert (response.status, (await response.json())["detail"]) == (412, "this ICE session is over")
    async with house.http.patch(url, data=FRAGMENT, headers={**TRICKLE, "If-Match": "*"}) as response:
        assert (response.status, response.headers["ETag"]) == (200, '"e2"')
    async with house.http.get(second + "/api/viewers?stream=main") as response:
        document = await response.json()
        assert (len(document["viewers"]), document["incomplete"]) == (10, [])
    for expected in (200, 404):
        async with house.http.delete(url) as response:
            assert response.status == expected


async def test_a_worker_that_hangs_delays_one_player_only(house: House) -> None:
    await house.worker("w-1")
    hanging = await house.worker("w-0")
    hanging.answering.clear()
    url = await house.gateway()
    assert (await house.join(url))[0] == 201
    assert hanging.asked.is_set()
    began = time.perf_counter()
    assert (await house.join(url))[0] == 201
    assert time.perf_counter() - began < DEFAULT_WHEP.patience
    assert hanging.sessions == {}


async def test_what_runs_is_finished_before_the_end(house: House) -> None:
    worker = await house.worker("w-1")
    url = await house.gateway()
    worker.answering.clear()
    join = asyncio.create_task(house.join(url))
    await worker.asked.wait()
    house.shutdowns["g-1"].request("as told")

    async def closed() -> bool:
        try:
            listen("127.0.0.1", int(url.rpartition(":")[2])).close()
        except ConfigurationError:
            return False
        return True

    await eventually(closed)
    worker.answering.set()
    assert (await join)[0] == 201
    await eventually(lambda: house.gone("g-1"))


async def test_a_redis_outage_is_503_and_heals(house: House) -> None:
    await house.worker("w-1")
    url = await house.gateway()
    assert (await house.join(url))[0] == 201
    await asyncio.to_thread(house.redis.stop)

    async def refused() -> bool:
        async with house.http.post(f"{url}/whep/main", data=OFFER, headers=SDP) as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0
            return "Redis" in (await response.json())["detail"]

    await eventually(refused)
    assert await house.status(url + "/healthz") == 200
    await asyncio.to_thread(house.redis.start)

    async def healed() -> bool:
        status, _ = await house.join(url)
        assert status in (201, 409, 503)  # never 404: a page would give up
        return status == 201

    await eventually(healed)


async def test_a_lost_worker_is_told_once_for_all_gateways(house: House) -> None:
    await house.worker("w-1")
    await house.gateway("g-1")
    await house.gateway("g-2")
    heard: list[Event] = []
    async with house.bus.server.redis.pubsub() as channel:
        await channel.subscribe(key("events", "_cluster"))
        [renewal] = [task for task in asyncio.all_tasks() if task.get_name() == "lease worker:w-1"]
        renewal.cancel()
        async with asyncio.timeout(15):
            while not heard:
                message = await channel.get_message(ignore_subscribe_messages=True, timeout=1.0)
                if message is not None:
                    heard.append(decode(message["data"], Event))
        while (message := await channel.get_message(ignore_subscribe_messages=True, timeout=1.0)) is not None:
            heard.append(decode(message["data"], Event))
    assert [(event.type, event.data["worker"]) for event in heard] == [("lost", "w-1")]


async def test_who_has_just_come_is_found_at_once(house: House) -> None:
    url = await house.gateway()
    await asyncio.sleep(0.15)
    await house.worker("w-1")
    assert (await house.join(url))[0] == 201


def test_a_port_in_use_is_one_clear_line() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"127.0.0.1 port {port}: .*--port"):
            listen("127.0.0.1", port)
    with pytest.raises(ConfigurationError, match="cannot listen on nowhere"):
        listen("nowhere.invalid", 80)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway", *arguments]


@pytest.mark.processes
async def test_the_process_serves_and_ends_on_sigterm(house: House) -> None:
    await house.worker("w-1")
    arguments = command("--port", "0", "--redis-url", house.redis.url, "--id", "g-9", "--ice-server", "stun:s.example")
    process = await asyncio.create_subprocess_exec(*arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        lease = await eventually(lambda: house.gateway_lease("g-9"))
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9][0-9]*", lease.url)
        async with house.http.post(f"{lease.url}/whep/main", data=OFFER, headers=SDP) as response:
            assert (response.status, response.headers["Link"]) == (201, '<stun:s.example>; rel="ice-server"')
        assert await house.status(lease.url + "/") == 200
        assert await house.status(lease.url + "/readyz") == 200
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await process.wait() == 0
        assert await house.bus.gateways() == []
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--port", "http"), "--port: 'http' is not a port: use a number"),
        (("--ice-server", "nonsense"), "ICE server"),
        (("--redis-url", "redis://127.0.0.1:1", "--port", "0"), "Redis"),
    ],
)
async def test_what_cannot_work_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    process = await asyncio.create_subprocess_exec(*command(*arguments), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    assert process.returncode != 0
    [line] = err.decode().splitlines()
    assert message in line
    assert out == b""
