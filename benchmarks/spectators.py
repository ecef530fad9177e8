"""Viewers for the benchmarks that measure whole workers: those of `beamcast load`, in the process that measures.

To a worker they are browsers: ICE, DTLS, SRTP, and as many reports as Chromium sends, each at its own time. They read
their sockets ten times a second, and let the kernel leave packets together that were sent together (UDP_GRO), as a
network card would carry them; so on loopback the worker, to which the receiver's part is charged, does not pay for
cutting them apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from tests.topology import Topology
from workers.load.counters import Floats, Integers
from workers.load.crowd import Crowd, CrowdSettings
from workers.load.inbox import Batch
from workers.load.session import Whep, endpoint

REPORTS = 3.4
"""Receiver reports with REMB that Chromium sends in a second where transport-cc was not negotiated."""

RAMP = 40.0
"""Joins a second."""


class Spectators(Crowd):
    """A crowd that also remembers what arrived."""

    def __init__(self, whep: Whep, settings: CrowdSettings) -> None:
        super().__init__(whep, settings)
        self.seen: list[tuple[int, int]] = []
        """(RTP timestamp, octets of the datagram) of each packet of the first viewer."""
        self.arrivals: list[tuple[Integers, Floats]] = []
        """(viewer, monotonic seconds) of media packets, where they come singly."""

    def _take(self, batch: Batch) -> None:
        super()._take(batch)
        mine = (batch.viewer == 0) & (batch.ssrc == self._media[0])
        self.seen += zip(batch.timestamp[mine].tolist(), batch.size[mine].tolist(), strict=True)
        if not self.settings.joined_packets:
            media = batch.ssrc == self._media[batch.viewer]
            self.arrivals.append((batch.viewer[media], batch.arrival[media]))

    async def speak(self) -> None:
        """Say what is due, a hundred times a second, so that a worker hears its viewers as evenly as browsers."""
        while True:
            self._speak(time.monotonic())
            await asyncio.sleep(0.01)

    @property
    def packets(self) -> int:
        """Media packets that arrived at all of them."""
        return int(self.counters.packets.sum())

    @property
    def lost(self) -> int:
        return int(self.counters.lost.sum())

    def frames(self) -> list[list[int]]:
        """Sizes of the datagrams of each frame that the first viewer got, in order."""
        frames: list[list[int]] = []
        last = None
        for timestamp, size in self.seen:
            if timestamp != last:
                frames.append([])
                last = timestamp
            frames[-1].append(size)
        return frames


@contextlib.asynccontextmanager
async def spectators(beamcast: Topology, viewers: int, *, singly: bool = False) -> AsyncIterator[Spectators]:
    """`viewers` of them, all connected; they leave at the end. `singly`: packets are not left together."""
    settings = CrowdSettings(
        viewers=viewers,
        ramp=RAMP,
        report_interval=1.0 / REPORTS,
        joined_packets=not singly,
        verified_first=1,
        verified_viewers=viewers + 1,
    )
    whep = Whep(beamcast.http, endpoint(beamcast.url, beamcast.stream), token=None, loopback=True)
    crowd = Spectators(whep, settings)
    async with present(crowd, crowd.speak()):
        yield crowd


@contextlib.asynccontextmanager
async def present(crowd: Crowd, *meanwhile: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """The crowd is there, all of it, and does what viewers do and `meanwhile`; it leaves at the end."""
    try:
        async with asyncio.TaskGroup() as tasks:
            attending = [tasks.create_task(one) for one in (crowd.attend(lambda: None), *meanwhile)]
            await crowd.join()
            expected = crowd.settings.viewers
            assert len(crowd.clients) == expected, f"{len(crowd.clients)} of {expected} joined: {crowd.tally.refusal}"
            yield
            for task in attending:
                task.cancel()
    finally:
        await crowd.leave()
