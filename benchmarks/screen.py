"""Screen: viewers in a page of Chromium, each on a connection of its own, and what the page knows of them.

The connections are bare ones: the product's player gives up a connection that is silent for 1.5 s and makes a new one,
whose figures start at 0 and whose level is the first again. Here the adaptation is to be seen, and not that.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from tests.lossy_relay import LossyRelay, through

_WATCH = """async () => {
  window.watchers ??= [];
  const video = Object.assign(document.createElement("video"), { muted: true, autoplay: true, playsInline: true });
  video.style.width = "320px";
  document.body.append(video);
  const pc = new RTCPeerConnection();
  const watcher = { pc, longest: 0, last: null };
  watchers.push(watcher);
  const presented = (now) => {
    if (watcher.last !== null) watcher.longest = Math.max(watcher.longest, now - watcher.last);
    watcher.last = now;
    video.requestVideoFrameCallback(presented);
  };
  video.requestVideoFrameCallback(presented);
  pc.ontrack = ({ track }) => (video.srcObject = new MediaStream([track]));
  pc.addTransceiver("video", { direction: "recvonly" });
  const offer = await pc.createOffer();
  await pc.setLocalDescription(offer);
  const headers = { "Content-Type": "application/sdp" };
  const response = await fetch("/whep/main", { method: "POST", headers, body: offer.sdp });
  if (response.status !== 201) throw new Error(await response.text());
  await pc.setRemoteDescription({ type: "answer", sdp: await response.text() });
  return response.headers.get("Location");
}"""

_LOOK = """(names) => Promise.all(watchers.map(async (watcher) => {
  const figures = Object.fromEntries(names.map((name) => [name, 0]));
  for (const entry of (await watcher.pc.getStats()).values()) {
    if (entry.type !== "inbound-rtp" || entry.kind !== "video") continue;
    for (const name of names) figures[name] = entry[name] ?? 0;
  }
  const now = performance.now();
  figures.longestGap = watcher.last === null ? 0 : Math.max(watcher.longest, now - watcher.last);
  figures.now = now;
  watcher.longest = 0;
  return figures;
}))"""


@dataclass(frozen=True)
class Look:
    """A viewer's `inbound-rtp` (W3C webrtc-stats; counts since it joined), and two figures of the page itself."""

    framesDecoded: int  # noqa: N815
    framesDropped: int  # noqa: N815
    framesPerSecond: float  # noqa: N815
    frameWidth: int  # noqa: N815
    frameHeight: int  # noqa: N815
    freezeCount: int  # noqa: N815
    totalFreezesDuration: float  # noqa: N815
    bytesReceived: int  # noqa: N815
    retransmittedBytesReceived: int  # noqa: N815
    packetsReceived: int  # noqa: N815
    packetsLost: int  # noqa: N815
    nackCount: int  # noqa: N815
    pliCount: int  # noqa: N815
    keyFramesDecoded: int  # noqa: N815
    jitterBufferDelay: float  # noqa: N815
    jitterBufferEmittedCount: int  # noqa: N815
    longestGap: float  # noqa: N815
    """Milliseconds between two pictures on the screen, the most since the last look."""
    now: float
    """Milliseconds on the page's clock."""


_NAMES = [field.name for field in fields(Look) if field.name not in {"longestGap", "now"}]


class Screen:
    """A page of `browser` at `url`, the gateway's; the media of all its viewers goes through `relay`."""

    def __init__(self, browser: Any, url: str, relay: LossyRelay) -> None:
        self._browser = browser
        self._url = url
        self._relay = relay
        self._page: Any = None

    async def open(self) -> None:
        self._page = await self._browser.new_page()
        await self._page.route("**/whep/**", self._post)
        await self._page.goto(f"{self._url}/api/streams")

    async def watch(self) -> str:
        """One more viewer; the secret of its session."""
        location: str = await self._page.evaluate(_WATCH)
        return location.rpartition("/")[2]

    async def look(self) -> list[Look]:
        """Each viewer as it is now, in the order in which they came."""
        return [Look(**figures) for figures in await self._page.evaluate(_LOOK, _NAMES)]

    async def close(self) -> None:
        await self._page.close()

    async def _post(self, route: Any) -> None:
        response = await route.fetch()
        sdp = await response.text()
        await route.fulfill(response=response, body=through(sdp, self._relay.port) if response.status == 201 else sdp)
