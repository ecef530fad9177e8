"""The command `beamcast` as a person meets it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from broadcaster.settings import own_name
from tests.redis_server import RedisServer
from tests.topology import free_port
from tests.viewer import AiortcViewer

pytestmark = [pytest.mark.processes, pytest.mark.timeout(60)]

BEAMCAST = [sys.executable, "-m", "broadcaster"]


def beamcast(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BEAMCAST, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
        env={**os.environ, **environment},
    )


def together(*commands: list[str]) -> list[subprocess.CompletedProcess[str]]:
    """What becomes of each, as many at a time as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda command: beamcast(*command), commands))


@asynccontextmanager
async def running_up(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`beamcast up`, and the URL that it printed."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *BEAMCAST,
        *("up", "--port", str(port), *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "BEAMCAST_ANNOUNCE": "127.0.0.1"},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            line = (await process.stdout.readline()).decode()
        assert f"http://127.0.0.1:{port}/" in line
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(15):
                await process.wait()


def family(pid: int) -> set[int]:
    """The process ids of all that `pid` started, from /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found, waiting = set(), [pid]
    while waiting:
        parent = waiting.pop()
        children = [child for child, of in parents.items() if of == parent]
        found.update(children)
        waiting += children
    return found


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


def children_named(name: str, pid: int) -> set[int]:
    """The processes that `pid` started with `name` in their command line."""
    found = set()
    for child in family(pid):
        with contextlib.suppress(FileNotFoundError):  # it ended in this moment
            if name.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                found.add(child)
    return found


async def test_up_plays_and_leaves_nothing_running() -> None:
    async with running_up("--workers", "2", "--stream", "demo", "--udp-ports", "0") as (process, url):
        async with aiohttp.ClientSession() as http, AiortcViewer(http, url, "demo") as viewer:
            await viewer.until(10)
        children = family(process.pid)
        assert len(children) >= 5
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(15):
            await process.wait()
    assert not alive(children)


async def test_a_killed_supervisor_takes_its_children_along() -> None:
    async with running_up("--workers", "1", "--udp-ports", "0") as (process, _):
        children = family(process.pid)
        assert len(children) >= 4
        process.kill()
        await process.wait()
        async with asyncio.timeout(15):
            while alive(children):
                await asyncio.sleep(0.1)


async def test_an_ended_worker_is_started_again() -> None:
    async with running_up("--workers", "1", "--udp-ports", "0") as (process, url), aiohttp.ClientSession() as http:

        async def worker_other_than(known: set[int]) -> int:
            async with asyncio.timeout(20):
                while True:
                    async with http.get(f"{url}/api/workers") as response:
                        found = {worker["pid"] for worker in (await response.json())["workers"]} - known
                    if found:
                        return int(found.pop())
                    await asyncio.sleep(0.1)

        first = await worker_other_than(set())
        assert first in family(process.pid)
        os.kill(first, signal.SIGKILL)
        await worker_other_than({first})
        async with AiortcViewer(http, url, "main") as viewer:
            await viewer.until(5)


async def test_two_of_them_share_a_redis(redis_server: RedisServer) -> None:
    shared = ("pattern:320x180@15", "--redis-url", redis_server.url, "--workers", "1", "--udp-ports", "0", "--stream")
    async with (
        running_up(*shared, "one"),
        running_up(*shared, "two") as (process, url),
        aiohttp.ClientSession() as http,
        asyncio.timeout(10),
    ):
        workers: set[int] = set()
        while len(workers) < 2:  # the gateway looks every half second
            async with http.get(f"{url}/api/workers") as response:
                workers = {worker["pid"] for worker in (await response.json())["workers"]}
            await asyncio.sleep(0.05)
        assert len(family(process.pid) & workers) == 1


async def test_an_interrupt_is_heard_while_it_starts() -> None:
    process = await asyncio.create_subprocess_exec(
        *BEAMCAST,
        *("up", "--port", "0", "--workers", "60", "--udp-ports", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    async with asyncio.timeout(30):
        while not (workers := children_named("workers", process.pid)):
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        while process.returncode is None:
            workers |= children_named("workers", process.pid)
            await asyncio.sleep(0.05)
        assert process.stdout is not None
        assert await process.stdout.read() == b""
    assert process.returncode == 0
    assert len(workers) < 30, "it goes on starting them"
    assert not alive(workers)


async def test_any_free_port_is_said_and_a_redis_that_ends_is_started_again() -> None:
    process = await asyncio.create_subprocess_exec(
        *BEAMCAST,
        *("up", "pattern:320x180@15", "--workers", "1", "--port", "0", "--udp-ports", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(40), aiohttp.ClientSession() as http:
            url = (await process.stdout.readline()).decode().split()[3]

            async def a_worker_answers() -> None:
                status = 0
                while status != 422:  # which is what a worker makes of this offer
                    await asyncio.sleep(0.05)
                    sdp = {"Content-Type": "application/sdp"}
                    async with http.post(f"{url}whep/main", data="v=0", headers=sdp) as response:
                        status = response.status

            await a_worker_answers()
            (redis,) = children_named("redis-server", process.pid)
            os.kill(redis, signal.SIGKILL)
            while not children_named("redis-server", process.pid) - {redis}:
                await asyncio.sleep(0.05)
            await a_worker_answers()
    finally:
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(15):
            await process.wait()


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = beamcast("up", "--port", str(taken.getsockname()[1]))
    assert result.returncode == 2
    assert "--port" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_redis_that_does_not_answer_is_one_clear_line() -> None:
    commands = (["worker"], ["gateway", "--port", "0"], ["broadcast", "pattern", "--stream", "x"], ["events"])
    url = f"redis://127.0.0.1:{free_port()}"
    for command, result in zip(
        commands, together(*([*command, "--redis-url", url] for command in commands)), strict=True
    ):
        assert result.returncode == 1, command
        assert "does not answer" in result.stderr, command
        assert len(result.stderr.strip().splitlines()) == 1, (command, result.stderr)


def test_a_source_that_cannot_be_opened_is_one_clear_line() -> None:
    result = beamcast("broadcast", "/nowhere/film.mp4", "--stream", "main")
    assert result.returncode == 1
    assert "/nowhere/film.mp4" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["fly"], {}, "fly"),
        (["up", "--port", "99999"], {}, "99999"),
        (["up", "--workers", "0"], {}, "above zero"),
        (["up", "--stream", "Ünicode!"], {}, "cannot name a stream"),
        (["up", "--udp-ports", "5-1"], {}, "FIRST-LAST"),
        (["up", "--workers", "3", "--udp-ports", "41000-41001"], {}, "3 workers need as many ports"),
        (["gateway", "--token", "a b"], {}, "visible ASCII"),
        (["load", "http://127.0.0.1:1", "--token", "a\nb"], {}, "visible ASCII"),
        (["up", "--redis-url", "http://x"], {}, "redis://"),
        (["up", "--nonsense"], {}, "--nonsense; `beamcast up --help` lists what there is"),
        (["worker"], {"BEAMCAST_UDP_PORTS": "many"}, "BEAMCAST_UDP_PORTS"),
    ],
)
def test_bad_settings_are_one_clear_line(arguments: list[str], environment: dict[str, str], says: str) -> None:
    result = beamcast(*arguments, **environment)
    assert result.returncode == 2
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_help_tells_no_secrets() -> None:
    result = beamcast("gateway", "--help", BEAMCAST_TOKEN="s3cret", BEAMCAST_PORT="9")
    assert "s3cret" not in result.stdout
    assert "(default: 8080)" in result.stdout
    assert "(default: *)" in result.stdout


def test_processes_that_nobody_named_have_names_of_their_own() -> None:
    """Replicas of a container on one host have the same host name, and the same process id."""
    names = {own_name("worker") for _ in range(10)}
    assert len(names) == 10
    assert all(name.startswith(f"worker-{socket.gethostname()}-") for name in names)


def test_help_and_version() -> None:
    commands = ("up", "broadcast", "worker", "gateway", "events", "status")
    usage, version, *others = together(["--help"], ["--version"], *([command, "--help"] for command in commands))
    assert "broadcast SOURCE" in usage.stdout
    assert version.stdout.startswith("beamcast ")
    for result in others:
        assert result.returncode == 0, result.stderr
        assert "BEAMCAST_" in result.stdout
