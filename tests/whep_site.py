"""The pages over a small server of the tests' own: a faked API, and WHEP answered by stock aiortc with a barcode."""

from __future__ import annotations

import asyncio
import fractions
import json
import time
from typing import Any

import av
import numpy as np
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiortc import AudioStreamTrack, MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from av import VideoFrame

from broadcaster.source.barcode import Barcode, cell_bits, column_edges, row_edges
from gateway.pages import Pages

WIDTH, HEIGHT, FPS = 320, 180, 20


class BarcodeTrack(MediaStreamTrack):
    """A grey picture with a barcode; with `sounding` cleared it stops without a word, as a killed worker would."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self.sounding = asyncio.Event()
        self.sounding.set()
        self._index = 0
        self._started = time.monotonic()

    async def recv(self) -> VideoFrame:
        await self.sounding.wait()
        # What was missed is left out: drawn in a rush, it would block the loop.
        self._index = max(self._index + 1, int((time.monotonic() - self._started) * FPS))
        await asyncio.sleep(max(0.0, self._started + self._index / FPS - time.monotonic()))
        # Luma above, both chromas below. The loop would wait for the threads of a conversion.
        picture = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
        picture[:HEIGHT] = 90 + self._index % 60
        bits = cell_bits(Barcode(self._index, int(time.time() * 1000)))
        columns, rows = column_edges(WIDTH), row_edges(HEIGHT)
        for row, column in np.ndindex(bits.shape):
            picture[rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = 16 + 219 * bits[row, column]
        frame = VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts = self._index * 90_000 // FPS
        frame.time_base = fractions.Fraction(1, 90_000)
        return frame


class WhepSite:
    """`streams` is what /api/streams lists, or None for an error; `refusal` is (status, headers) for every POST.

    With `hold`, the tracks of new sessions send nothing until `sounding` is set. What is put into `decisions`
    is told by /api/events, or nothing but an error while it is `mute`.
    """

    sound = False
    """Whether new sessions have sound, silence though it is."""

    def __init__(self) -> None:
        self.streams: list[dict[str, Any]] | None = [stream("main")]
        self.refusal: tuple[int, dict[str, str]] | None = None
        self.hold = self.mute = False
        self.posts = self.listened = 0
        self.deleted: list[str] = []
        self.tracks: list[BarcodeTrack] = []
        self.authorization: str | None = None
        self.decisions: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._sessions: dict[str, RTCPeerConnection] = {}
        self._closing: list[asyncio.Task[None]] = []
        app = web.Application()
        app.router.add_get("/api/streams", self._list)
        app.router.add_get("/api/streams/{stream}/picture.jpg", self._picture)
        app.router.add_get("/api/time", self._time)
        app.router.add_get("/api/events/{stream}", self._events)
        app.router.add_post("/whep/{stream}", self._post)
        app.router.add_delete("/whep/{stream}/{secret}", self._delete)
        Pages().add_to(app)
        self._server = TestServer(app)

    async def __aenter__(self) -> WhepSite:
        await self._server.start_server()
        self.url = str(self._server.make_url("")).rstrip("/")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()
        for connection in self._sessions.values():
            await connection.close()
        await asyncio.gather(*self._closing)

    async def until(self, what: str, count: int, timeout: float = 15) -> None:
        """Return when there have been `count` of `what` ("posts" or "deleted")."""
        async with asyncio.timeout(timeout):
            while (self.posts if what == "posts" else len(self.deleted)) < count:
                await asyncio.sleep(0.02)

    async def _list(self, request: web.Request) -> web.Response:
        if self.streams is None:
            return web.json_response({"status": 503, "title": "The registry is not available"}, status=503)
        return web.json_response({"streams": self.streams})

    async def _picture(self, request: web.Request) -> web.Response:
        encoder = av.CodecContext.create("mjpeg", "w")
        encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        encoder.time_base = fractions.Fraction(1, FPS)
        grey = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
        packets = encoder.encode(VideoFrame.from_ndarray(grey, format="yuvj420p"))
        return web.Response(body=b"".join(bytes(packet) for packet in packets), content_type="image/jpeg")

    async def _time(self, request: web.Request) -> web.Response:
        return web.json_response({"time": time.time()})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        self.listened += 1
        if self.mute:
            return web.json_response({"detail": "As the test wishes."}, status=503)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            event = await self.decisions.get()
            number = f"id: {event['id']}\n" if "id" in event else ""
            kind = event.get("type", "adaptation")
            await response.write(f"{number}event: {kind}\ndata: {json.dumps(event)}\n\n".encode())

    async def _post(self, request: web.Request) -> web.Response:
        self.posts += 1
        self.authorization = request.headers.get("Authorization")
        if self.refusal is not None:
            status, headers = self.refusal
            return web.json_response({"detail": "As the test wishes."}, status=status, headers=headers)
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        track = BarcodeTrack()
        secret = f"secret-{self.posts}"
        if self.hold:
            track.sounding.clear()
        self.tracks.append(track)
        self._sessions[secret] = connection
        connection.addTrack(track)
        if self.sound:
            connection.addTrack(AudioStreamTrack())
        await connection.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        location = f"{request.path}/{secret}"
        return web.Response(
            status=201,
            text=connection.localDescription.sdp,
            content_type="application/sdp",
            headers={"Location": location, "Beamcast-Viewer": f"v-{self.posts}"},
        )

    async def _delete(self, request: web.Request) -> web.Response:
        secret = request.match_info["secret"]
        self.deleted.append(secret)
        if connection := self._sessions.pop(secret, None):
            # Apart from this handler, which the end of the server would cancel halfway.
            self._closing.append(asyncio.create_task(connection.close()))
        return web.Response()


def stream(name: str, *, live: bool = True, viewers: int = 1) -> dict[str, Any]:
    """A stream as /api/streams tells it."""
    rungs = [
        {"name": f"{height}p", "width": height * 16 // 9, "height": height, "fps": 30, "bitrate": 1, "layers": 3}
        for height in (720, 360)
    ]
    return {"name": name, "live": live, "viewers": viewers, "rungs": rungs}
