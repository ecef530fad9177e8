"""Real browsers for the tests, and what a test asks of the page that plays.

`chromium()` is the system's Chromium through Playwright, `firefox()` the system's Firefox ESR through WebDriver BiDi
(https://www.w3.org/TR/webdriver-bidi/). Both run headless with a profile of their own, ask nothing of the outside,
and are gone when the context ends. `read_picture` and `playback` work on the pages of both.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypedDict

import aiohttp
from playwright.async_api import Browser, async_playwright

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # It looks for its maker's servers all the same: so it finds no names.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--autoplay-policy=no-user-gesture-required",
]

FIREFOX_PREFERENCES: dict[str, bool | int | str] = {
    "media.autoplay.default": 0,
    # No connection but those of the test, and no name looked up.
    "network.dns.disabled": True,
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.aboutwelcome.enabled": False,
    "browser.newtabpage.enabled": False,
    "browser.newtabpage.activity-stream.feeds.topsites": False,
    "browser.region.network.url": "",
    "browser.safebrowsing.blockedURIs.enabled": False,
    "browser.safebrowsing.downloads.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.safebrowsing.update.enabled": False,
    "browser.search.update": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.healthreport.uploadEnabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.push.connection.enabled": False,
    "extensions.blocklist.enabled": False,
    "extensions.getAddons.cache.enabled": False,
    "extensions.systemAddon.update.enabled": False,
    "extensions.update.enabled": False,
    "geo.provider.network.url": "",
    "media.gmp-manager.updateEnabled": False,
    "media.gmp-manager.url": "",
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.dns.disablePrefetch": True,
    "network.prefetch-next": False,
    "network.trr.mode": 5,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.enabled": False,
    "toolkit.telemetry.server": "",
    "toolkit.telemetry.unified": False,
    # Tests on a loaded machine are slow, which is no reason to ask the user about the script.
    "dom.max_script_run_time": 0,
}

START_TIMEOUT = 40.0
ANSWER_TIMEOUT = 30.0

_READ_BARCODE = (Path(__file__).parent / "barcode.js").read_text(encoding="utf-8")

_READ_PICTURE = f"""() => {{
  const read = {_READ_BARCODE}
  return read(document.querySelector("video"));
}}"""

_PLAYBACK = """async () => {
  const connection = window.beamcast?.player.connection;
  const names = ["framesDecoded", "framesDropped", "framesReceived", "freezeCount", "totalFreezesDuration",
    "frameWidth", "frameHeight", "keyFramesDecoded", "packetsReceived", "packetsLost", "bytesReceived",
    "nackCount", "pliCount"];
  const figures = Object.fromEntries(names.map((name) => [name, 0]));
  for (const entry of (await connection?.getStats())?.values() ?? []) {
    if (entry.type !== "inbound-rtp" || entry.kind !== "video") continue;
    for (const name of names) figures[name] = entry[name] ?? 0;
  }
  return figures;
}"""


class Picture(TypedDict):
    """What the barcode says: the frame's index, its capture in ms since 1970, and its age when it was read."""

    frame: int
    capturedMs: int
    ageMs: int


class Page(Protocol):
    """What the pages of both browsers can: call a function, given as JavaScript, and return its (awaited) value."""

    async def evaluate(self, function: str, /) -> Any: ...


async def read_picture(page: Page) -> Picture | None:
    """The barcode of the picture in the page's first <video>, or None when it shows none."""
    picture: Picture | None = await page.evaluate(_READ_PICTURE)
    return picture


async def playback(page: Page) -> dict[str, Any]:
    """The figures of the video's inbound-rtp stats (framesDecoded, frameWidth, frameHeight, freezeCount, ...).

    They count from the start of the connection that is shown now; what the browser does not tell is 0.
    """
    figures: dict[str, Any] = await page.evaluate(_PLAYBACK)
    return figures


async def until_playing(page: Page, timeout: float = 20, *, beyond: int = 0) -> int:
    """Wait until the picture on the page shows a frame after `beyond`; the frame's number."""
    async with asyncio.timeout(timeout):
        while True:
            picture = await read_picture(page)
            if picture is not None and picture["frame"] > beyond:
                return picture["frame"]
            await asyncio.sleep(0.05)


def _executable(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    raise AssertionError(f"the tests need {names[0]} on PATH: run tests/system-packages")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A fresh Chromium; `await browser.new_page()` gives a page with a profile of its own."""
    executable = _executable("chromium", "chromium-browser", "google-chrome")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable, args=CHROMIUM_FLAGS, timeout=START_TIMEOUT * 1000
        )
        try:
            yield browser
        finally:
            await browser.close()


class FirefoxError(Exception):
    """Firefox refused a command, threw in a script, or went away."""


class FirefoxPage:
    """One tab of Firefox, over WebDriver BiDi."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())
        self._context = ""
        self.console: list[str] = []
        """Errors of the pages, as "error: text"."""

    async def open(self) -> None:
        await self.send("session.new", {"capabilities": {}})
        await self.send("session.subscribe", {"events": ["log.entryAdded"]})
        tree = await self.send("browsingContext.getTree", {})
        self._context = tree["contexts"][0]["context"]

    async def send(self, method: str, params: dict[str, Any]) -> Any:
        """Call a BiDi command and return its result."""
        number = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(ANSWER_TIMEOUT):
            return await answer

    async def goto(self, url: str) -> None:
        """Load `url` and wait until its document and its modules have run."""
        await self.send("browsingContext.navigate", {"context": self._context, "url": url, "wait": "complete"})

    async def evaluate(self, function: str) -> Any:
        """Call `function` in the page; its value crosses as JSON."""
        result = await self.send(
            "script.callFunction",
            {
                "functionDeclaration": f"async () => JSON.stringify((await ({function})()) ?? null)",
                "target": {"context": self._context},
                "awaitPromise": True,
            },
        )
        if result["type"] == "exception":
            raise FirefoxError(result["exceptionDetails"]["text"])
        return json.loads(result["result"]["value"])

    async def screenshot(self) -> bytes:
        """The viewport as PNG."""
        result = await self.send("browsingContext.captureScreenshot", {"context": self._context})
        return base64.b64decode(result["data"])

    async def close(self) -> None:
        with contextlib.suppress(FirefoxError, TimeoutError, ConnectionError):
            await self.send("browser.close", {})
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            content = json.loads(message.data)
            if content.get("method") == "log.entryAdded" and content["params"]["level"] == "error":
                self.console.append(f"error: {content['params'].get('text')}")
            answer = self._waiting.pop(content.get("id"), None)
            if answer is None or answer.done():
                continue
            if content["type"] == "error":
                answer.set_exception(FirefoxError(f"{content['error']}: {content['message']}"))
            else:
                answer.set_result(content["result"])
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(FirefoxError("Firefox closed the connection"))


@asynccontextmanager
async def firefox() -> AsyncIterator[FirefoxPage]:
    """A fresh Firefox ESR with one tab."""
    executable = _executable("firefox-esr", "firefox")
    async with _profile() as profile:
        preferences = "".join(
            f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in FIREFOX_PREFERENCES.items()
        )
        (Path(profile) / "user.js").write_text(preferences, encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            executable,
            "--headless",
            "--no-remote",
            "--profile",
            profile,
            "--remote-debugging-port=0",
            "about:blank",
            env={**os.environ, "MOZ_CRASHREPORTER_DISABLE": "1", "MOZ_DATA_REPORTING": "0", "HOME": profile},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stderr is not None
        drain: asyncio.Task[None] | None = None
        try:
            url = await _bidi_url(process.stderr)
            drain = asyncio.create_task(_discard(process.stderr))
            async with (
                aiohttp.ClientSession() as http,
                http.ws_connect(f"{url}/session", max_msg_size=64 * 1024 * 1024) as socket,
            ):
                page = FirefoxPage(socket)
                try:
                    await page.open()
                    yield page
                finally:
                    await page.close()
        finally:
            await _end(process)
            if drain is not None:
                await drain


@asynccontextmanager
async def _profile() -> AsyncIterator[str]:
    """A folder that goes away in a thread: a profile has so many files that its removal would block the loop."""
    profile = tempfile.mkdtemp(prefix="beamcast-firefox-")
    try:
        yield profile
    finally:
        await asyncio.to_thread(shutil.rmtree, profile, ignore_errors=True)


async def _bidi_url(stderr: asyncio.StreamReader) -> str:
    said = b""
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while line := await stderr.readline():
                said += line
                if found := re.search(rb"WebDriver BiDi listening on (ws://\S+)", line):
                    return found[1].decode()
    except TimeoutError:
        pass
    raise FirefoxError(f"Firefox did not start within {START_TIMEOUT:.0f} s: {said.decode(errors='replace')}")


async def _discard(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


async def _end(process: asyncio.subprocess.Process) -> None:
    """Wait for the end, and help after five seconds: Firefox has a session (setsid) of its own, helpers included."""
    try:
        async with asyncio.timeout(5):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
