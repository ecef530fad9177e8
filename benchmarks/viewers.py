"""What viewers cost a worker: to join, to be there, to play; CPU and memory of the whole process.

A real worker, broadcaster, gateway and redis-server; the viewers have real ICE, DTLS and SRTCP (benchmarks.audience).
"Idle" is a connected viewer to which no media flows, because the source stands still: it checks every 2.65 s and sends
a receiver report with REMB each second. What 100 of them cost is what the process takes more than with no viewer
("empty"). "Playing" is 640x360 at 30 fps, of the whole process. CPU is the least of several rounds, since whatever
else runs on the machine only adds to it; all rounds are in the result.
"""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.audience import Audience
from benchmarks.judgement import below
from benchmarks.process import Meter, held, memory
from benchmarks.site import Site

SOURCE = "pattern:640x360@30"
FEW, MANY, MEASURED = 20, 220, 100
BATCH = 50
"""Joins of one round."""

ROUNDS = 4
ROUND = 3.0
SETTLE = 2.0
BARS = {"join_ms": 3.0, "memory_kb": 120.0, "idle_percent": 0.5}


async def measure() -> dict[str, Any]:
    """All figures, in about 50 seconds."""
    async with Site(source=SOURCE, worker_arguments=("--capacity", "1000")) as beamcast:
        worker, source = beamcast.workers["worker-1"].pid, beamcast.broadcaster.pid
        await asyncio.sleep(SETTLE)
        empty = await _rounds(worker)
        audience = Audience(beamcast)
        await audience.join(FEW)
        await asyncio.sleep(SETTLE)
        before = memory(worker)
        joins = []
        with held(source):
            for _ in range((MANY - FEW) // BATCH):
                meter = Meter(worker)
                await audience.join(BATCH)
                joins.append(meter.cpu() / BATCH * 1e3)
        await asyncio.sleep(SETTLE)
        grown = (memory(worker) - before) / (MANY - FEW)
        audience.leave(MANY - MEASURED)
        await asyncio.sleep(SETTLE)
        packets = audience.packets
        playing = await _rounds(worker)
        packets = audience.packets - packets
        with held(source):
            await asyncio.sleep(SETTLE)
            idle = await _rounds(worker)
        audience.leave(MEASURED)
    return {
        "viewers": MEASURED,
        "bars": BARS,
        "join_ms": min(joins),
        "join_ms_rounds": joins,
        "memory_kb": grown / 1e3,
        "empty_percent": min(empty),
        "idle_percent": min(idle) - min(empty),
        "idle_process_percent_rounds": idle,
        "playing_percent": min(playing),
        "playing_percent_rounds": playing,
        "playing_packets_per_second": packets / (ROUNDS * ROUND),
    }


async def _rounds(pid: int) -> list[float]:
    """Percent of a core in each round."""
    shares = []
    for _ in range(ROUNDS):
        meter = Meter(pid)
        await asyncio.sleep(ROUND)
        shares.append(meter.percent())
    return shares


def run() -> dict[str, Any]:
    """Measure, and say what holds."""
    figures = asyncio.run(measure())
    for name, unit in (
        ("join_ms", "ms CPU a join"),
        ("memory_kb", "kB a viewer"),
        ("idle_percent", "% of a core for 100 idle"),
    ):
        print(f"{figures[name]:8.2f} {unit}; {below(figures[name], BARS[name])}")
    print(f"{figures['playing_percent']:8.2f} % of a core for {MEASURED} playing")
    return figures
