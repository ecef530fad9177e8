"""Whether one bad viewer is felt by the others: the spacing of their packets without it and with it, by turns.

A real worker (640x360 at 30 fps, 1 Mbit/s) with 20 viewers of `beamcast load`, whose packets the system stamps one by
one as they arrive. Spacing is the time between two packets of a viewer; p99 is over all of them. The bad viewer comes
to the same worker and rung:

- loses: throws 20 % of its packets away and asks for them again, as browsers do;
- deaf: reads nothing any more, while its checks and reports go on;
- floods: 500 NACKs a second for its last 17 packets;
- vanishes: its socket is gone, without a goodbye; the system answers what is sent there with ICMP errors;
- nobody: no bad viewer at all, which shows what this machine does by itself.

Each round has a time without and a time with it; p99 is taken over all rounds, and all rounds are in the result.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import numpy as np

from benchmarks.judgement import verdict
from benchmarks.site import Site, pinned_no_longer
from benchmarks.spectators import Spectators, present, spectators
from workers.load import feedback
from workers.load.crowd import Crowd, CrowdSettings
from workers.load.session import Whep, endpoint

VIEWERS = 20
ROUNDS = 6
ROUND = 4.0
SETTLE = 1.5
LOSS = 0.2
FLOOD = 500
FLOODED = 17
BAR = 1.1
"""How much p99 may grow."""


class Deaf(Crowd):
    """Reads until its viewers are connected, and never again."""

    def _read(self) -> None: ...


@contextlib.asynccontextmanager
async def nobody(whep: Whep) -> AsyncIterator[None]:
    yield


@contextlib.asynccontextmanager
async def loses(whep: Whep) -> AsyncIterator[None]:
    async with present(Crowd(whep, CrowdSettings(viewers=1, loss=LOSS, nack=True))):
        yield


@contextlib.asynccontextmanager
async def deaf(whep: Whep) -> AsyncIterator[None]:
    async with present(Deaf(whep, CrowdSettings(viewers=1))):
        yield


@contextlib.asynccontextmanager
async def floods(whep: Whep) -> AsyncIterator[None]:
    crowd = Crowd(whep, CrowdSettings(viewers=1))
    async with present(crowd), asyncio.TaskGroup() as tasks:
        flooding = tasks.create_task(_flood(crowd))
        yield
        flooding.cancel()


async def _flood(crowd: Crowd) -> None:
    client = crowd.clients[0]
    while True:
        await asyncio.sleep(0.02)
        newest = int(crowd.counters.highest[0])
        for _ in range(FLOOD // 50):
            numbers = range(newest - FLOODED + 1, newest + 1)
            client.send(client.protect_rtcp(feedback.nack(client.answer.ssrc, numbers)))


@contextlib.asynccontextmanager
async def vanishes(whep: Whep) -> AsyncIterator[None]:
    crowd = Crowd(whep, CrowdSettings(viewers=1))
    await crowd.join()
    crowd.clients[0].socket.close()
    yield
    for session in crowd._sessions:
        await whep.leave(session)


KINDS: tuple[Callable[[Whep], contextlib.AbstractAsyncContextManager[None]], ...] = (
    nobody,
    loses,
    deaf,
    floods,
    vanishes,
)


async def measure() -> list[dict[str, Any]]:
    """A row for each kind, in about five minutes."""
    async with Site(source="pattern:640x360@30", broadcaster_arguments=("--ladder", "640x360@1000k")) as beamcast:
        beamcast.set_apart()
        async with spectators(beamcast, VIEWERS, singly=True) as crowd:
            await asyncio.sleep(SETTLE)
            url = endpoint(beamcast.url, beamcast.stream)
            return [await _kind(kind, beamcast.http, url, crowd) for kind in KINDS]


async def _kind(kind: Any, http: aiohttp.ClientSession, url: str, crowd: Spectators) -> dict[str, Any]:
    whep = Whep(http, url, token=None, loopback=True)
    without, having = [], []
    for _ in range(ROUNDS):
        without.append(await _spacing(crowd))
        async with kind(whep):
            await asyncio.sleep(SETTLE)
            having.append(await _spacing(crowd))
        await asyncio.sleep(SETTLE)
    row = {
        "bad_viewer": kind.__name__,
        "without_ms": _p99(np.concatenate(without)),
        "with_ms": _p99(np.concatenate(having)),
    }
    row["change"] = row["with_ms"] / row["without_ms"]
    row["without_ms_rounds"] = [_p99(one) for one in without]
    row["with_ms_rounds"] = [_p99(one) for one in having]
    print(
        f"{row['bad_viewer']:>10} {row['without_ms']:8.2f} {row['with_ms']:8.2f} ms  x {row['change']:.3f}", flush=True
    )
    return row


async def _spacing(crowd: Spectators) -> Any:
    """Seconds between packets of a viewer, of all viewers in one round."""
    await asyncio.sleep(crowd.settings.tick)
    crowd.arrivals.clear()
    await asyncio.sleep(ROUND)
    viewer = np.concatenate([one[0] for one in crowd.arrivals])
    arrival = np.concatenate([one[1] for one in crowd.arrivals])
    return np.concatenate([np.diff(arrival[viewer == number]) for number in range(VIEWERS)])


def _p99(gaps: Any) -> float:
    return float(np.percentile(gaps, 99)) * 1e3


def run() -> dict[str, Any]:
    """Measure, and say what holds."""
    print(f"p99 of the spacing of packets{'':>4}without     with")
    with pinned_no_longer():
        rows = asyncio.run(measure())
    holds = all(row["change"] <= BAR for row in rows)
    print(f"at most x {BAR:g}: {verdict(holds)}")
    return {"bar": BAR, "holds": holds, "viewers": VIEWERS, "load": os.getloadavg()[0], "rows": rows}
