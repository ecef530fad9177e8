"""Every error as `application/problem+json` (RFC 9457), made in one place."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web

from broadcaster.errors import BeamcastError

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CONTENT_TYPE = "application/problem+json"

_DETAILS = {
    404: "There is nothing at this address.",
    405: "This address does not answer the method {method}; the header Allow lists those that it answers.",
    408: "The body did not arrive in time.",
    413: "The body is larger than this server accepts.",
}


def problem(
    request: web.BaseRequest,
    status: int,
    detail: str,
    *,
    title: str | None = None,
    kind: str = "about:blank",
    instance: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """A problem document. `kind` is the problem's URI; "about:blank" says no more than the status does."""
    document = {
        "type": kind,
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": instance or request.path,
    }
    return web.Response(
        status=status,
        body=msgspec.json.encode(document),
        content_type=CONTENT_TYPE,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def problem_of(request: web.BaseRequest, error: BeamcastError) -> web.Response:
    """An error of ours: its class gives status, title and `urn:beamcast:problem:{name}`, its message the detail."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    name = re.sub(r"(?<!^)(?=[A-Z])", "-", type(error).__name__.removesuffix("Error")).lower()
    kind = f"urn:beamcast:problem:{name}"
    return problem(request, error.status, error.detail, title=error.title, kind=kind, headers=headers)


def loggable(request: web.Request) -> str:
    """The request's path without the secret of a session."""
    path = request.rel_url.raw_path
    return path.rpartition("/")[0] + "/SECRET" if "secret" in request.match_info else path


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler or aiohttp raises into a problem document."""
    try:
        return await handler(request)
    except BeamcastError as error:
        return problem_of(request, error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        detail = _DETAILS.get(error.status, error.reason).format(method=request.method)
        kept = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
        return problem(request, error.status, detail, headers=kept)
    except Exception:
        instance = uuid.uuid4().urn
        log.exception("%s %s failed as %s", request.method, loggable(request), instance)
        return problem(
            request, 500, "The gateway failed; its log tells more under this instance's id.", instance=instance
        )
