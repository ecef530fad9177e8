"""Viewers that join at random: how soon each has a picture, and what it costs those who watch already.

A real broadcaster (1280x720 at 30 fps), gateway and worker, and cheap viewers (audience.py) that join over seconds.
Each decrypts what it gets until it has the keyframe of its own rung: the clock runs from POST to the last packet of the
first keyframe, and from there to that of its own rung.

Those who watch are stood for by another worker's frame link, which demands every rung all the time: what a keyframe
costs them is what it has more than an ordinary frame, as a share of the rung's octets.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from typing import Any

from OpenSSL import SSL
from pylibsrtp import Policy, Session

from benchmarks.audience import Audience, Viewer
from benchmarks.judgement import below, spread
from benchmarks.site import Site
from broadcaster.link import LinkClient, RungDemand
from broadcaster.stream import EncodedFrame
from tests.topology import Topology

VIEWERS = 100
SECONDS = 20.0
QUIET = 10.0
"""Seconds without joins, for comparison."""
OTHERS = 5
"""Viewers that play already, so that there is an audience; not counted."""
SEED = 4
BARS = {"first_picture_ms": 150.0, "keyframe_cost_percent": 3.0}
SMALLEST = 320
"""Width of the smallest rung."""
_DESCRIPTOR = 6


class Newcomer(Viewer):
    """Notes when it had its first keyframe, and when that of the rung on which it stays."""

    def __init__(self, context: SSL.Context, answer: str) -> None:
        self.started = 0.0
        self.first: float | None = None
        self.widths: list[int] = []
        self.climbed: float | None = None
        self._media: Session | None = None
        self._key = False
        super().__init__(context, answer)

    def _shake_hands(self) -> None:
        super()._shake_hands()
        if self._session is not None:
            profile = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
            policy = Policy(key=self.media_key, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=profile)
            self._media = Session(policy)
            self._loop.add_reader(self._socket.fileno(), self.read)

    def _take(self, data: bytes) -> None:
        super()._take(data)
        if data[0] < 128 or self._media is None or 192 <= data[1] <= 223 or self.climbed is not None:
            return
        if int.from_bytes(data[8:12], "big") == self._ssrc:
            self._look(self._media.unprotect(data))

    def _look(self, packet: bytes) -> None:
        """Of a VP8 keyframe (RFC 6386 section 9.1), the size stands in its first packet."""
        start = 12 + 4 * (packet[0] & 15)
        if packet[0] & 0x10:
            start += 4 + 4 * int.from_bytes(packet[start + 2 : start + 4], "big")
        payload = packet[start:]
        if payload[0] & 0x10:
            self._key = not payload[_DESCRIPTOR] & 1
            if self._key:
                self.widths.append(int.from_bytes(payload[_DESCRIPTOR + 6 : _DESCRIPTOR + 8], "little") & 0x3FFF)
        if self._key and packet[1] & 0x80:
            now = time.monotonic()
            self.first = self.first or now
            if self.widths[-1] > SMALLEST:
                self.climbed = now
                self._loop.remove_reader(self._socket.fileno())


class Watcher:
    """Every rung's frames, as a worker with viewers on all of them gets them."""

    def __init__(self, addresses: list[str]) -> None:
        self.frames: list[EncodedFrame] = []
        self._addresses = addresses
        self.client = LinkClient(
            "main",
            self._locate,
            on_description=lambda _: None,
            on_frame=self._taken,
            on_down=lambda: None,
        )

    async def _locate(self) -> list[str]:
        return self._addresses

    def _taken(self, frame: EncodedFrame) -> None:
        self.frames.append(frame)

    async def start(self) -> None:
        self.client.start()
        description = await self.client.ready(10.0)
        self.client.demand({rung: RungDemand(1) for rung in range(len(description.rungs))})
        self.names = [rung.name for rung in description.rungs]

    def costs(self, seconds: float) -> list[dict[str, Any]]:
        """A row for each rung, of all frames since the last call; `seconds` ago."""
        rows = []
        for number, name in enumerate(self.names):
            sizes = {
                keyframe: [
                    len(frame.payload) for frame in self.frames if (frame.rung, frame.keyframe) == (number, keyframe)
                ]
                for keyframe in (True, False)
            }
            ordinary = statistics.mean(sizes[False])
            octets = sum(sizes[True]) + sum(sizes[False])
            extra = sum(sizes[True]) - len(sizes[True]) * ordinary
            rows.append(
                {
                    "rung": name,
                    "keyframes": len(sizes[True]),
                    "bitrate": round(8 * octets / seconds),
                    "keyframe_in_frames": round(statistics.mean(sizes[True]) / ordinary, 2) if sizes[True] else "-",
                    "cost_percent": round(100 * extra / octets, 2),
                }
            )
        self.frames.clear()
        return rows


async def measure() -> dict[str, Any]:
    """All figures, in about 45 seconds."""
    generator = random.Random(SEED)
    moments = sorted(generator.uniform(0.0, SECONDS) for _ in range(VIEWERS))
    async with Site() as beamcast:
        audience = Audience(beamcast)
        await audience.join(OTHERS)
        watcher = Watcher(_links(beamcast))
        await watcher.start()
        await asyncio.sleep(4.0)
        watcher.frames.clear()
        await asyncio.sleep(QUIET)
        quiet = watcher.costs(QUIET)
        newcomers = await _join_all(beamcast, moments)
        joining = watcher.costs(SECONDS)
        await asyncio.sleep(6.0)
        await watcher.client.close()
        for viewer in newcomers:
            viewer.read()
    first = [1000 * (viewer.first - viewer.started) for viewer in newcomers if viewer.first is not None]
    climbed = [
        viewer.climbed - viewer.started for viewer in newcomers if viewer.climbed is not None and len(viewer.widths) > 1
    ]
    direct = sum(1 for viewer in newcomers if viewer.climbed is not None and len(viewer.widths) == 1)
    return {
        "bars": BARS,
        "viewers": VIEWERS,
        "seconds": SECONDS,
        "without_picture": VIEWERS - len(first),
        "first_picture_ms": spread(first, 2),
        "first_picture_of_own_rung": direct,
        "own_rung_after_s": spread(climbed, 2) if len(climbed) > 1 else "-",
        "stayed_on_smallest": VIEWERS - direct - len(climbed),
        "quiet": quiet,
        "joining": joining,
    }


def _links(beamcast: Topology) -> list[str]:
    """Where the broadcaster serves its frame link."""
    log = beamcast.broadcaster.log.read_text()
    return [log.partition(" is on the air at ")[2].partition(": ")[0].split(", ")[0]]


async def _join_all(beamcast: Topology, moments: list[float]) -> list[Newcomer]:
    audience = Audience(beamcast, Newcomer)
    began = time.monotonic()

    async def one(moment: float) -> Newcomer:
        await asyncio.sleep(began + moment - time.monotonic())
        started = time.monotonic()
        viewer = await audience.join_one()
        assert isinstance(viewer, Newcomer)
        viewer.started = started
        return viewer

    return await asyncio.gather(*map(one, moments))


def run() -> dict[str, Any]:
    """Measure, and say what holds."""
    figures = asyncio.run(measure())
    median = figures["first_picture_ms"]["median"]
    print(f"first picture: median {median:.0f} ms, {below(median, BARS['first_picture_ms'])}")
    for row in figures["joining"]:
        cost = row["cost_percent"]
        print(f"{row['rung']}: keyframes cost {cost:.2f} %, {below(cost, BARS['keyframe_cost_percent'])}")
    return figures
