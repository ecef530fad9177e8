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
import time
from typing import Any

from benchmarks.process import Meter
from benchmarks.site import Site, pin
from benchmarks.spectators import Spectators, spectators
from tests.topology import Topology

VIEWERS = 200
"""Of each worker."""

ROUNDS = 4
ROUND = 4.0
SETTLE = 4.0
KBIT = 1000


async def case(workers: int) -> dict[str, Any]:
    """One row."""
    async with Site(
        source="pattern:640x360@30",
        workers=workers,
        worker_arguments=("--capacity", "2000"),
        broadcaster_arguments=("--ladder", f"640x360@{KBIT}k"),
    ) as beamcast:
        for core, process in enumerate(beamcast.workers.values()):
            pin(process.pid, {core % (os.cpu_count() or 1)})
        async with spectators(beamcast, workers * VIEWERS) as crowd:
            await asyncio.sleep(SETTLE)
            async with beamcast.bus() as bus:
                leases = [living.lease for living in await bus.workers()]
            assert len({lease.udp_port for lease in leases}) == workers, "workers share a port"
            viewers = {lease.id: lease.viewers for lease in leases}
            rounds = [await _round(beamcast, crowd, viewers) for _ in range(ROUNDS)]
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


async def _round(beamcast: Topology, crowd: Spectators, viewers: dict[str, int]) -> dict[str, Any]:
    meters = {name: Meter(process.pid) for name, process in beamcast.workers.items()}
    redis, packets, start = Meter(beamcast.redis.pid), crowd.packets, time.monotonic()
    await asyncio.sleep(ROUND)
    packets, seconds = crowd.packets - packets, time.monotonic() - start
    each = {name: meter.cpu() for name, meter in meters.items()}
    return {
        "us": [used / (packets * viewers[name] / sum(viewers.values())) * 1e6 for name, used in each.items()],
        "percent": [used / seconds * 100 for used in each.values()],
        "redis": redis.cpu() / seconds * 100,
        "rate": packets / seconds,
    }


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
