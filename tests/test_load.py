"""`beamcast load` as a process of its own, against a whole Beamcast and against servers that refuse."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.loop_watch import never_blocked
from tests.topology import Topology, free_port
from workers.load.report import table

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]

WITHOUT_KERNEL = (
    "-c",
    "import sys; sys.modules['workers.load._kernel'] = None; from workers.load.__main__ import main; sys.exit(main())",
)
"""As where it was not built: the import fails."""

SPREAD = {"min", "p1", "p50", "p99", "max"}


@dataclass
class Run:
    code: int
    out: str
    err: str

    @property
    def figures(self) -> Any:
        return json.loads(self.out)


async def start(
    url: str, *arguments: str, module: tuple[str, ...] = ("-m", "broadcaster", "load")
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, *module, url, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ,
    )


async def ended(process: asyncio.subprocess.Process) -> Run:
    async with asyncio.timeout(40):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Run(process.returncode, out.decode(), err.decode())


async def load(url: str, *arguments: str) -> Run:
    return await ended(await start(url, *arguments))


def assert_documented(figures: Any) -> None:
    """The names in docs/load.md."""
    assert {name: set(value) if isinstance(value, dict) else type(value) for name, value in figures.items()} == {
        "url": str,
        "interrupted": bool,
        "seconds": float,
        "viewers": {"wanted", "joined", "connected", "playing", "ended"},
        "join_ms": {"answer", "connected", "first_frame"},
        "packets": {
            *("received", "lost", "loss", "reordered", "thrown_away", "overflowed", "retransmitted", "repaired"),
        },
        "fps": SPREAD,
        "bitrate": SPREAD,
        "jitter_ms": SPREAD,
        "freezes": {"count", "seconds", "viewers"},
        "srtp": {"verified", "failed"},
        "load": {"cpu", "us_per_packet", "packets_per_second"},
        "problems": list,
    }
    assert all(set(one) == SPREAD for one in figures["join_ms"].values())
    assert all(math.isfinite(one) for one in figures["load"].values())


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def loop_never_blocked() -> AsyncIterator[None]:
    """As everywhere, of the loop that these tests share with their Beamcast."""
    with never_blocked():
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def beamcast(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Topology]:
    """One for all these tests; the last of them ends its worker."""
    arguments = ("--capacity", "25", "--drain", "0.2")
    folder = tmp_path_factory.mktemp("beamcast")
    async with Topology(folder, source="pattern:320x180@30", worker_arguments=arguments) as beamcast:
        yield beamcast


async def nobody_is_left(beamcast: Topology) -> None:
    async with asyncio.timeout(5):
        while (await beamcast.get("/api/viewers"))["viewers"]:
            await asyncio.sleep(0.05)


async def until_heard(beamcast: Topology, process: asyncio.subprocess.Process) -> None:
    """Until the worker has heard of a viewer what that got."""
    viewers: list[Any] = []
    try:
        async with asyncio.timeout(15):
            while not any(one["rtt"] is not None for one in viewers):
                viewers = (await beamcast.get("/api/viewers"))["viewers"]
                await asyncio.sleep(0.1)
    except TimeoutError:
        process.send_signal(signal.SIGINT)
        pytest.fail(f"nothing was heard of {viewers}: {await ended(process)}")


async def test_twenty_viewers_play(beamcast: Topology) -> None:
    run = await load(beamcast.url, "--viewers", "20", "--duration", "5", "--json", "-")
    assert run.code == 0, run.err
    figures = run.figures
    assert figures["viewers"] == {"wanted": 20, "joined": 20, "connected": 20, "playing": 20, "ended": 0}
    assert figures["problems"] == []
    assert 27 <= figures["fps"]["p50"] <= 33
    assert figures["packets"]["lost"] == figures["packets"]["overflowed"] == figures["packets"]["reordered"] == 0
    assert figures["packets"]["received"] >= 20 * 27 * 5
    assert figures["srtp"]["failed"] == 0
    assert figures["srtp"]["verified"] >= 19 * 10 + 27 * 5
    # The first frame is timed by the system, the connection by this busy process, which may notice it later.
    assert 0 < figures["join_ms"]["answer"]["p50"] < figures["join_ms"]["connected"]["p50"]
    assert figures["join_ms"]["answer"]["p50"] < figures["join_ms"]["first_frame"]["p50"]
    assert figures["bitrate"]["min"] > 50_000
    assert figures["seconds"] == pytest.approx(5, abs=0.5)
    assert table(figures) in run.err
    assert_documented(figures)
    await nobody_is_left(beamcast)


@pytest.mark.parametrize("module", [("-m", "broadcaster", "load"), WITHOUT_KERNEL], ids=["native", "python"])
async def test_the_worker_hears_what_a_browser_would_say(beamcast: Topology, module: tuple[str, ...]) -> None:
    options = ("--viewers", "3", "--duration", "4", "--loss", "0.2", "--nack", "--no-gro", "--json", "-")
    process = await start(beamcast.url, *options, module=module)
    heard: list[Any] = []
    async with asyncio.timeout(15):
        while len(heard) < 3:
            heard = [
                one for one in (await beamcast.get("/api/viewers"))["viewers"] if one["loss"] and one["rtt"] is not None
            ]
            await asyncio.sleep(0.1)
    assert all(0.02 < one["loss"] < 0.6 for one in heard)
    assert all(0.0 <= one["rtt"] < 0.3 for one in heard)
    run = await ended(process)
    packets = run.figures["packets"]
    assert run.code == 0, run.err
    assert 0.1 < packets["loss"] < 0.35
    assert packets["thrown_away"] > 0
    assert packets["repaired"] > packets["lost"] / 2
    assert packets["retransmitted"] >= packets["repaired"]
    assert run.figures["srtp"]["failed"] == 0
    await nobody_is_left(beamcast)


async def test_a_full_server_is_named_and_those_who_joined_are_measured(beamcast: Topology, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    run = await load(
        beamcast.url + "/whep/main", "--viewers", "30", "--ramp", "30", "--duration", "1", "--json", str(file)
    )
    figures = json.loads(file.read_text())
    assert run.code == 1
    assert run.out == table(figures) + "\n"
    assert run.err.count("\n") == 1
    assert "/whep/main answered 503: " in run.err
    assert "(25 of 30 viewers joined)" in run.err
    assert figures["viewers"]["playing"] == 25
    await nobody_is_left(beamcast)


async def test_an_interrupt_prints_what_was_measured(beamcast: Topology) -> None:
    process = await start(beamcast.url, "--viewers", "2", "--duration", "60", "--json", "-")
    await until_heard(beamcast, process)
    process.send_signal(signal.SIGINT)
    run = await ended(process)
    assert run.code == 0, run.err
    assert run.figures["interrupted"]
    assert run.figures["viewers"]["playing"] == 2
    assert 0 < run.figures["seconds"] < 20
    await nobody_is_left(beamcast)


async def test_viewers_that_lose_their_server_fail_the_run(beamcast: Topology) -> None:
    """And end it, as there is nothing left to watch."""
    process = await start(beamcast.url, "--viewers", "2", "--duration", "90", "--json", "-")
    await until_heard(beamcast, process)
    await beamcast.workers["worker-1"].stop()
    run = await ended(process)
    assert run.code == 1
    assert run.figures["viewers"]["ended"] == 2
    assert "2 viewers lost the connection: the server said goodbye" in run.err
    assert run.figures["seconds"] < 30
    assert not run.figures["interrupted"]


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (web.json_response({"detail": "there is no stream main"}, status=404), "answered 404: there is no stream main"),
        (web.json_response({"detail": "main is off the air"}, status=409), "answered 409: main is off the air"),
        (web.Response(status=401), "answered 401: Unauthorized"),
        (web.Response(status=307, headers={"Location": "http://192.0.2.1/"}), "answered 307: Temporary Redirect"),
        (web.Response(status=201, text="v=0\r\n"), "the server offers no media on loopback"),
        (web.Response(status=200, text="<html>"), "answered 200: OK"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_refusal_is_one_line(response: web.Response, said: str) -> None:
    async def refuse(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        return response

    app = web.Application()
    app.router.add_post("/whep/main", refuse)
    async with TestServer(app) as server:
        run = await load(str(server.make_url("/")), "--viewers", "1", "--token", "secret")
    assert (run.code, run.out) == (1, "")
    assert run.err.startswith("beamcast: ")
    assert said in run.err
    assert run.err.count("\n") == 1


async def test_a_server_that_is_not_there_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    run = await load(url)
    assert (run.code, run.out) == (1, "")
    assert run.err.startswith(f"beamcast: no server at {url}/whep/main: ")
    assert run.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["http://192.0.2.1:8080"], "--i-own-this-server"),
        (["127.0.0.1:8080"], "is not the address of a server"),
        (["http://127.0.0.1:8080", "--loss", "1.5"], "is not a share"),
        (["http://127.0.0.1:8080", "--ramp", "0"], "is not a number above zero"),
        (["http://127.0.0.1:8080", "--duration", "long"], "is not a number"),
        ([], "URL"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_is_sent(arguments: list[str], said: str) -> None:
    run = await load(*(arguments or ["--nack"]))
    assert (run.code, run.out) == (2, "")
    assert said in run.err
    assert run.err.count("\n") == 1
