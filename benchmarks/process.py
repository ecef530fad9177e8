"""What a process of this machine uses, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Time on a core since the start, of all threads, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def memory(pid: int) -> int:
    """Resident bytes of the process, shared libraries included."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Rss:"))
