"""What a process of this machine uses, as the kernel counts it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Time on a core since the start, of all threads, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def memory(pid: int) -> int:
    """Resident bytes of the process, shared libraries included."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Rss:"))


class Meter:
    """What a process has used since this was made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._used, self._began = cpu_seconds(pid), time.monotonic()

    def cpu(self) -> float:
        """Seconds."""
        return cpu_seconds(self._pid) - self._used

    def percent(self) -> float:
        """Of a core."""
        return self.cpu() / (time.monotonic() - self._began) * 100


@contextmanager
def held(pid: int) -> Iterator[None]:
    """The process stands still meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
