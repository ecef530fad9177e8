"""The bus and the registry in memory, with workers that answer as a test tells them, and a gateway over them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from aiohttp.test_utils import TestClient, TestServer

from broadcaster.bus import Subscription
from broadcaster.bus.messages import (
    Event,
    LeaveResult,
    OfferResult,
    PatchResult,
    RungInfo,
    SessionRecord,
    StreamLease,
    ViewersResult,
    WorkerLease,
    encode,
)
from broadcaster.errors import BusUnavailableError, CallUnheardError
from gateway.app import GatewaySettings, application
from gateway.routing import RecentStreams

SECRET = "s" * 43
OFFER = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
ANSWER = "v=0\r\na=ice-lite\r\n"
FRAGMENT = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=end-of-candidates\r\n"
PAGES = {
    "index.html": "<title>index</title>",
    "watch.html": "<title>watch</title>",
    "dashboard.html": "<title>dashboard</title>",
    "watch.js": "void 0;",
}

Answer = Callable[[str, Any], Any]


@dataclass
class Alive:
    lease: Any
    age: float = 0.1


class FakeRegistry:
    def __init__(self) -> None:
        self.workers: dict[str, Alive] = {}
        self.streams: dict[str, Alive] = {}
        self.gateways: dict[str, Alive] = {}
        self.fresh = True
        self.age = 0.0
        """Seconds since the last refresh."""

    def add_worker(self, name: str = "w-1", **changed: Any) -> WorkerLease:
        values: dict[str, Any] = {
            "id": name, "epoch": 1, "pid": 7, "host": "here", "capacity": 100, "viewers": 0, "streams": {},
            "state": "ready", "udp_port": 40000, "since": 1000.0,
        }  # fmt: skip
        lease = WorkerLease(**{**values, **changed})
        self.workers[name] = Alive(lease)
        return lease

    def add_stream(self, name: str = "main", *, live: bool = True) -> None:
        rungs = [RungInfo(name="360p", width=640, height=360, fps=30.0, bitrate=800_000, layers=3)]
        self.streams[name] = Alive(
            StreamLease(
                name=name, epoch=1, pid=8, host="here", source="pattern", live=live, link=["127.0.0.1:1"], fps=30.0,
                rungs=rungs, since=1001.0,
            )
        )  # fmt: skip


class FakeSubscription(Subscription):
    """A subscription to which a test says what Redis would."""

    def __init__(self, on_message: Callable[[str, bytes], None]) -> None:
        self._tell = on_message
        self.up = True
        self.closed = False

    @property
    def connected(self) -> bool:
        return self.up

    def say(self, event: Event) -> None:
        self._tell("channel", encode(event))

    async def close(self) -> None:
        self.closed = True


class FakeBus:
    """Calls go to `answers[worker]`, a function of method and parameters that returns or raises."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.calls: list[tuple[str, str, Any]] = []
        self.sessions: dict[str, SessionRecord] = {}
        self.pictures: dict[str, bytes] = {}
        self.away = False
        self.heard: dict[str, FakeSubscription] = {}
        self.kept: list[Event] = []

    async def call(self, worker: str, method: str, params: Any, *, timeout: float, result: Any) -> Any:
        self._check()
        self.calls.append((worker, method, params))
        if worker not in self.answers:
            raise CallUnheardError(f"nobody listens as {worker}")
        answer = self.answers[worker](method, params)
        return msgspec.convert(msgspec.to_builtins(answer), result)

    async def get_session(self, secret: str) -> SessionRecord | None:
        self._check()
        return self.sessions.get(secret)

    async def hear(self, stream: str, on_message: Callable[[str, bytes], None]) -> FakeSubscription:
        self._check()
        self.heard[stream] = FakeSubscription(on_message)
        return self.heard[stream]

    async def past(self, stream: str, count: int, *, stats: bool = False) -> list[Event]:
        self._check()
        told = [event for event in self.kept if event.type != "stats"][-count:]
        return [event for event in self.kept if event in told or (stats and event.type == "stats")]

    async def get_picture(self, stream: str) -> bytes | None:
        self._check()
        return self.pictures.get(stream)

    def _check(self) -> None:
        if self.away:
            raise BusUnavailableError("Redis does not answer")


def accepting(method: str, params: Any) -> Any:
    """A worker that is content with everything."""
    if method == "offer":
        return OfferResult(secret=SECRET, viewer="v-1", etag="ice1", sdp=ANSWER)
    if method == "patch":
        if params.if_match == "*":
            return PatchResult(etag="ice2", fragment="a=ice-ufrag:new\r\n")
        return PatchResult(etag="ice1")
    if method == "leave":
        return LeaveResult(viewer="v-1")
    return ViewersResult(viewers=[])


def raising(error: Exception) -> Answer:
    """A worker that answers everything with `error`."""

    def answer(method: str, params: Any) -> Any:
        raise error

    return answer


class Front:
    """A gateway's HTTP server over fakes: one accepting worker "w-1" and one stream "main" at first."""

    def __init__(self, folder: Path, **changed: Any) -> None:
        for name, text in PAGES.items():
            (folder / name).write_text(text)
        self.settings = replace(GatewaySettings(id="g-1", pages=folder), **changed)
        self.bus = FakeBus()
        self.registry = FakeRegistry()
        self.recent = RecentStreams(time.monotonic())
        self.registry.add_worker()
        self.registry.add_stream()
        self.recent.note(self.registry.streams, time.monotonic())
        self.bus.answers["w-1"] = accepting
        self.http: TestClient[Any, Any]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Front]:
        app = application(self.settings, self.bus, self.registry, self.recent)  # type: ignore[arg-type]
        async with TestClient(TestServer(app, lingering_time=0.1)) as self.http:
            yield self

    def join(self, secret: str = SECRET, *, worker: str = "w-1", stream: str = "main") -> str:
        """Note a session in the registry; its URL."""
        self.bus.sessions[secret] = SessionRecord(worker=worker, stream=stream, viewer="v-1", since=time.time())
        return f"/whep/{stream}/{secret}"

    def post(self, stream: str = "main", **changed: Any) -> Any:
        arguments = {"data": OFFER, "headers": {"Content-Type": "application/sdp"}, **changed}
        return self.http.post(f"/whep/{stream}", **arguments)

    def patch(self, url: str, *, if_match: str | None = '"ice1"', **changed: Any) -> Any:
        headers = {"Content-Type": "application/trickle-ice-sdpfrag"}
        if if_match is not None:
            headers["If-Match"] = if_match
        return self.http.patch(url, **{"data": FRAGMENT, "headers": headers, **changed})
