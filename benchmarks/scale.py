"""Whether workers get in each other's way: CPU per packet of each, with one and with several on one machine.

Real processes as `beamcast up --workers N` starts them; each worker has its own UDP port and, here, its own core. The
load of a worker is the same in all rows. The viewers, the broadcaster, the gateway and redis-server run on the same
cores as the workers, so that this is no measurement of how much a machine carries; a cost per packet that stays the
same with each worker says that they share nothing that they wait for. `viewers_a_core` is what a core would carry at
that cost, when nothing else runs on it.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.process import cpu_seconds
from benchmarks.spectators import pin, spectators
from broadcaster.bus import Bus
from broadcaster.bus.messages import WorkerLease
from tests.topology import Topology

VIEWERS = 200
"""Of each worker."""

ROUNDS = 4
ROUND = 4.0
SETTLE = 4.0
KBIT = 1000


async def case(workers: int) -> dict[str, Any]:
    """One row."""
    with tempfile.TemporaryDirectory() as folder:
        async with Topology(
            Path(folder),
            source="pattern:640x360@30",
            workers=workers,
            worker_arguments=("--capacity", "2000"),
            broadcaster_arguments=("--ladder", f"640x360@{KBIT}k"),
        ) as beamcast:
            for core, process in enumerate(beamcast.workers.values()):
                pin(process.pid, {core % (os.cpu_count() or 1)})
            pids = {name: process.pid for name, process in beamcast.workers.items()}
            async with spectators(beamcast.http, beamcast.url, beamcast.stream, workers * VIEWERS) as crowd:
                await asyncio.sleep(SETTLE)
                leases = await _leases(beamcast.redis.url)
                assert len({lease.udp_port for lease in leases}) == workers, "workers share a port"
                viewers = {lease.id: lease.viewers for lease in leases}
                rounds = []
                for _ in range(ROUNDS):
                    used = {name: cpu_seconds(pid) for name, pid in pids.items()}
                    redis, packets, start = (
                        cpu_seconds(beamcast.redis.pid),
                        crowd.packets,
                        asyncio.get_running_loop().time(),
                    )
                    await asyncio.sleep(ROUND)
                    packets = crowd.packets - packets
                    seconds = asyncio.get_running_loop().time() - start
                    each = {name: cpu_seconds(pid) - used[name] for name, pid in pids.items()}
                    rounds.append(
                        {
                            "us": [
                                each[name] / (packets * viewers[name] / sum(viewers.values())) * 1e6 for name in pids
                            ],
                            "percent": [each[name] / seconds * 100 for name in pids],
                            "redis": (cpu_seconds(beamcast.redis.pid) - redis) / seconds * 100,
                            "rate": packets / seconds,
                        }
                    )
                lost = crowd.lost
    best = min(rounds, key=lambda one: sum(one["us"]))
    return {
        "workers": workers,
        "viewers": workers * VIEWERS,
        "viewers_of_each": list(viewers.values()),
        "us_of_each": best["us"],
        "cpu_percent_of_each": best["percent"],
        "viewers_a_core": 100 * VIEWERS * workers / sum(best["percent"]),
        "packets_a_second": best["rate"],
        "redis_percent": best["redis"],
        "lost": lost,
        "us_rounds": [sum(one["us"]) / workers for one in rounds],
    }


async def _leases(url: str) -> list[WorkerLease]:
    bus = Bus(url, "benchmark")
    await bus.start()
    try:
        return [living.lease for living in await bus.workers()]
    finally:
        await bus.close()


def run() -> dict[str, Any]:
    """Measure one worker, two, and so on up to one for each core, doubling."""
    most = os.cpu_count() or 1
    rows = []
    workers = 1
    while workers <= max(2, most):
        row = asyncio.run(case(workers))
        rows.append(row)
        each = ", ".join(f"{us:.2f}" for us in row["us_of_each"])
        print(f"{workers} workers, {row['viewers']} viewers: {each} µs a packet; {row['lost']} lost", flush=True)
        workers *= 2
    costs = [sum(row["us_of_each"]) / row["workers"] for row in rows]
    return {"viewers_of_a_worker": VIEWERS, "cost_by_cost_of_one": [cost / costs[0] for cost in costs], "rows": rows}
