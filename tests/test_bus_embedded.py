"""The embedded Redis: each kind carries the bus, and none outlives its parent."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from broadcaster.bus import Bus, EmbeddedRedis, Registry
from broadcaster.bus.embedded import EmbeddedKind
from broadcaster.bus.messages import Event, LeaveParams, LeaveResult, Left, SessionRecord, WorkerLease, decode, key
from broadcaster.errors import BusUnavailableError

pytestmark = pytest.mark.processes

WORKER = WorkerLease(
    id="worker-1", epoch=1, pid=1, host="host", capacity=10, viewers=0, streams={}, state="ready", udp_port=1, since=0.0
)


@pytest_asyncio.fixture(params=["redis-server", "fakeredis"])
async def embedded(request: pytest.FixtureRequest) -> AsyncIterator[EmbeddedRedis]:
    server = EmbeddedRedis(kinds=[request.param])
    await server.start()
    assert server.kind == request.param
    yield server
    await server.stop()


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent's notice does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_it_carries_the_bus(embedded: EmbeddedRedis) -> None:
    async def leave(params: dict[str, Any]) -> LeaveResult:
        return LeaveResult(viewer=params["secret"])

    async with asyncio.timeout(20.0):
        bus = Bus(embedded.url, "worker-1")
        await bus.start()
        lease = bus.lease("worker", "worker-1", lambda: WORKER)
        await lease.acquire()
        registry = Registry(bus)
        await registry.start()
        assert registry.workers["worker-1"].lease == WORKER
        await bus.serve("worker-1", {"leave": leave})
        result = await bus.call("worker-1", "leave", LeaveParams(secret="x"), timeout=5.0, result=LeaveResult)
        assert result.viewer == "x"
        record = SessionRecord(worker="worker-1", stream="main", viewer="v-1", since=0.0)
        await bus.put_session("s3cret", record)
        assert await bus.refresh_sessions(["s3cret"])
        assert await bus.get_session("s3cret") == record
        await bus.put_picture("main", b"\xff\xd8\r\n\x00")
        assert await bus.get_picture("main") == b"\xff\xd8\r\n\x00"
        for number in range(3):
            bus.publish("left", Left(reason="closed", duration=float(number)), stream="main")
            while bus.counters["published"] <= number:
                await asyncio.sleep(0.01)
        entries: Any = await bus.server.redis.xrange(key("events", "main"))
        assert [decode(fields[b"event"], Event).seq for _, fields in entries] == [1, 2, 3]
        await lease.release()
        assert await bus.workers() == []
        await registry.close()
        await bus.close()


async def test_stopping_ends_the_child(embedded: EmbeddedRedis) -> None:
    pid = embedded.pid
    assert pid is not None
    assert alive(pid)
    await embedded.stop()
    assert not alive(pid)
    await embedded.stop()


async def test_one_that_ends_is_started_again_where_it_was(embedded: EmbeddedRedis) -> None:
    first, url = embedded.pid, embedded.url
    assert first is not None
    keeping = asyncio.create_task(embedded.keep())
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(20.0):
        while True:
            bus = Bus(url, "worker-1")
            try:
                await bus.start()
            except BusUnavailableError:
                await asyncio.sleep(0.05)
                continue
            await bus.close()
            break
    assert embedded.pid not in {None, first}
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


@pytest.mark.parametrize("kind", ["redis-server", "fakeredis"])
async def test_it_dies_with_its_parent(kind: EmbeddedKind) -> None:
    program = (
        "import asyncio\nfrom broadcaster.bus import EmbeddedRedis\n"
        f"async def main():\n    server = EmbeddedRedis(kinds=[{kind!r}])\n    await server.start()\n"
        "    print(server.pid, flush=True)\n    await asyncio.Event().wait()\nasyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    async with asyncio.timeout(20.0):
        pid = int(await parent.stdout.readline())
        assert alive(pid)
        os.kill(parent.pid, signal.SIGKILL)
        await parent.wait()
        while alive(pid):
            await asyncio.sleep(0.02)


async def test_without_a_server_on_the_path_fakeredis_steps_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert shutil.which("redis-server") is None
    with pytest.raises(BusUnavailableError, match="none of redis-server, valkey-server could be started"):
        await EmbeddedRedis(kinds=["redis-server", "valkey-server"]).start()
    server = EmbeddedRedis()
    await server.start()
    assert server.kind == "fakeredis"
    await server.stop()
