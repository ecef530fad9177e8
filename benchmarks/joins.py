"""A thousand joins in a row, each leaving again: CPU of each, and whether the memory comes back.

A real worker, broadcaster, gateway and redis-server; viewers have real ICE, DTLS and SRTCP (benchmarks.audience). The
source stands still, so that what is counted is the join and the leave and no media. Memory is the resident size of the
worker: before, which is after the first joins have brought in what stays; after the thousand; with many viewers at
once; and after these have left.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from benchmarks.audience import Audience
from benchmarks.judgement import below
from benchmarks.process import Meter, held, memory
from benchmarks.site import Site

JOINS = 1000
BATCH = 100
"""Joins of one round."""

AT_ONCE = 4
MANY = 200
WARM = 100
SETTLE = 3.0
PAUSE = 1.5
"""Between two rounds, in which the source runs: after five seconds of silence it counts as gone."""

BARS = {"join_ms": 2.0, "memory_growth": 1.05}


async def measure() -> dict[str, Any]:
    """All figures, in about a minute."""
    async with Site(source="pattern:640x360@30", worker_arguments=("--capacity", "1000")) as beamcast:
        worker, source = beamcast.workers["worker-1"].pid, beamcast.broadcaster.pid
        audience = Audience(beamcast)
        await audience.join(MANY)
        audience.leave(MANY)
        await _in_a_row(audience, WARM)
        await asyncio.sleep(SETTLE)
        before = memory(worker)
        rounds = []
        for _ in range(JOINS // BATCH):
            with held(source):
                meter = Meter(worker)
                await _in_a_row(audience, BATCH)
                rounds.append(meter.cpu() / BATCH * 1e3)
            await asyncio.sleep(PAUSE)
        await asyncio.sleep(SETTLE)
        after = memory(worker)
        await audience.join(MANY)
        full = memory(worker)
        audience.leave(MANY)
        await asyncio.sleep(SETTLE)
        emptied = memory(worker)
    return {
        "bars": BARS,
        "joins": JOINS,
        "join_ms": min(rounds),
        "join_ms_mean": sum(rounds) / len(rounds),
        "join_ms_rounds": rounds,
        "memory_mb_before": before / 1e6,
        "memory_mb_after": after / 1e6,
        "memory_growth": after / before,
        "viewers_at_once": MANY,
        "memory_mb_with_them": full / 1e6,
        "memory_mb_when_they_left": emptied / 1e6,
        "memory_growth_when_they_left": emptied / before,
        "load": os.getloadavg()[0],
    }


async def _in_a_row(audience: Audience, count: int) -> None:
    """Some at a time, as a machine with more than one core would; each leaves as soon as it is connected."""
    for _ in range(count // AT_ONCE):
        await audience.join(AT_ONCE)
        audience.leave(AT_ONCE)


def run() -> dict[str, Any]:
    """Measure, and say what holds."""
    figures = asyncio.run(measure())
    for name, unit in (("join_ms", "ms CPU a join"), ("memory_growth", "times the memory after all joins")):
        print(f"{figures[name]:8.3f} {unit}; {below(figures[name], BARS[name])}")
    print(f"{figures['memory_growth_when_they_left']:8.3f} times the memory after {MANY} viewers at once")
    return figures
