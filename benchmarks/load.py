"""What `beamcast load` costs beside the worker that it loads: CPU per packet of both, in the same seconds.

Real processes; the load generator is the one that users start. What is measured begins when all have joined.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE
from typing import Any

from benchmarks.process import Meter
from benchmarks.site import Site
from tests.topology import Topology

CASES = ((50, ()), (200, ()), (1000, ()), (200, ("--no-gro",)))
"""Viewers, and more options of `beamcast load`."""

RAMP = 40
ROUNDS, ROUND, SETTLE = 4, 4.0, 4.0
KBIT = 1000


async def case(viewers: int, options: tuple[str, ...]) -> dict[str, Any]:
    """One row."""
    async with Site(
        source="pattern:640x360@30",
        worker_arguments=("--capacity", "2000"),
        broadcaster_arguments=("--ladder", f"640x360@{KBIT}k"),
    ) as beamcast:
        duration = str(SETTLE + ROUNDS * ROUND + 2.0)
        load = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "broadcaster", "load", beamcast.url, "--viewers", str(viewers)),
            *("--ramp", str(RAMP), "--duration", duration, "--json", "-", *options),
            stdout=PIPE,
            stderr=PIPE,
        )
        try:
            await asyncio.sleep(viewers / RAMP + SETTLE)
            (worker,) = (await beamcast.get("/api/workers"))["workers"]
            assert worker["viewers"] == viewers, "they join more slowly than they should"
            rounds = [await _round(beamcast, load.pid) for _ in range(ROUNDS)]
            out, err = await load.communicate()
        finally:
            if load.returncode is None:
                load.kill()
                await load.wait()
    assert load.returncode == 0, err.decode()
    figures = json.loads(out)
    rate = figures["load"]["packets_per_second"]
    costs = [(own, worker, seconds * rate) for own, worker, seconds in rounds]
    us = [(own / packets * 1e6, worker / packets * 1e6) for own, worker, packets in costs]
    mine, theirs = min(us, key=sum)
    return {
        "viewers": viewers,
        "options": " ".join(options) or None,
        "packets_a_second": rate,
        "load_us": mine,
        "worker_us": theirs,
        "load_by_worker": mine / theirs,
        "load_percent_of_a_core": mine * rate / 1e4,
        "lost": figures["packets"]["lost"],
        "load_by_worker_rounds": [own / worker for own, worker in us],
    }


async def _round(beamcast: Topology, load: int) -> tuple[float, float, float]:
    """CPU seconds of the load generator and of the worker, and seconds."""
    own, worker, start = Meter(load), Meter(beamcast.workers["worker-1"].pid), time.monotonic()
    await asyncio.sleep(ROUND)
    return own.cpu(), worker.cpu(), time.monotonic() - start


def run() -> dict[str, Any]:
    """Measure every case."""
    rows = []
    for viewers, options in CASES:
        row = asyncio.run(case(viewers, options))
        rows.append(row)
        costs = f"load {row['load_us']:.2f}, worker {row['worker_us']:.2f} µs a packet ({row['load_by_worker']:.2f})"
        print(f"{' '.join((str(viewers), 'viewers', *options))}: {costs}; {row['lost']} lost", flush=True)
    return {"rows": rows}
