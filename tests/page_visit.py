"""A page of the test site in a browser, all that it says and asks for, and the manners that every page has."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Page, Route

from tests.whep_site import WhepSite

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
NAMELESS = """() => [...document.querySelectorAll("button, a, svg[role=img], video, img, [role=group], section, nav")]
  .filter((element) => !element.closest("[hidden]"))
  .filter((element) => element.tagName === "IMG" ? !element.hasAttribute("alt")
    : !(element.getAttribute("aria-label") || element.getAttribute("aria-labelledby") || element.innerText?.trim()
        || element.textContent.trim()))
  .map((element) => element.outerHTML)"""


class Visit:
    """One page, with all that it logged and asked for."""

    def __init__(self, page: Page, site: WhepSite) -> None:
        self.page = page
        self.site = site
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda said: self.complaints.append(said.text) if said.type != "log" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    async def goto(self, path: str) -> None:
        await self.page.goto(self.site.url + path)

    async def hasten(self, script: str, constant: str, value: float) -> None:
        """Give a constant of that script another value, for which the test has to wait less."""

        async def changed(route: Route) -> None:
            response = await route.fetch()
            text, count = re.subn(rf"const {constant} = \d+;", f"const {constant} = {value:g};", await response.text())
            assert count == 1, f"{script} has no {constant}"
            await route.fulfill(response=response, body=text)

        await self.page.route(f"**/static/{script}", changed)

    async def check_manners(self) -> None:
        """No errors, no foreign servers, everything has a name, and nothing sticks out at the side."""
        assert not self.complaints
        assert [url for url in self.requests if not url.startswith(self.site.url + "/")] == []
        assert await self.page.evaluate(NAMELESS) == []
        assert await self.page.locator("h1").count() == 1
        assert await self.page.locator("main").count() == 1
        assert await self.page.locator("html").get_attribute("lang") == "en"
        assert await self.page.title() != ""
        excess = await self.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert excess <= 0


@asynccontextmanager
async def visit(browser: Browser, site: WhepSite, viewport: dict[str, int] = DESKTOP) -> AsyncIterator[Visit]:
    page = await browser.new_page(viewport=viewport)  # type: ignore[arg-type]
    try:
        yield Visit(page, site)
    finally:
        await page.close()
