"""Server-sent events: what listeners hear, what they miss, and that they cost one subscription together."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientResponse

from broadcaster.bus.messages import Event
from gateway.feeds import FeedSettings
from tests.fake_bus import Front

PATIENCE = 5.0


@pytest_asyncio.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    settings = FeedSettings(clients=2, queue=3, heartbeat=0.05, look=0.02)
    async with Front(tmp_path, feeds=settings).running() as front:
        yield front


def event(number: int, kind: Any = "adaptation", viewer: str = "v-1") -> Event:
    return Event(
        type=kind, id=f"r-{number}", seq=number, ts=float(number), source="w-1", stream="main", viewer=viewer,
        data={"rule": "headroom"},
    )  # fmt: skip


async def read(response: ClientResponse, count: int) -> list[dict[str, str]]:
    """The next events, without heartbeats."""
    found: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            line = (await response.content.readline()).decode().rstrip("\n")
            if not line and fields:
                found.append(fields)
                fields = {}
            elif line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
    return found


async def subscribed(front: Front, stream: str = "main") -> Any:
    async with asyncio.timeout(PATIENCE):
        while stream not in front.bus.heard:
            await asyncio.sleep(0)
    return front.bus.heard[stream]


async def test_events_come_as_they_happen(front: Front) -> None:
    async with front.http.get("/api/events/main") as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        (await subscribed(front)).say(event(7))
        (said,) = await read(response, 1)
        assert (said["id"], said["event"]) == ("r-7", "adaptation")
        data = json.loads(said["data"])
        assert (data["viewer"], data["data"]) == ("v-1", {"rule": "headroom"})


async def test_a_listener_chooses_viewer_and_types(front: Front) -> None:
    async with front.http.get("/api/events/main?viewer=v-2&types=adaptation,left") as response:
        subscription = await subscribed(front)
        for one in (event(1), event(2, "stats", "v-2"), event(3, "left", "v-2")):
            subscription.say(one)
        assert [said["id"] for said in await read(response, 1)] == ["r-3"]


async def test_the_past_comes_first_and_nothing_twice(front: Front) -> None:
    front.bus.kept = [event(number) for number in range(1, 6)]
    async with front.http.get("/api/events/main?replay=2") as response:
        assert [said["id"] for said in await read(response, 2)] == ["r-4", "r-5"]
    async with front.http.get("/api/events/main", headers={"Last-Event-ID": "r-2"}) as response:
        assert [said["id"] for said in await read(response, 3)] == ["r-3", "r-4", "r-5"]
    async with front.http.get("/api/events/main", headers={"Last-Event-ID": "long gone"}) as response:
        (await subscribed(front)).say(event(9))
        assert [said["id"] for said in await read(response, 1)] == ["r-9"]


async def test_the_past_is_that_of_whom_and_what_one_asks_for(front: Front) -> None:
    others = [event(number, viewer="v-2") for number in range(10, 20)]
    front.bus.kept = [event(1), event(2), *others, *(event(number, "stats") for number in range(20, 60))]
    async with front.http.get("/api/events/main?viewer=v-1&types=adaptation&replay=2") as response:
        assert [said["id"] for said in await read(response, 2)] == ["r-1", "r-2"]
    async with front.http.get("/api/events/main?replay=1") as response:
        said = await read(response, 2)
        assert [one["id"] for one in said] == ["r-19", "r-59"], "statistics leave room for decisions"


async def test_two_listeners_share_a_subscription_that_ends_with_the_last(front: Front) -> None:
    async with front.http.get("/api/events/main") as one:
        subscription = await subscribed(front)
        async with front.http.get("/api/events/main") as two:
            assert front.bus.heard["main"] is subscription
            subscription.say(event(1))
            assert await read(one, 1) == await read(two, 1)
        assert not subscription.closed
    async with asyncio.timeout(PATIENCE):
        while not subscription.closed:
            await asyncio.sleep(0.01)


async def test_a_slow_listener_loses_the_oldest_and_hears_how_many(front: Front) -> None:
    async with front.http.get("/api/events/main") as response:
        subscription = await subscribed(front)
        for number in range(10):
            subscription.say(event(number))
        said = await read(response, 4)
        assert (said[0]["event"], json.loads(said[0]["data"])) == ("lost", {"count": 7})
        assert [one["id"] for one in said[1:]] == ["r-7", "r-8", "r-9"]


async def test_an_outage_of_redis_is_told(front: Front) -> None:
    async with front.http.get("/api/events/main") as response:
        subscription = await subscribed(front)
        subscription.up = False
        assert (await read(response, 1))[0]["event"] == "away"
        subscription.up = True
        assert (await read(response, 1))[0]["event"] == "back"


async def test_silence_is_broken_by_signs_of_life(front: Front) -> None:
    async with front.http.get("/api/events/main") as response, asyncio.timeout(PATIENCE):
        assert await response.content.readline() == b": alive\n"


async def test_there_is_a_limit(front: Front) -> None:
    async with front.http.get("/api/events/main"), front.http.get("/api/events/main"):
        refused = await front.http.get("/api/events/main")
        assert refused.status == 503
        assert refused.content_type == "application/problem+json"
        assert "2 listeners" in (await refused.json())["detail"]


async def test_who_watches_takes_no_operators_place(front: Front) -> None:
    async with front.http.get("/api/events/main?viewer=v-1"), front.http.get("/api/events/main?viewer=v-2"):
        assert (await front.http.get("/api/events/main?viewer=v-3")).status == 503
        async with front.http.get("/api/events/main") as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/api/events/No%20name", 404, "name"),
        ("/api/events/main?types=adaptation,nonsense", 400, "types"),
        ("/api/events/main?replay=many", 400, "replay"),
    ],
)
async def test_what_cannot_be_is_said(front: Front, path: str, status: int, says: str) -> None:
    response = await front.http.get(path)
    assert response.status == status
    assert says in (await response.json())["detail"]


async def test_without_redis_there_is_nothing_to_listen_to(front: Front) -> None:
    front.bus.away = True
    response = await front.http.get("/api/events/main")
    assert response.status == 503
    front.bus.away = False
    async with front.http.get("/api/events/main") as response:
        assert response.status == 200


async def test_a_stop_ends_what_listens(tmp_path: Path) -> None:
    settings = replace(FeedSettings(), look=0.02)
    async with Front(tmp_path, feeds=settings).running() as front:
        response = await front.http.get("/api/events/main")
        await subscribed(front)
        await front.http.server.close()
        async with asyncio.timeout(PATIENCE):
            await response.content.read()


async def test_who_never_reads_loses_its_place(tmp_path: Path) -> None:
    settings = FeedSettings(clients=1, queue=10_000, look=0.02, patience=0.3)
    async with Front(tmp_path, feeds=settings).running() as front:
        assert front.http.port is not None
        with socket.socket() as mute:
            mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            mute.connect((front.http.host, front.http.port))
            mute.sendall(b"GET /api/events/main HTTP/1.1\r\nHost: here\r\n\r\n")
            subscription = await subscribed(front)
            assert (await front.http.get("/api/events/main")).status == 503
            number = 0
            async with asyncio.timeout(2 * PATIENCE):
                while not subscription.closed:
                    number += 1
                    subscription.say(event(number))
                    await asyncio.sleep(0.001)
        async with front.http.get("/api/events/main") as response:
            assert response.status == 200
