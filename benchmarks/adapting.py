"""What adaptation takes in a worker: the decisions in Python, and the estimators of the paths in the kernel.

As `python -m benchmarks.adapting FILE ARGUMENTS...` it is a worker that counts the CPU time of its adaptation, and once
a second writes the sum to a file. Counted is everything behind a viewer's feedback or tick that decides: reading the
estimate, ViewerAdapter.update, carrying a decision out, comparing neighbours, telling the broadcaster of the audience.
The kernel's part is sampled (benchmarks.shares).

The viewers start in the middle of a ladder and climb by probes to its top; "climbs" are the seconds in which they do,
when each feedback leads to a decision, "steady" is later.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from benchmarks.process import Meter
from benchmarks.shares import shares
from benchmarks.site import Site
from benchmarks.spectators import spectators
from broadcaster.settings import main_with_errors
from tests.topology import Process
from workers.__main__ import main
from workers.steering import Steering
from workers.worker import Worker

SOURCE = "pattern:1280x720@30"
LADDER = "1280x720@1500k,640x360@500k,320x180@150k"
COUNTED = ((Steering, "update"), (Worker, "_compare_neighbours"), (Worker, "_tell_audiences"))
CLIMB = 10.0
"""Seconds after the joins in which they climb."""

SETTLE = 10.0
STEADY = 10.0
BAR = 1.0
"""Percent of a core for 100 viewers."""


class Counted(Site):
    """Whose workers count."""

    @property
    def sums(self) -> Path:
        return self._folder / "adaptation"

    def worker(self, name: str) -> Process:
        process = super().worker(name)
        process.arguments[:1] = ["benchmarks.adapting", str(self.sums)]
        return process

    def seconds(self) -> float:
        """Of CPU, as of the worker's last tick."""
        found: float = struct.unpack("=d", self.sums.read_bytes())[0]
        return found


async def measure(viewers: int) -> dict[str, Any]:
    """One row: percent of a core for 100 of these viewers."""
    loop = asyncio.get_running_loop()
    async with Counted(
        source=SOURCE,
        worker_arguments=("--capacity", "2000"),
        broadcaster_arguments=("--ladder", LADDER),
    ) as beamcast:
        beamcast.set_apart()
        worker = beamcast.workers["worker-1"].pid
        row: dict[str, Any] = {"viewers": viewers}
        async with spectators(beamcast, viewers):
            for state, pause, span in (("climbing", 0.0, CLIMB), ("steady", SETTLE, STEADY)):
                await asyncio.sleep(pause)
                counted, meter, start = beamcast.seconds(), Meter(worker), loop.time()
                found = await shares(worker, span)
                seconds = loop.time() - start
                scale = 100 / seconds * 100 / viewers
                python = (beamcast.seconds() - counted) * scale
                native = None if found is None else meter.cpu() * found["estimator"] * scale
                row[f"{state}_python_percent_of_100"] = python
                row[f"{state}_estimator_percent_of_100"] = native
                row[f"{state}_percent_of_100"] = python + (native or 0.0)
    return row


def _counted(step: Callable[..., Any], sums: list[float]) -> Callable[..., Any]:
    @wraps(step)
    def run(*arguments: Any) -> Any:
        before = time.thread_time()
        try:
            return step(*arguments)
        finally:
            sums[0] += time.thread_time() - before

    return run


def _worker() -> int:
    """A worker whose adaptation is counted in the file that is the first argument."""
    sums, tick = [0.0], Worker._tick
    descriptor = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)

    def tell() -> None:
        os.pwrite(descriptor, struct.pack("=d", sums[0]), 0)

    tell()
    for kind, name in COUNTED:
        setattr(kind, name, _counted(getattr(kind, name), sums))

    def told(worker: Worker, lag: float) -> None:
        tick(worker, lag)
        tell()

    Worker._tick = told  # type: ignore[method-assign,assignment]
    return main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main_with_errors(_worker))
