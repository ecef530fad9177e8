"""The pages: static files, read by name from one directory."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from broadcaster.errors import ConfigurationError
from broadcaster.stream import stream_name

DIRECTORY = Path(__file__).parent / "pages"

POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: mediastream:; "
    "object-src 'none'; base-uri 'none'"
)
"""Content-Security-Policy: everything comes from here, nothing inline. Other sites may embed the player."""

_HEADERS = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
"""no-cache: a browser asks with its ETag each time, and an update is seen at once."""


class Pages:
    """`/` lists the streams, `/watch/{stream}` plays one, `/dashboard/{stream}` shows its viewers, and `/static/` holds
    what they load."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        # A request can only name one of these files, so no path of a request ever reaches the file system.
        self._files = {
            path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()
        }

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/", self.index)
        app.router.add_get("/watch/{stream}", self.watch)
        app.router.add_get("/dashboard/{stream}", self.dashboard)
        app.router.add_get("/static/{name:.+}", self.static)

    async def index(self, request: web.Request) -> web.StreamResponse:
        return self._file("index.html")

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """The player; it explains itself when the stream is unknown, for it may come on the air any time."""
        try:
            stream_name(request.match_info["stream"])
        except ConfigurationError:
            raise web.HTTPNotFound from None
        return self._file("watch.html")

    async def dashboard(self, request: web.Request) -> web.StreamResponse:
        """All viewers of a stream, live; an unknown one may come on the air any time, as above."""
        try:
            stream_name(request.match_info["stream"])
        except ConfigurationError:
            raise web.HTTPNotFound from None
        return self._file("dashboard.html")

    async def static(self, request: web.Request) -> web.StreamResponse:
        return self._file(request.match_info["name"])

    def _file(self, name: str) -> web.StreamResponse:
        path = self._files.get(name)
        if path is None:
            raise web.HTTPNotFound
        headers = dict(_HEADERS)
        if path.suffix == ".html":
            headers["Content-Type"] = "text/html; charset=utf-8"
        return web.FileResponse(path, headers=headers)
