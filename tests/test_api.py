from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from broadcaster.bus.messages import ViewersResult, ViewerStatus
from broadcaster.errors import CallTimeoutError
from tests.fake_bus import Front, raising


@pytest_asyncio.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with Front(tmp_path).running() as front:
        yield front


def viewer(name: str, worker: str, stream: str = "main", since: float = 5.0) -> ViewerStatus:
    return ViewerStatus(
        id=name, worker=worker, stream=stream, state="connected", level="360p30", fps=30.0, bitrate=800_000,
        loss=0.01, rtt=0.02, estimate=None, since=since,
    )  # fmt: skip


async def test_streams(front: Front) -> None:
    front.registry.add_worker("w-1", viewers=3, streams={"main": 2, "other": 1})
    front.registry.add_worker("w-2", viewers=4, streams={"main": 4})
    front.registry.add_stream("aside", live=False)
    response = await front.http.get("/api/streams")
    assert response.status == 200
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Cache-Control"] == "no-store"
    rung = {
        "name": "360p", "width": 640, "height": 360, "fps": 30.0, "bitrate": 800_000, "layers": 3, "active": True,
    }  # fmt: skip
    assert await response.json() == {
        "streams": [
            {
                "name": "aside", "live": False, "viewers": 0, "rungs": [rung], "since": 1001.0,
                "picture": "/api/streams/aside/picture.jpg",
            },
            {
                "name": "main", "live": True, "viewers": 6, "rungs": [rung], "since": 1001.0,
                "picture": "/api/streams/main/picture.jpg",
            },
        ]
    }  # fmt: skip


async def test_picture(front: Front) -> None:
    front.bus.pictures["main"] = b"\xff\xd8jpeg"
    response = await front.http.get("/api/streams/main/picture.jpg")
    assert (response.status, response.content_type) == (200, "image/jpeg")
    assert response.headers["Cache-Control"] == "no-store"
    assert await response.read() == b"\xff\xd8jpeg"


@pytest.mark.parametrize("name", ["other", "UPPER", "a%2fb", "%00", "..x"])
async def test_no_picture_is_404(front: Front, name: str) -> None:
    response = await front.http.get(f"/api/streams/{name}/picture.jpg")
    assert (response.status, response.content_type) == (404, "application/problem+json")


async def test_workers(front: Front) -> None:
    front.registry.add_worker("w-0", state="draining", viewers=2, streams={"main": 2})
    response = await front.http.get("/api/workers")
    common = {"pid": 7, "host": "here", "capacity": 100, "since": 1000.0}
    assert await response.json() == {
        "workers": [
            {"id": "w-0", "viewers": 2, "state": "draining", "streams": {"main": 2}, **common},
            {"id": "w-1", "viewers": 0, "state": "ready", "streams": {}, **common},
        ]
    }


async def test_viewers_come_from_all_workers_and_a_silent_one_is_named(front: Front) -> None:
    for name in ("w-2", "w-3"):
        front.registry.add_worker(name)
    front.bus.answers["w-1"] = lambda method, params: ViewersResult(viewers=[viewer("v-2", "w-1", since=6.0)])
    front.bus.answers["w-2"] = raising(CallTimeoutError("silence"))
    front.bus.answers["w-3"] = lambda method, params: ViewersResult(viewers=[viewer("v-1", "w-3")])
    document = await (await front.http.get("/api/viewers?stream=main")).json()
    assert [row["id"] for row in document["viewers"]] == ["v-1", "v-2"]
    assert document["viewers"][0] == {
        "id": "v-1", "worker": "w-3", "stream": "main", "state": "connected", "level": "360p30", "fps": 30.0,
        "bitrate": 800_000, "loss": 0.01, "rtt": 0.02, "estimate": None, "since": 5.0,
    }  # fmt: skip
    assert document["incomplete"] == ["w-2"]
    assert {(method, params.stream) for _, method, params in front.bus.calls} == {("viewers", "main")}


async def test_viewers_of_all_streams(front: Front) -> None:
    document = await (await front.http.get("/api/viewers")).json()
    assert document == {"viewers": [], "incomplete": []}
    assert front.bus.calls[0][2].stream is None


async def test_viewers_of_what_cannot_be_a_stream(front: Front) -> None:
    response = await front.http.get("/api/viewers", params={"stream": "No Such"})
    assert (response.status, response.content_type) == (400, "application/problem+json")


async def test_time_is_the_wall_clock(front: Front) -> None:
    before = time.time()
    document = await (await front.http.get("/api/time")).json()
    assert before <= document["time"] <= time.time()


@pytest.mark.parametrize("path", ["/api/streams", "/api/workers", "/api/viewers", "/readyz"])
async def test_without_redis_it_is_503(front: Front, path: str) -> None:
    front.registry.fresh = False
    response = await front.http.get(path)
    assert (response.status, response.content_type) == (503, "application/problem+json")
    assert "Redis" in (await response.json())["detail"]
    assert "Retry-After" in response.headers
    assert (await front.http.get("/healthz")).status == 200


async def test_probes(front: Front) -> None:
    assert await (await front.http.get("/healthz")).json() == {"status": "ok"}
    assert (await front.http.get("/readyz")).status == 200


@pytest.mark.parametrize("unready", [{"state": "draining"}, {"age": 2.5}, None])
async def test_ready_needs_a_ready_worker(front: Front, unready: dict[str, Any] | None) -> None:
    if unready is None:
        front.registry.workers.clear()
    elif "age" in unready:
        front.registry.workers["w-1"].age = unready["age"]
    else:
        front.registry.add_worker("w-1", **unready)
    response = await front.http.get("/readyz")
    assert response.status == 503
    assert "worker" in (await response.json())["detail"]


async def test_other_sites_may_read_the_api(front: Front) -> None:
    response = await front.http.options("/api/streams", headers={"Origin": "https://example.org"})
    assert response.status == 204
    assert response.headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS"
    assert (await front.http.post("/api/streams")).status == 405


async def test_a_full_house_is_ready_for_what_else_there_is_to_serve(front: Front) -> None:
    front.registry.add_worker("w-1", viewers=100)
    assert (await front.http.get("/readyz")).status == 200
