"""Sound in a real Chromium over real processes: heard whole, and going on when the picture cannot."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.browsers import chromium, until_playing
from tests.lossy_relay import Impairment
from tests.published import events
from tests.relayed_page import relayed
from tests.topology import Topology

pytestmark = [pytest.mark.processes, pytest.mark.browser, pytest.mark.timeout(120)]

_HEARING = """async () => {
  const figures = { seconds: performance.now() / 1000, packetsReceived: 0, packetsLost: 0, totalAudioEnergy: 0,
    totalSamplesReceived: 0, concealedSamples: 0, concealmentEvents: 0, framesDecoded: 0, audible: 0,
    estimatedPlayoutTimestamp: 0, pictureTimestamp: 0 };
  for (const entry of (await window.beamcast.player.connection.getStats()).values()) {
    if (entry.type !== "inbound-rtp") continue;
    if (entry.kind === "video") {
      figures.framesDecoded = entry.framesDecoded;
      figures.pictureTimestamp = entry.estimatedPlayoutTimestamp ?? 0;
      continue;
    }
    for (const name of Object.keys(figures)) if (name in entry) figures[name] = entry[name];
    figures.audible = 1;
  }
  return figures;
}"""


async def hearing(page: Any) -> dict[str, float]:
    """The figures of the sound's inbound-rtp stats, which count from the start of the connection shown now."""
    figures: dict[str, float] = await page.evaluate(_HEARING)
    return figures


async def heard_in(page: Any, seconds: float) -> dict[str, float]:
    """What the figures have grown by in so many seconds."""
    before = await hearing(page)
    await asyncio.sleep(seconds)
    after = await hearing(page)
    return {name: after[name] - before[name] for name in after}


async def unmute(page: Any) -> None:
    await page.get_by_role("button", name="Unmute").click()
    async with asyncio.timeout(10):
        while not (await hearing(page))["totalAudioEnergy"]:
            await asyncio.sleep(0.1)


async def test_chromium_hears_the_whole_sound_in_step_with_the_picture(tmp_path: Path) -> None:
    async with Topology(tmp_path) as beamcast, chromium() as browser:
        page = await browser.new_page()
        await page.goto(f"{beamcast.url}/watch/main")
        await until_playing(page)
        await unmute(page)
        await asyncio.sleep(3)  # the first sender reports, and a buffer that has found its size
        heard = await heard_in(page, 6)
        seconds = heard["seconds"]  # a busy machine takes more than asked for
        assert heard["packetsReceived"] == pytest.approx(50 * seconds, abs=10)
        assert heard["packetsLost"] == 0
        assert heard["concealedSamples"] <= 0.02 * heard["totalSamplesReceived"]
        # The square of the loudest sample of each 100 ms: of a beep's 0.22, which lies in one or two, and of the
        # hum's 0.02 between. There is one more beep, or one less, than whole seconds.
        assert 0.004 * (seconds - 1) < heard["totalAudioEnergy"] < 0.012 * (seconds + 1)
        assert heard["framesDecoded"] >= 90  # of 180: a busy machine drops pictures, never sound
        now = await hearing(page)
        assert abs(now["estimatedPlayoutTimestamp"] - now["pictureTimestamp"]) < 150


async def test_a_stream_whose_sound_is_off_plays_without(tmp_path: Path) -> None:
    async with Topology(tmp_path, broadcaster_arguments=("--audio", "off")) as beamcast, chromium() as browser:
        page = await browser.new_page()
        await page.goto(f"{beamcast.url}/watch/main")
        await until_playing(page)
        assert await page.locator("#sound").is_hidden()
        assert not (await hearing(page))["audible"]


async def test_the_sound_goes_on_where_the_line_is_too_narrow_for_the_picture(tmp_path: Path) -> None:
    async with Topology(tmp_path) as beamcast, chromium() as browser, events(beamcast) as published:
        page = await browser.new_page()
        async with relayed(page) as relays:
            await page.goto(f"{beamcast.url}/watch/main")
            await until_playing(page)
            await unmute(page)
            await asyncio.sleep(3)  # whoever joins through such a line gets the fewest frames of 180p and no pause
            relays[0].impairment = Impairment(bandwidth_bps=110_000, queue_bytes=16_000)
            await published.until("adaptation", 60, lambda data: data["rule"] == "pause")
            await asyncio.sleep(1)  # what stands in the line's queue passes
            heard = await heard_in(page, 4)
            assert heard["packetsReceived"] >= 180
            assert heard["concealedSamples"] <= 0.15 * heard["totalSamplesReceived"]
            assert heard["totalAudioEnergy"] > 0
            assert len(relays) == 1, "the player kept its connection"
            relays[0].impairment = Impairment()
            await published.until("adaptation", 60, lambda data: data["rule"] == "resume")
            picture = await hearing(page)
            async with asyncio.timeout(20):
                while (await hearing(page))["framesDecoded"] <= picture["framesDecoded"] + 10:
                    await asyncio.sleep(0.1)
            assert len(relays) == 1
