"""What every process does when it is told to stop, loses its parent or cannot run; with real processes and signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from broadcaster.process import LOG_LEVEL_VARIABLE, SUPERVISOR_VARIABLE

pytestmark = pytest.mark.processes

PATIENCE = 20.0
HEAD = """
import asyncio, logging, sys, time
from broadcaster.errors import ConfigurationError, LinkError
from broadcaster.process import run
log = logging.getLogger("test")
"""
OBEDIENT = """
async def body(shutdown):
    print("ready", shutdown.requested, flush=True)
    await shutdown.wait()
    print("stopped", shutdown.requested, flush=True)
"""
DEAF = """
async def body(shutdown):
    print("ready", flush=True)
    await shutdown.wait()
    print("deaf", flush=True)
    await asyncio.sleep(60)
"""
STUCK = """
async def body(shutdown):
    print("ready", flush=True)
    time.sleep(60)
"""
TAIL = "sys.exit(run(body, name='%s'))"


@asynccontextmanager
async def process(body: str, *, name: str = "proc-1", **environment: str) -> AsyncIterator[Process]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HEAD + body + TAIL % name,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, **environment},
    )
    try:
        async with asyncio.timeout(PATIENCE):
            yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def line(child: Process) -> str:
    assert child.stdout is not None
    return (await child.stdout.readline()).decode().strip()


async def ended(child: Process) -> tuple[int | None, str, list[str]]:
    out, err = await child.communicate()
    return child.returncode, out.decode(), err.decode().splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_asks_for_the_shutdown(number: signal.Signals) -> None:
    async with process(OBEDIENT) as child:
        assert await line(child) == "ready False"
        child.send_signal(number)
        code, out, err = await ended(child)
    assert code == 0
    assert out == "stopped True\n"
    assert len(err) == 1
    assert err[0].endswith(f" INFO proc-1 broadcaster.process: stopping: {number.name}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_second_signal_ends_it_at_once(number: signal.Signals, code: int) -> None:
    async with process(DEAF) as child:
        await line(child)
        child.send_signal(number)
        assert await line(child) == "deaf"
        child.send_signal(number)
        assert (await ended(child))[0] == code


async def test_a_second_signal_ends_it_even_when_its_loop_is_stuck() -> None:
    async with process(STUCK) as child:
        await line(child)
        child.send_signal(signal.SIGINT)
        # The same signal twice in a row can arrive as one; another one cannot.
        child.send_signal(signal.SIGTERM)
        assert (await ended(child))[0] in {130, 143}


async def test_it_stops_when_its_supervisor_dies() -> None:
    supervisor = f"""
import os, subprocess, sys
os.environ[{SUPERVISOR_VARIABLE!r}] = str(os.getpid())
subprocess.Popen([sys.executable, "-c", {HEAD + OBEDIENT + TAIL % "child"!r}]).wait()
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", supervisor, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(PATIENCE):
        assert await line(parent) == "ready False"
        parent.kill()
        # Both pipes end when the child, which has inherited them, has ended as well.
        _, out, err = await ended(parent)
    assert out == "stopped True\n"
    assert f"the supervisor, process {parent.pid}, has ended" in err[0]


async def test_a_living_supervisor_changes_nothing() -> None:
    async with process(OBEDIENT, **{SUPERVISOR_VARIABLE: str(os.getpid())}) as child:
        await line(child)
        await asyncio.sleep(1.2)
        assert child.returncode is None
        child.terminate()
        assert (await ended(child))[0] == 0


@pytest.mark.parametrize(
    ("body", "environment", "code", "says"),
    [
        ("raise LinkError('no such port')", {}, 1, "beamcast: no such port"),
        ("raise ConfigurationError('not that')", {}, 2, "beamcast: not that"),
        ("pass", {SUPERVISOR_VARIABLE: "me"}, 2, f"beamcast: {SUPERVISOR_VARIABLE}=me is not a process id"),
        ("pass", {LOG_LEVEL_VARIABLE: "loud"}, 2, "beamcast: 'loud' is not a log level"),
    ],
)
async def test_an_error_of_ours_is_one_line(body: str, environment: dict[str, str], code: int, says: str) -> None:
    async with process(f"async def body(shutdown): {body}\n", **environment) as child:
        returned, _, err = await ended(child)
    assert returned == code
    assert len(err) == 1
    assert err[0].startswith(says)


async def test_an_unexpected_error_is_logged_on_one_line_with_its_traceback() -> None:
    async with process("async def body(shutdown): 1 / 0\n") as child:
        code, _, err = await ended(child)
    assert code == 1
    assert len(err) == 1
    assert "Traceback" in err[0]
    assert "ZeroDivisionError" in err[0]


async def test_the_log_has_one_line_a_record_and_a_level() -> None:
    body = "async def body(shutdown): log.debug('hidden'); log.warning('two\\nlines %d%%', 100)\n"
    async with process(body, name="50%") as child:
        _, _, err = await ended(child)
    assert len(err) == 1
    assert err[0].split(" ", 1)[1] == "WARNING 50% test: two\\nlines 100%"
    async with process(body, **{LOG_LEVEL_VARIABLE: "DEBUG"}) as child:
        _, _, err = await ended(child)
    assert any("hidden" in record for record in err)
