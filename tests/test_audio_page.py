"""The watch page's sound: muted at first, a button that says what it does, and none where there is nothing to hear."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.browsers import until_playing
from tests.loop_watch import never_blocked
from tests.page_visit import DESKTOP, PHONE, visit
from tests.whep_site import WhepSite

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def loop_never_blocked() -> AsyncIterator[None]:
    """As everywhere, of the loop that these tests share with their browser."""
    with never_blocked():
        yield


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE, {"width": 320, "height": 640}], ids=["desktop", "phone", "small"])
async def test_a_button_unmutes_and_mutes(browser: Browser, viewport: dict[str, int]) -> None:
    async with WhepSite() as site, visit(browser, site, viewport) as visitor:
        site.sound = True
        page = visitor.page
        await visitor.goto("/watch/main")
        await until_playing(page)
        button = page.get_by_role("button", name="Unmute")
        await expect(button).to_be_visible()
        assert await page.evaluate("() => document.querySelector('video').muted")
        box = await button.bounding_box()
        assert box is not None
        assert box["height"] >= 44
        await visitor.check_manners()

        # By keyboard alone: the tab key finds it behind the button that plays and pauses.
        await page.get_by_role("button", name="Pause").focus()
        await page.keyboard.press("Tab")
        assert await page.evaluate("() => document.activeElement.id") == "sound"
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Mute", exact=True)).to_be_focused()
        assert not await page.evaluate("() => document.querySelector('video').muted")
        await page.keyboard.press("Space")
        await expect(button).to_be_focused()
        assert await page.evaluate("() => document.querySelector('video').muted")
        await until_playing(page, beyond=5)
        assert not visitor.complaints


async def test_a_stream_without_sound_has_no_button(browser: Browser) -> None:
    async with WhepSite() as site, visit(browser, site) as visitor:
        await visitor.goto("/watch/main")
        await until_playing(visitor.page)
        assert await visitor.page.locator("#sound").is_hidden()
        assert not await visitor.page.evaluate("() => beamcast.player.sound")
        # A source that comes back with sound gets one.
        site.sound = True
        await visitor.page.get_by_role("button", name="Pause").click()
        await visitor.page.get_by_role("button", name="Play").click()
        await expect(visitor.page.get_by_role("button", name="Unmute")).to_be_visible(timeout=15_000)


async def test_the_sound_stays_on_when_the_connection_is_replaced(browser: Browser) -> None:
    async with WhepSite() as site, visit(browser, site) as visitor:
        site.sound = True
        await visitor.goto("/watch/main")
        await until_playing(visitor.page, beyond=5)
        await visitor.page.get_by_role("button", name="Unmute").click()
        await visitor.page.evaluate("() => { beamcast.player.stop(); beamcast.player.start(); }")
        await site.until("posts", 2)
        await until_playing(visitor.page)
        assert not await visitor.page.evaluate("() => document.querySelector('video').muted")
        await expect(visitor.page.get_by_role("button", name="Mute", exact=True)).to_be_visible()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a=fmtp:111 minptime=10;useinbandfec=1", "a=fmtp:111 minptime=10;useinbandfec=1;stereo=1"),
        ("a=fmtp:111 stereo=1;useinbandfec=1", "a=fmtp:111 stereo=1;useinbandfec=1"),
        ("a=fmtp:63 111/111", "a=fmtp:63 111/111"),
    ],
)
async def test_stereo_is_asked_for_once(browser: Browser, line: str, expected: str) -> None:
    async with WhepSite() as site, visit(browser, site) as visitor:
        await visitor.goto("/")
        changed = await visitor.page.evaluate(
            """async (line) => {
              const { inStereo } = await import("/static/session.js");
              return inStereo(`a=rtpmap:111 opus/48000/2\\r\\n${line}\\r\\na=sendonly\\r\\n`);
            }""",
            line,
        )
        assert changed == f"a=rtpmap:111 opus/48000/2\r\n{expected}\r\na=sendonly\r\n"
