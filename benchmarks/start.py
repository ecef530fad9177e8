"""How long a person waits: from POST to the first decoded picture in Chromium, and from source to screen.

A real broadcaster (1280x720 at 30 fps), gateway and worker; headless Chromium plays by WHEP. The clock of the page runs
from the moment before POST to the moment at which requestVideoFrameCallback presents the first frame. The age of a
picture is Date.now() less the time of its capture, which is read from the picture itself (tests/barcode.js). Chromium
decodes and draws in software on the same cores.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from benchmarks.audience import Audience
from benchmarks.judgement import below, spread
from benchmarks.site import Site
from tests.browsers import chromium, read_picture

JOINS = 16
OTHERS = 10
"""Viewers that play already, on the same rung, in the later joins."""

PAUSE = (0.5, 1.0)
"""Seconds between two of those joins. A rung gives a keyframe each half second at most; whoever joins right behind
another starts with the frames since the last one: that is the figure "in a rush", joins without a pause.
"""

AGES = 30
SHOWN = ("first_picture_ms", "first_picture_among_others_ms", "first_picture_in_a_rush_ms", "source_to_screen_ms")
BARS = {"first_picture_ms": 400.0, "first_picture_among_others_ms": 400.0, "source_to_screen_ms": 150.0}

_JOIN = """async () => {
  document.querySelector("video")?.remove();
  const video = Object.assign(document.createElement("video"), { muted: true, autoplay: true, playsInline: true });
  document.body.append(video);
  const pc = new RTCPeerConnection();
  const first = new Promise((resolve) => video.requestVideoFrameCallback((now) => resolve(now)));
  pc.ontrack = ({ track }) => (video.srcObject = new MediaStream([track]));
  pc.addTransceiver("video", { direction: "recvonly" });
  const offer = await pc.createOffer();
  const start = performance.now();
  const [, response] = await Promise.all([
    pc.setLocalDescription(offer),
    fetch("/whep/main", { method: "POST", headers: { "Content-Type": "application/sdp" }, body: offer.sdp }),
  ]);
  if (response.status !== 201) throw new Error(await response.text());
  const answered = performance.now();
  await pc.setRemoteDescription({ type: "answer", sdp: await response.text() });
  const shown = await Promise.race([first, new Promise((resolve) => setTimeout(resolve, 10_000, Infinity))]);
  window.leave = async () => {
    pc.close();
    await fetch(response.headers.get("Location"), { method: "DELETE" });
  };
  return { answered: answered - start, shown: shown - start };
}"""


async def measure() -> dict[str, Any]:
    """All figures, in about 30 seconds."""
    async with Site() as beamcast, chromium() as browser:
        page = await browser.new_page()
        await page.goto(f"{beamcast.url}/api/streams")
        await page.evaluate(_JOIN)  # the first one in a fresh browser loads its codecs
        await page.evaluate("() => window.leave()")
        alone = [await _join(page) for _ in range(JOINS)]
        audience = Audience(beamcast)
        await audience.join(OTHERS)
        rush = [await _join(page) for _ in range(JOINS)]
        among = []
        for _ in range(JOINS):
            await asyncio.sleep(random.uniform(*PAUSE))
            among.append(await _join(page))
        audience.leave(OTHERS)
        await page.evaluate(_JOIN)
        await asyncio.sleep(2.0)
        ages: list[float] = []
        while len(ages) < AGES:
            picture = await read_picture(page)
            if picture is not None:
                ages.append(picture["ageMs"])
            await asyncio.sleep(0.1)
        await page.evaluate("() => window.leave()")
    return {
        "bars": BARS,
        "others": OTHERS,
        "first_picture_ms": spread([one["shown"] for one in alone], 1),
        "answer_ms": spread([one["answered"] for one in alone], 1),
        "first_picture_among_others_ms": spread([one["shown"] for one in among], 1),
        "first_picture_in_a_rush_ms": spread([one["shown"] for one in rush], 1),
        "source_to_screen_ms": spread(ages, 1),
    }


async def _join(page: Any) -> dict[str, float]:
    figures: dict[str, float] = await page.evaluate(_JOIN)
    await page.evaluate("() => window.leave()")
    return figures


def run() -> dict[str, Any]:
    """Measure, and say what holds."""
    figures = asyncio.run(measure())
    for name in SHOWN:
        found, bar = figures[name], BARS.get(name)
        judged = "" if bar is None else f"  {below(found['median'], bar)}"
        print(f"{name:>30} median {found['median']:6.1f}  p90 {found['p90']:6.1f}{judged}")
    return figures
