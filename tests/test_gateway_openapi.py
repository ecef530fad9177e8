"""docs/openapi.json says what the gateway does: the same addresses and methods, and answers of the shapes it gives."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator

from broadcaster.bus.messages import ViewersResult, ViewerStatus
from tests.fake_bus import Front

DOCUMENT = json.loads((Path(__file__).parent.parent / "docs" / "openapi.json").read_text(encoding="utf-8"))
METHODS = {"get", "head", "post", "patch", "delete", "options"}


@pytest_asyncio.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with Front(tmp_path).running() as front:
        yield front


def check(document: Any, schema: str) -> None:
    Draft202012Validator({"$ref": f"#/components/schemas/{schema}", **DOCUMENT}).validate(document)


async def test_addresses_and_methods(front: Front) -> None:
    documented = {
        (path, method.upper()) for path, item in DOCUMENT["paths"].items() for method in item if method in METHODS
    }
    served = {
        (route.resource.canonical, route.method)
        for route in front.http.app.router.routes()
        if route.resource is not None
    }
    assert documented == served


@pytest.mark.parametrize("path", ["/api/streams", "/api/workers", "/api/viewers", "/api/time", "/healthz", "/readyz"])
async def test_answers(front: Front, path: str) -> None:
    row = ViewerStatus(
        id="v-1", worker="w-1", stream="main", state="connecting", level=None, fps=None, bitrate=None,
        loss=None, rtt=0.01, estimate=None, since=1.0,
    )  # fmt: skip
    front.bus.answers["w-1"] = lambda method, params: ViewersResult(viewers=[row])
    response = await front.http.get(path)
    schema = DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    check(await response.json(), schema.rpartition("/")[2])


async def test_errors(front: Front) -> None:
    for response in (await front.post("unknown"), await front.http.get("/nowhere"), await front.http.put("/")):
        check(await response.json(), "Problem")
        assert response.status in (404, 405)
