"""Viewers for the benchmarks that measure whole workers: those of `beamcast load`, in the process that measures.

To a worker they are browsers: ICE, DTLS, SRTP, and as many reports as Chromium sends. They read their sockets ten times
a second, and let the kernel leave packets together that were sent together (UDP_GRO), as a network card would carry
them; so on loopback the worker, to which the receiver's part is charged, does not pay for cutting them apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from workers.load.crowd import Crowd, CrowdSettings
from workers.load.inbox import Batch
from workers.load.session import Whep, endpoint

REPORTS = 3.4
"""Receiver reports with REMB that Chromium sends in a second where transport-cc was not negotiated."""


class Spectators(Crowd):
    """A crowd that also remembers which packets its first viewer got: (RTP timestamp, octets of the datagram)."""

    def __init__(self, whep: Whep, settings: CrowdSettings) -> None:
        super().__init__(whep, settings)
        self.seen: list[tuple[int, int]] = []

    def _take(self, batch: Batch) -> None:
        super()._take(batch)
        mine = (batch.viewer == 0) & (batch.ssrc == self._media[0])
        self.seen += zip(batch.timestamp[mine].tolist(), batch.size[mine].tolist(), strict=True)

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
async def spectators(
    http: aiohttp.ClientSession, url: str, stream: str, viewers: int, *, ramp: float = 40.0
) -> AsyncIterator[Spectators]:
    """`viewers` of them, all connected; they leave at the end."""
    settings = CrowdSettings(
        viewers=viewers, ramp=ramp, report_interval=1.0 / REPORTS, verified_first=1, verified_viewers=viewers + 1
    )
    crowd = Spectators(Whep(http, endpoint(url, stream), token=None, loopback=True), settings)
    attending = asyncio.create_task(crowd.attend(lambda: None))
    try:
        await crowd.join()
        assert len(crowd.clients) == viewers, f"{len(crowd.clients)} of {viewers} joined: {crowd.tally.refusal}"
        yield crowd
    finally:
        attending.cancel()
        await asyncio.gather(attending, return_exceptions=True)
        await crowd.leave()


def pin(pid: int, cores: set[int]) -> None:
    """Let all threads of a process run on these cores alone."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)
