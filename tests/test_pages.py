"""The pages in real browsers: what they show, what they do when the server fails, and that everybody can use them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.browsers import firefox, playback, read_picture, until_playing
from tests.loop_watch import never_blocked
from tests.page_visit import DESKTOP, PHONE, visit
from tests.whep_site import HEIGHT, WIDTH, WhepSite, stream

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def loop_never_blocked() -> AsyncIterator[None]:
    """As everywhere, of the loop that these tests share with their browser."""
    with never_blocked():
        yield


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_the_list_shows_what_is_live(browser: Browser, viewport: dict[str, int]) -> None:
    async with WhepSite() as site, visit(browser, site, viewport) as visitor:
        site.streams = [stream("main", viewers=3), stream("garden"), stream("attic", live=False)]
        await visitor.hasten("index.js", "POLL", 200)
        await visitor.goto("/")
        cards = visitor.page.get_by_role("list", name="Streams").get_by_role("listitem")
        await expect(cards).to_have_count(3)
        await expect(cards.locator(".name")).to_have_text(["garden", "main", "attic"])
        await expect(cards.locator(".badge")).to_have_text(["Live", "Live", "Off air"])
        await expect(cards.nth(1).locator(".facts")).to_have_text("720p at 30 fps · 3 viewers")
        await expect(visitor.page.get_by_role("status")).to_have_text("2 streams on the air")
        picture = visitor.page.get_by_role("img", name="What main shows now")
        await expect(picture).to_be_visible()
        assert await picture.evaluate("(image) => image.naturalWidth") == WIDTH
        await visitor.check_manners()

        await visitor.page.keyboard.press("Tab")
        await expect(visitor.page.get_by_role("link", name="Skip to the streams")).to_be_focused()
        site.streams = []
        await expect(cards).to_have_count(0)
        await expect(visitor.page.get_by_role("heading", name="Nothing is live yet")).to_be_visible()
        await expect(visitor.page.get_by_text("beamcast broadcast film.mp4 --stream main")).to_be_visible()
        await visitor.check_manners()


async def test_the_list_says_when_the_server_does_not_answer(browser: Browser) -> None:
    async with WhepSite() as site, visit(browser, site) as visitor:
        await visitor.hasten("index.js", "POLL", 200)
        await visitor.goto("/")
        card = visitor.page.get_by_role("link", name="main")
        await expect(card).to_be_visible()
        site.streams = None
        await expect(visitor.page.get_by_role("alert")).to_contain_text("The server does not answer")
        await expect(card).to_be_visible()
        site.streams = [stream("main")]
        await expect(visitor.page.get_by_role("alert")).to_be_hidden()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_watching(browser: Browser, viewport: dict[str, int]) -> None:
    async with WhepSite() as site, visit(browser, site, viewport) as visitor:
        page = visitor.page
        await visitor.goto("/watch/main#token=open-sesame")
        await expect(page.get_by_role("heading", level=1)).to_have_text("main")
        await until_playing(page)
        assert site.authorization == "Bearer open-sesame"
        await expect(page.get_by_role("status")).to_have_text("Playing")
        await expect(page.locator("#quality")).to_have_text(f"{HEIGHT}p")
        await expect(page.locator("#size")).to_have_text(f"{WIDTH} × {HEIGHT}")
        for figure in ("fps", "bitrate", "latency", "rtt", "loss", "freezes"):
            await expect(page.locator(f"#{figure}")).not_to_have_text("–")
        await expect(page.locator("#bitrate-chart")).to_have_attribute("aria-label", _now("Bitrate"))
        figures = await playback(page)
        assert (figures["frameWidth"], figures["frameHeight"]) == (WIDTH, HEIGHT)
        assert figures["framesDecoded"] > 10
        picture = await read_picture(page)
        assert picture is not None
        assert 0 <= picture["ageMs"] < 2000
        await visitor.check_manners()

        await page.get_by_role("button", name="Pause").click()
        await expect(page.get_by_role("status")).to_have_text("Paused")
        await site.until("deleted", 1)
        await page.get_by_role("button", name="Play").click()
        await expect(page.get_by_role("status")).to_have_text("Playing")
        await page.goto("about:blank")
        await site.until("deleted", 2)
        assert site.deleted == ["secret-1", "secret-2"]
        assert visitor.complaints == []


def _now(name: str) -> Any:
    return re.compile(rf"{name} of the last minute: now \d")


@pytest.mark.parametrize(
    ("status", "explained"), [(401, "needs a token"), (403, "may not watch"), (404, "There is no stream “main”")]
)
async def test_a_hopeless_refusal_is_explained_and_not_repeated(browser: Browser, status: int, explained: str) -> None:
    async with WhepSite() as site, visit(browser, site) as visitor:
        site.refusal = (status, {})
        await visitor.page.clock.install()
        await visitor.goto("/watch/main")
        await expect(visitor.page.get_by_role("status")).to_contain_text(explained)
        await visitor.page.clock.run_for(60_000)
        assert site.posts == 1
        await visitor.page.get_by_role("button", name="Try again").click()
        await site.until("posts", 2)


async def test_the_schedule_of_attempts(browser: Browser) -> None:
    async with WhepSite() as site, visit(browser, site) as visitor:
        site.refusal = (500, {})
        await visitor.page.clock.install()
        await visitor.goto("/")
        lowest, highest = await visitor.page.evaluate(
            """async () => {
              const { retryDelay } = await import("/static/player.js");
              return [0, 1].map((random) => [0, 1, 2, 3, 4, 9].map((failures) => retryDelay(failures, () => random)));
            }"""
        )
        assert lowest == [0, 800, 1600, 3200, 4000, 4000]
        assert highest == pytest.approx([200, 1200, 2400, 4800, 8000, 8000])

        await visitor.goto("/watch/main")
        state = visitor.page.get_by_role("status")
        for posts, wait in enumerate((1200, 2400, 4800, 8000, 8000), start=1):
            await site.until("posts", posts)
            await expect(state).to_contain_text("The server answered with error 500. ")
            before = await visitor.page.evaluate("() => beamcast.player.state")
            assert before == "reconnecting"
            await visitor.page.clock.run_for(wait)
        await site.until("posts", 6)


@pytest.mark.parametrize(
    ("status", "explained"),
    [(409, "The stream is not live at the moment"), (503, "The server cannot take you at the moment")],
)
async def test_retry_after_is_honoured(browser: Browser, status: int, explained: str) -> None:
    async with WhepSite() as site, visit(browser, site) as visitor:
        site.refusal = (status, {"Retry-After": "7"})
        await visitor.page.clock.install()
        await visitor.goto("/watch/main")
        await expect(visitor.page.get_by_role("status")).to_contain_text(explained)
        await expect(visitor.page.get_by_role("status")).to_contain_text("7\u00a0s")
        await visitor.page.clock.run_for(5000)  # the page's clock goes on by itself, too
        assert site.posts == 1
        await visitor.page.clock.run_for(2600)
        await site.until("posts", 2)


async def test_a_server_that_died_is_replaced_within_seconds(browser: Browser) -> None:
    async with WhepSite() as site, visit(browser, site) as visitor:
        await visitor.goto("/watch/main")
        await until_playing(visitor.page, beyond=20)
        died = time.monotonic()
        site.tracks[0].sounding.clear()
        site.hold = True
        await site.until("posts", 2, timeout=5)
        # The last picture stays while the new connection has none of its own.
        for _ in range(20):
            assert await read_picture(visitor.page) is not None
            await asyncio.sleep(0.05)
        site.tracks[1].sounding.set()
        async with asyncio.timeout(5):
            while (await read_picture(visitor.page) or {"ageMs": 9999})["ageMs"] > 500:
                await asyncio.sleep(0.02)
        assert time.monotonic() - died < 5
        await site.until("deleted", 1)
        assert site.deleted == ["secret-1"]
        await expect(visitor.page.get_by_role("status")).to_have_text("Playing")
        assert len(site.tracks) == 2


async def test_who_leaves_before_the_answer_leaves_no_session(browser: Browser) -> None:
    async with WhepSite() as site, visit(browser, site) as visitor:
        await visitor.goto("/")
        await visitor.page.evaluate(
            """async () => {
              const { Session } = await import("/static/session.js");
              const session = new Session("/whep/main", null);
              const { fetch } = window;
              window.fetch = (...request) => {
                window.fetch = fetch;
                session.close();
                return fetch(...request);
              };
              await session.open();
            }"""
        )
        await site.until("deleted", 1)
        assert site.deleted == ["secret-1"]


async def test_a_pause_that_the_server_explains_is_no_lost_connection(browser: Browser) -> None:
    async with WhepSite() as site, visit(browser, site) as visitor:
        await visitor.goto("/watch/main")
        shown = await until_playing(visitor.page, beyond=5)
        paused: dict[str, Any] = {"reason": "Not even the smallest picture gets through.", "to": {"fps": 0, "rung": ""}}
        await site.decisions.put({"viewer": "v-1", "data": paused})
        await expect(visitor.page.locator("#why")).to_have_text(paused["reason"])
        site.tracks[0].sounding.clear()
        await asyncio.sleep(3)  # twice as long as a silence without a word may last
        assert site.posts == 1
        await expect(visitor.page.get_by_role("status")).to_have_text("Playing")
        site.tracks[0].sounding.set()
        await until_playing(visitor.page, beyond=shown)
        resumed: dict[str, Any] = {"reason": "It is tried again.", "to": {"fps": 15, "rung": "180p"}}
        await site.decisions.put({"viewer": "v-1", "data": resumed})
        await expect(visitor.page.locator("#why")).to_have_text(resumed["reason"])
        site.tracks[0].sounding.clear()
        await site.until("posts", 2, timeout=5)


def decision(reason: str, number: int) -> dict[str, Any]:
    """As /api/events tells it of viewer v-1."""
    data = {"rule": "headroom", "reason": reason, "inputs": {}, "to": {"fps": 30, "rung": "720p"}}
    return {"id": f"r-{number}", "ts": 1.0, "viewer": "v-1", "data": data}


@pytest.mark.parametrize("path", ["/watch/main", "/dashboard/main"])
async def test_events_come_again_after_the_server_refused_to_tell_any(browser: Browser, path: str) -> None:
    async with WhepSite() as site, visit(browser, site) as visitor:
        site.mute = True
        await visitor.hasten("events.js", "FIRST", 200)
        await visitor.goto(path)
        async with asyncio.timeout(20):
            while site.listened < 3:
                await asyncio.sleep(0.02)
        site.mute = False
        await site.decisions.put(decision("There is room for more.", 1))
        shown = visitor.page.locator("#why" if "watch" in path else "#log li")
        await expect(shown).to_contain_text("There is room for more.", timeout=20_000)


async def test_what_a_dashboard_is_told_again_it_shows_once(browser: Browser) -> None:
    async with WhepSite() as site, visit(browser, site) as visitor:
        await visitor.goto("/dashboard/main")
        for number in (1, 2, 1, 2, 3):
            await site.decisions.put(decision(f"Reason {number}.", number))
        log = visitor.page.locator("#log li")
        await expect(log.first).to_contain_text("Reason 3.")
        await expect(log).to_have_count(3)
        assert visitor.complaints == []


async def test_a_dashboard_learns_another_ladder(browser: Browser) -> None:
    def statistics(rung: str) -> dict[str, Any]:
        data = {"rung": rung, "fps": 30, "bitrate": 1000, "estimate": None, "packet_loss": 0, "rtt": None}
        return {"type": "stats", "ts": time.time(), "viewer": "v-1", "data": data}

    async with WhepSite() as site, visit(browser, site) as visitor:
        await visitor.hasten("dashboard.js", "RENEW", 0.5)
        await visitor.goto("/dashboard/main")
        row, legend = visitor.page.locator("#rows tr"), visitor.page.locator("#legend li")
        await site.decisions.put(statistics("360p"))
        await expect(row).to_contain_text("360p30")
        await expect(legend.filter(has_text="360p30")).to_contain_text("1")
        assert site.streams is not None
        site.streams[0]["rungs"] = [{"name": "480p", "height": 480, "fps": 30, "bitrate": 1, "layers": 1}]
        await expect(legend).to_have_count(7)
        async with asyncio.timeout(20):
            while await legend.count() != 2:
                await site.decisions.put(statistics("480p"))
                await asyncio.sleep(0.2)
        await expect(row).to_contain_text("480p30")
        await expect(legend.filter(has_text="480p30")).to_contain_text("1")
        await visitor.check_manners()


async def test_a_browser_that_forbids_autoplay_gets_a_button(browser: Browser) -> None:
    async with WhepSite() as site, visit(browser, site) as visitor:
        await visitor.page.add_init_script(
            # Not navigator.userActivation: to the browser, every evaluate() of Playwright is a gesture.
            """const play = HTMLMediaElement.prototype.play;
            let gesture = false;
            addEventListener("pointerdown", () => { gesture = true; }, true);
            HTMLMediaElement.prototype.play = function () {
              if (gesture) return play.call(this);
              this.autoplay = false;
              this.pause();
              return Promise.reject(new DOMException("a gesture is needed", "NotAllowedError"));
            };"""
        )
        await visitor.goto("/watch/main")
        await expect(visitor.page.get_by_role("status")).to_have_text("Ready to play")
        await visitor.page.locator("#veil").get_by_role("button", name="Play").click()
        await expect(visitor.page.get_by_role("status")).to_have_text("Playing")
        shown = await until_playing(visitor.page)
        await until_playing(visitor.page, beyond=shown)
        assert site.posts == 1


async def test_a_connection_that_comes_back_is_kept(browser: Browser) -> None:
    async with WhepSite() as site, visit(browser, site) as visitor:
        await visitor.goto("/watch/main")
        shown = await until_playing(visitor.page, beyond=5)
        site.refusal = (500, {})
        site.tracks[0].sounding.clear()
        status = visitor.page.get_by_role("status")
        await expect(status).to_contain_text("error 500")
        await expect(visitor.page.locator("#fps")).to_have_text("–")
        site.tracks[0].sounding.set()
        await expect(status).to_have_text("Playing")
        await until_playing(visitor.page, beyond=shown)
        assert site.deleted == []
        assert len(site.tracks) == 1


async def test_the_age_of_a_timestamp(browser: Browser) -> None:
    async with WhepSite() as site, visit(browser, site) as visitor:
        await visitor.goto("/")
        now = 1_767_225_600.5
        ticks = int(now * 90_000) % 2**32
        cases = [ticks - 9000, ticks, ticks + 900, (ticks - 90_000 * 3600) % 2**32]
        ages = await visitor.page.evaluate(
            """async ([cases, now]) => {
              const { timestampAge } = await import("/static/latency.js");
              return cases.map((timestamp) => timestampAge(timestamp, now));
            }""",
            [cases, now],
        )
        assert ages == pytest.approx([0.1, 0.0, 0.0, 3600.0])


@pytest.mark.own_address
async def test_firefox_plays_the_page() -> None:
    async with WhepSite() as site, firefox() as page:
        await page.goto(f"{site.url}/watch/main")
        first = await until_playing(page)
        await until_playing(page, beyond=first + 20)
        figures = await playback(page)
        assert (figures["frameWidth"], figures["frameHeight"]) == (WIDTH, HEIGHT)
        assert await page.evaluate("() => beamcast.player.state") == "playing"
        assert page.console == []
