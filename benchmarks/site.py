"""Site: a whole Beamcast to measure, and the cores that it runs on."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from broadcaster.bus import Bus
from tests.topology import Topology


class Site(Topology):
    """Real processes and a real redis-server, in a folder that goes with them; `arguments` are a Topology's."""

    def __init__(self, **arguments: Any) -> None:
        self._temporary = tempfile.TemporaryDirectory()
        super().__init__(Path(self._temporary.name), **arguments)

    def set_apart(self) -> int:
        """Give the worker a core for itself, and everything else, with this process, the other ones; the worker's."""
        own, *others = range(os.cpu_count() or 1)
        worker = self.workers["worker-1"].pid
        for pid in (os.getpid(), self.redis.pid, *(process.pid for process in self.processes)):
            pin(pid, {own} if pid == worker or not others else set(others))
        return own

    @contextlib.asynccontextmanager
    async def bus(self) -> AsyncIterator[Bus]:
        """What the processes tell each other, for who measures them."""
        bus = Bus(self.redis.url, "benchmark")
        await bus.start()
        try:
            yield bus
        finally:
            await bus.close()

    async def _stop(self) -> None:
        await super()._stop()
        self._temporary.cleanup()


def pin(pid: int, cores: set[int]) -> None:
    """Let all threads of a process run on these cores alone."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)


@contextlib.contextmanager
def pinned_no_longer() -> Iterator[None]:
    """At the end this thread, and what it starts from then on, runs where it could run before."""
    allowed = os.sched_getaffinity(0)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
