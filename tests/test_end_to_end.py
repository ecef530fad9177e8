"""The whole of it: real processes, a real Redis, real browsers, stock aiortc."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from playwright.async_api import expect

from broadcaster.source.barcode import Luma, read_barcode
from tests.browsers import chromium, firefox, playback, read_picture, until_playing
from tests.lossy_relay import Impairment
from tests.published import events
from tests.relayed_page import relayed
from tests.topology import Topology
from tests.viewer import AiortcViewer

SDP = {"Content-Type": "application/sdp"}

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


@asynccontextmanager
async def load(beamcast: Topology) -> AsyncIterator[None]:
    """A viewer in a process of its own, which decodes nothing."""
    command = (sys.executable, "-m", "workers.load", f"{beamcast.url}/whep/main", "--viewers", "1", "--duration", "90")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.browser
async def test_chromium_plays_without_a_freeze(tmp_path: Path) -> None:
    async with (
        Topology(tmp_path, workers=2, gateways=2) as beamcast,
        chromium() as browser,
        events(beamcast) as published,
    ):
        page = await browser.new_page()
        await page.goto(f"{beamcast.urls[1]}/watch/main")
        await until_playing(page)
        joined = await published.until("joined", 5)
        await published.until("connected", 5)
        await asyncio.sleep(6)  # the viewer climbs to its level
        before, first = await playback(page), await read_picture(page)
        await asyncio.sleep(10)
        after, last = await playback(page), await read_picture(page)
        assert after["freezeCount"] == before["freezeCount"]
        assert after["framesDecoded"] - before["framesDecoded"] >= 280
        assert first is not None and last is not None
        assert 280 <= last["frame"] - first["frame"] <= 330
        assert (after["frameWidth"], after["frameHeight"]) in {(1280, 720), (640, 360)}

        viewers = (await beamcast.get("/api/viewers?stream=main", gateway=0))["viewers"]
        assert [viewer["id"] for viewer in viewers] == [joined["viewer"]]
        assert viewers[0]["state"] == "connected"
        assert viewers[0]["fps"] == 30
        await page.close()
        left = await published.until("left", 20)
        assert left["data"]["reason"] in {"deleted", "closed"}


@pytest.mark.browser
async def test_a_newcomer_among_others_starts_small_and_climbs_without_a_freeze(tmp_path: Path) -> None:
    async with Topology(tmp_path) as beamcast, chromium() as browser:
        first = await browser.new_page()
        await first.goto(f"{beamcast.url}/watch/main")
        await until_playing(first)
        await asyncio.sleep(2)  # longer than the first viewer's rung can be joined without a keyframe
        page = await browser.new_page()
        await page.goto(f"{beamcast.url}/watch/main")
        await until_playing(page)
        async with asyncio.timeout(10):
            while (seen := await playback(page))["frameWidth"] < 640:
                await asyncio.sleep(0.1)
        assert seen["freezeCount"] == 0
        await asyncio.sleep(1)
        after = await playback(page)
        assert after["freezeCount"] == 0
        # It may have come by way of 15 pictures a second, as 720p comes to a path that 30 of them do not fit yet.
        assert after["framesDecoded"] - seen["framesDecoded"] >= 12
        # One of the smallest rung, one of its own, and one more where it has climbed again since; one less where the
        # keyframe of its own rung was the first to come.
        assert after["keyFramesDecoded"] <= (2 if after["frameWidth"] == 640 else 3), after


@pytest.mark.browser
async def test_why_a_viewer_gets_what_it_gets_is_shown_to_it_and_on_the_dashboard(tmp_path: Path) -> None:
    async with Topology(tmp_path) as beamcast, chromium() as browser, events(beamcast) as published:
        dashboard = await browser.new_page()
        complaints: list[str] = []
        dashboard.on("pageerror", lambda error: complaints.append(str(error)))
        await dashboard.goto(f"{beamcast.url}/dashboard/main")
        await expect(dashboard.get_by_text("Nobody watches at the moment.")).to_be_visible()
        page = await browser.new_page()
        await page.goto(f"{beamcast.url}/watch/main")
        await until_playing(page)
        adapted = await published.until("adaptation", 20)
        viewer, reason = adapted["viewer"], adapted["data"]["reason"]
        row = dashboard.locator("#rows tr")
        await expect(row).to_have_count(1, timeout=10_000)
        await expect(row.first).to_contain_text(viewer)
        await expect(dashboard.get_by_role("status")).to_have_text("1 viewer")
        await expect(dashboard.locator("#log li", has_text=reason).first).to_contain_text(viewer)
        await expect(page.locator("#why")).not_to_be_empty()
        await page.close()
        await expect(row).to_have_count(0, timeout=25_000)
        assert not complaints


@pytest.mark.browser
async def test_the_dashboard_is_live_in_firefox_too(tmp_path: Path) -> None:
    async with Topology(tmp_path) as beamcast, firefox() as page, events(beamcast) as published:

        async def shown(condition: str, timeout: float) -> None:
            async with asyncio.timeout(timeout):
                while not await page.evaluate(f"() => {condition}"):
                    await asyncio.sleep(0.1)

        await page.goto(f"{beamcast.url}/dashboard/main")
        await shown("!document.getElementById('nobody').hidden", 5)
        async with load(beamcast):
            adapted = await published.until("adaptation", 30)
            viewer, reason = adapted["viewer"], adapted["data"]["reason"]
            rows = "[...document.querySelectorAll('#rows tr')].map((row) => row.textContent)"
            await shown(f"{rows}.length === 1 && {rows}[0].includes({json.dumps(viewer)})", 10)
            assert await page.evaluate("() => document.getElementById('state').textContent") == "1 viewer"
            log = "[...document.querySelectorAll('#log li')].map((item) => item.textContent)"
            told = (
                f"{log}.some((text) => [{json.dumps(viewer)}, {json.dumps(reason)}].every((one) => text.includes(one)))"
            )
            await shown(told, 5)
        await shown("document.querySelectorAll('#rows tr').length === 0", 25)
        assert page.console == []


@pytest.mark.browser
async def test_firefox_plays(tmp_path: Path) -> None:
    # With the addresses that a worker announces by default: Firefox never plays from 127.0.0.1.
    async with Topology(tmp_path, announce=None) as beamcast, firefox() as page:
        await page.goto(f"{beamcast.url}/watch/main")
        first = await until_playing(page, 30)
        before = await playback(page)
        await until_playing(page, 15, beyond=first + 150)
        after = await playback(page)
        assert after["framesDecoded"] - before["framesDecoded"] >= 75  # of 150, on a machine that may be busy


@pytest.mark.browser
async def test_loss_lowers_the_frame_rate_and_recovery_raises_it(tmp_path: Path) -> None:
    async with Topology(tmp_path) as beamcast, chromium() as browser, events(beamcast) as published:
        page = await browser.new_page()
        async with relayed(page) as relays:
            await page.goto(f"{beamcast.url}/watch/main")
            await until_playing(page)
            await published.until("adaptation", 30, lambda data: data["to"]["rung"] == "720p")
            # What is lost right after a step up is taken for the step's fault, and it is taken back.
            await asyncio.sleep(9)
            relays[0].impairment = Impairment(loss_down=0.08)
            # By the rule for loss, or, where a busy machine adds delay to the loss, by what the path seems to carry.
            lowered = await published.until(
                "adaptation",
                10,
                lambda data: (
                    data["rule"] in {"loss-high", "estimate-low"}
                    and data["to"]["fps"] < data["from"]["fps"]
                    and data["inputs"]["packet_loss"] > 0.03
                ),
            )
            if lowered["data"]["rule"] == "loss-high":
                assert lowered["data"]["inputs"]["packet_loss"] > lowered["data"]["thresholds"]["packet_loss"] == 0.05
            assert {"rtt", "estimate"} <= set(lowered["data"]["inputs"])

            relays[0].impairment = Impairment()
            # By the rule for loss, or by a climb where the loss had cost the rung too.
            await published.until(
                "adaptation",
                45,
                lambda data: data["rule"] in {"loss-low", "headroom"} and data["to"]["fps"] > data["from"]["fps"],
            )


@pytest.mark.browser
async def test_a_killed_worker_costs_less_than_five_seconds(tmp_path: Path) -> None:
    async with (
        Topology(tmp_path, workers=2) as beamcast,
        chromium() as browser,
        events(beamcast) as published,
    ):
        page = await browser.new_page()
        await page.goto(f"{beamcast.url}/watch/main")
        await until_playing(page)
        joined = await published.until("joined", 5)
        victim = joined["data"]["worker"]
        beamcast.workers[victim].kill()
        killed_at = time.monotonic()
        again = await published.until("joined", 5)
        assert again["data"]["worker"] != victim
        shown = await read_picture(page)
        await until_playing(page, 5, beyond=(shown or {"frame": 0})["frame"])
        assert time.monotonic() - killed_at < 5
        lost = await published.until("lost", 10)
        assert lost["data"]["worker"] == victim


async def test_an_aiortc_viewer_plays(tmp_path: Path) -> None:
    async with Topology(tmp_path) as beamcast, AiortcViewer(beamcast.http, beamcast.url, "main") as viewer:
        await viewer.until(60)
        assert viewer.last is not None
        picture = read_barcode(cast("Luma", viewer.last.to_ndarray(format="gray")))
        assert picture is not None
        await viewer.until(len(viewer.frames) + 60)
        again = read_barcode(cast("Luma", viewer.last.to_ndarray(format="gray")))
        assert again is not None
        assert 50 <= again.index - picture.index <= 75
        steps = np.diff([pts for _, _, pts in viewer.frames])
        assert (steps > 0).all()


async def test_any_gateway_ends_any_session(tmp_path: Path) -> None:
    async with (
        Topology(tmp_path, gateways=2) as beamcast,
        events(beamcast) as published,
        AiortcViewer(beamcast.http, beamcast.urls[0], "main") as viewer,
    ):
        await viewer.until(5)
        async with beamcast.http.delete(f"{beamcast.urls[1]}{viewer.location}") as response:
            assert response.status == 200
        left = await published.until("left", 5)
        assert left["data"]["reason"] == "deleted"
        async with beamcast.http.delete(f"{beamcast.urls[0]}{viewer.location}") as response:
            assert response.status == 404
            assert response.content_type == "application/problem+json"


async def test_viewers_spread_over_workers(tmp_path: Path) -> None:
    async with (
        Topology(tmp_path, workers=2) as beamcast,
        AiortcViewer(beamcast.http, beamcast.url, "main") as one,
        AiortcViewer(beamcast.http, beamcast.url, "main") as other,
    ):
        await asyncio.gather(one.until(5), other.until(5))
        viewers = (await beamcast.get("/api/viewers"))["viewers"]
        assert sorted(viewer["worker"] for viewer in viewers) == ["worker-1", "worker-2"]


async def test_a_redis_outage_stops_no_picture(tmp_path: Path) -> None:
    async with Topology(tmp_path) as beamcast, AiortcViewer(beamcast.http, beamcast.url, "main") as viewer:
        await viewer.until(30)
        await asyncio.to_thread(beamcast.redis.stop)
        await viewer.until(len(viewer.frames) + 240)
        async with beamcast.http.post(f"{beamcast.url}/whep/main", data="v=0", headers=SDP) as response:
            assert response.status == 503
            assert "Retry-After" in response.headers
        await asyncio.to_thread(beamcast.redis.start)
        async with asyncio.timeout(20):
            while not (await beamcast.get("/api/workers")).get("workers"):
                await asyncio.sleep(0.2)
            while not (await beamcast.get("/api/streams")).get("streams"):
                await asyncio.sleep(0.2)
        await viewer.until(len(viewer.frames) + 30)
        async with AiortcViewer(beamcast.http, beamcast.url, "main") as late:
            await late.until(10)


async def test_a_drained_worker_sends_its_viewers_away(tmp_path: Path) -> None:
    async with (
        Topology(tmp_path, workers=2, worker_arguments=("--drain", "2")) as beamcast,
        events(beamcast) as published,
        AiortcViewer(beamcast.http, beamcast.url, "main") as viewer,
    ):
        await viewer.until(5)
        joined = (await beamcast.get("/api/viewers"))["viewers"][0]["worker"]
        beamcast.workers[joined].terminate()
        assert (await published.until("draining", 5))["data"]["worker"] == joined
        assert (await published.until("left", 10))["data"]["reason"] == "stopped"
        process = beamcast.workers[joined].process
        assert process is not None
        async with asyncio.timeout(10):
            assert await process.wait() == 0
        async with asyncio.timeout(3):  # less than a lease lasts
            while joined in {worker["id"] for worker in (await beamcast.get("/api/workers"))["workers"]}:
                await asyncio.sleep(0.05)


async def test_bad_offers_get_a_problem_that_says_why(tmp_path: Path) -> None:
    cases = [
        ("v=0", "text/plain", 415),
        ("", "application/sdp", 422),
        ("v=0\r\nthis is no sdp", "application/sdp", 422),
        ("x" * 200_000, "application/sdp", 413),
    ]
    async with Topology(tmp_path) as beamcast:
        for body, content_type, status in cases:
            headers = {"Content-Type": content_type}
            async with beamcast.http.post(f"{beamcast.url}/whep/main", data=body, headers=headers) as response:
                assert response.status == status
                assert response.content_type == "application/problem+json"
                problem = json.loads(await response.text())
            assert problem["status"] == status
            assert problem["title"]
