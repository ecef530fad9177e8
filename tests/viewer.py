"""A viewer on stock aiortc: joins by WHEP, decodes, and says what it saw."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

import aiohttp
from aiortc import MediaStreamError, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from av import VideoFrame


class AiortcViewer:
    """`async with AiortcViewer(http, base_url, "main") as viewer:` plays from there on.

    `rewrite` changes the answer before it is applied, for example to send the media through a relay.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        base_url: str,
        stream: str,
        *,
        rewrite: Callable[[str], str] = lambda sdp: sdp,
    ) -> None:
        self._http = http
        self._base = base_url
        self._stream = stream
        self._rewrite = rewrite
        self._task: asyncio.Task[None] | None = None
        self._arrived = asyncio.Condition()
        self.frames: list[tuple[int, int, int]] = []
        """(width, height, pts) of each decoded picture."""
        self.last: VideoFrame | None = None
        self.location: str | None = None
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))

    async def __aenter__(self) -> Self:
        transceiver = self.pc.addTransceiver("video", direction="recvonly")
        await self.pc.setLocalDescription(await self.pc.createOffer())
        async with self._http.post(
            f"{self._base}/whep/{self._stream}",
            data=self.pc.localDescription.sdp,
            headers={"Content-Type": "application/sdp"},
        ) as response:
            body = await response.text()
            assert response.status == 201, f"{response.status}: {body}"
            self.location = response.headers["Location"]
        await self.pc.setRemoteDescription(RTCSessionDescription(type="answer", sdp=self._rewrite(body)))
        self._task = asyncio.create_task(self._receive(transceiver.receiver.track))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.pc.close()
        if self._task is not None:
            await self._task

    async def _receive(self, track: object) -> None:
        while True:
            try:
                frame = await track.recv()  # type: ignore[attr-defined]
            except MediaStreamError:
                return
            self.last = frame
            async with self._arrived:
                self.frames.append((frame.width, frame.height, frame.pts))
                self._arrived.notify_all()

    async def until(self, count: int, timeout: float = 15) -> None:
        """Return when `count` pictures have been decoded since the start."""
        async with asyncio.timeout(timeout), self._arrived:
            await self._arrived.wait_for(lambda: len(self.frames) >= count)
