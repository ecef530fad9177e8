"""Cross-origin access for players on other sites (the Fetch standard; RFC 9725 section 4.2 asks for it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiohttp import web

from gateway.problems import Handler

EXPOSED = "Location, ETag, Link, Accept-Patch, Retry-After, Beamcast-Viewer"
ALLOWED = "Authorization, Content-Type, If-Match"
"""By name: with `*`, a browser would still leave out Authorization."""

MAX_AGE = 86_400
"""Seconds for which a browser may remember the answer; browsers cap it themselves."""

SHARED = ("/whep/", "/api/")
"""What other sites may read."""


class Cors:
    """Grants the given origins ("https://example.org", or "*" for all) access to signalling and API."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)

    async def grant(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers to any answer, errors included; a signal handler of aiohttp (on_response_prepare)."""
        if not request.path.startswith(SHARED):
            return
        headers = response.headers
        if "*" in self._origins:
            headers["Access-Control-Allow-Origin"] = "*"
        else:
            headers["Vary"] = "Origin"
            origin = request.headers.get("Origin")
            if origin not in self._origins:
                return
            headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = EXPOSED


def preflight(headers: Mapping[str, str] | None = None) -> Handler:
    """A handler of OPTIONS that names the methods of its resource, with `headers` on top. It asks for no token."""

    async def answer(request: web.Request) -> web.Response:
        resource = request.match_info.route.resource
        methods = ", ".join(sorted(route.method for route in resource)) if resource is not None else ""
        return web.Response(
            status=204,
            headers={
                "Allow": methods,
                "Access-Control-Allow-Methods": methods,
                "Access-Control-Allow-Headers": ALLOWED,
                "Access-Control-Max-Age": str(MAX_AGE),
                **(headers or {}),
            },
        )

    return answer
