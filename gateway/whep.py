"""WHEP: how a player gets, changes and ends its session (draft-ietf-wish-whep-03, after RFC 9725).

The gateway keeps nothing: the session lives in its worker, and Redis knows which worker that is. Where players
disagree with the drafts, players win: 422 instead of 400 everywhere, because one of them takes 400 as an invitation
to post an empty body; DELETE answers 200, because another warns at anything else.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from aiohttp import web

from broadcaster.bus import Bus, Registry
from broadcaster.bus.messages import (
    LeaveParams,
    Method,
    OfferParams,
    OfferResult,
    PatchParams,
    PatchResult,
    SessionRecord,
)
from broadcaster.errors import (
    BeamcastError,
    BusUnavailableError,
    ConfigurationError,
    MediaTypeError,
    OfferError,
    OverloadedError,
    PreconditionFailedError,
    SessionNotFoundError,
    StreamNotFoundError,
    StreamNotLiveError,
)
from broadcaster.stream import stream_name
from gateway.auth import Tokens
from gateway.cors import preflight
from gateway.metrics import Metrics
from gateway.routing import Assignment, Candidate, RecentStreams, Router

T = TypeVar("T", bound=msgspec.Struct)

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"

MAX_BODY = 64 * 1024
"""Bytes of a request body. Offers of browsers have 3 to 8 kB."""

log = logging.getLogger(__name__)

_SECRET = re.compile(r"[A-Za-z0-9_-]{22,128}")
"""At least 128 bits in base64url; anything else cannot be a session of ours, and Redis is not asked."""

_ENTITY_TAG = re.compile(r'"([\x21\x23-\x7e]*)"')
"""One strong entity tag (RFC 9110 section 8.8.3); a weak one never matches If-Match."""

GONE = "There is no such session: it has ended, or its worker has. Post a new offer to the stream."

_ICE_URL = re.compile(r"(stuns?|turns?):[A-Za-z0-9.\[\]:-]+(\?transport=(udp|tcp))?")


class _Done(msgspec.Struct):
    """An answer that says no more than that the call has run."""


@dataclass(frozen=True, slots=True)
class WhepSettings:
    """Deadlines in seconds. A dead worker is known at once; these are for one that hangs.

    The first worker that is asked has `patience`, the second one has `last_patience`, long enough for it to find out
    that a stream's broadcaster does not answer either.
    """

    patience: float = 1.5
    last_patience: float = 3.5
    body: float = 10.0
    """For a request's body to arrive."""
    look_again: float = 0.1
    """A view of the registry that is older is refreshed for a stream that it does not list."""


DEFAULT_WHEP = WhepSettings()


def ice_server(text: str) -> str:
    """The Link header's value for "stun:HOST[:PORT]" or "turn:HOST[:PORT][?transport=tcp] USER PASSWORD".

    Raises ConfigurationError. The form of the value is RFC 9725's, section 4.6.
    """
    url, *credentials = text.split() or [""]
    plain = all(re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", part) for part in credentials)
    wanted = 2 if url.startswith("turn") else 0
    if not _ICE_URL.fullmatch(url) or len(credentials) != wanted or not plain:
        raise ConfigurationError(
            f"{text!r} is not an ICE server: use stun:HOST:PORT or 'turn:HOST:PORT USER PASSWORD', without quotes in it"
        )
    link = f'<{url}>; rel="ice-server"'
    if credentials:
        user, password = credentials
        link += f'; username="{user}"; credential="{password}"; credential-type="password"'
    return link


class Whep:
    """The endpoint `/whep/{stream}` and the sessions `/whep/{stream}/{secret}` below it."""

    def __init__(
        self,
        bus: Bus,
        registry: Registry,
        router: Router,
        recent: RecentStreams,
        metrics: Metrics,
        *,
        tokens: Sequence[str] = (),
        ice_servers: Sequence[str] = (),
        settings: WhepSettings = DEFAULT_WHEP,
    ) -> None:
        """`ice_servers` are values of the Link header, as `ice_server` makes them."""
        self._bus = bus
        self._registry = registry
        self._router = router
        self._recent = recent
        self._metrics = metrics
        self._tokens = Tokens(tokens)
        self._ice_servers = tuple(ice_servers)
        self._settings = settings

    def add_to(self, app: web.Application) -> None:
        endpoint = app.router.add_resource("/whep/{stream}")
        endpoint.add_route("POST", self.post)
        endpoint.add_route("OPTIONS", preflight({"Accept-Post": SDP}))
        session = app.router.add_resource("/whep/{stream}/{secret}")
        session.add_route("PATCH", self.patch)
        session.add_route("DELETE", self.delete)
        session.add_route("OPTIONS", preflight({"Accept-Patch": FRAGMENT}))

    async def post(self, request: web.Request) -> web.Response:
        """Make a session: 201 with the answer, complete with all candidates of the worker."""
        began = time.perf_counter()
        self._check_token(request)
        name = request.match_info["stream"]
        sdp = await self._body(request, SDP)
        await self._check_stream(name)
        result = await self._offer(OfferParams(stream=name, sdp=sdp))
        response = web.Response(
            status=201,
            body=result.sdp.encode(),
            headers={
                "Content-Type": SDP,
                "Location": f"/whep/{name}/{result.secret}",
                "Beamcast-Viewer": result.viewer,
                "ETag": f'"{result.etag}"',
                "Accept-Patch": FRAGMENT,
                "Cache-Control": "no-store",
            },
        )
        for link in self._ice_servers:
            response.headers.add("Link", link)
        self._metrics.answered(time.perf_counter() - began)
        return response

    async def patch(self, request: web.Request) -> web.Response:
        """Candidates: 204. New ICE credentials: 200 with the worker's and a new entity tag."""
        self._check_token(request)
        secret = self._secret(request)
        fragment = await self._body(request, FRAGMENT)
        if_match = _entity_tag(request.headers.getall("If-Match", []))
        record = await self._session(request, secret)
        result = await self._call(
            record.worker,
            "patch",
            PatchParams(secret=secret, if_match=if_match, fragment=fragment),
            PatchResult,
            self._settings.last_patience,
        )
        if result.fragment is None:
            return web.Response(status=204, headers={"Cache-Control": "no-store"})
        headers = {"Content-Type": FRAGMENT, "ETag": f'"{result.etag}"', "Cache-Control": "no-store"}
        return web.Response(body=result.fragment.encode(), headers=headers)

    async def delete(self, request: web.Request) -> web.Response:
        """End the session: 200 at first, 404 from then on."""
        self._check_token(request)
        secret = self._secret(request)
        record = await self._session(request, secret)
        await self._call(record.worker, "leave", LeaveParams(secret=secret), _Done, self._settings.last_patience)
        return web.Response(headers={"Cache-Control": "no-store"})

    async def _offer(self, params: OfferParams) -> OfferResult:
        """Ask the best worker, and when it cannot, once the next best."""
        tried: frozenset[str] = frozenset()
        for hurried in (self._settings.patience, self._settings.last_patience):
            try:
                assignment = self._router.assign(
                    time.monotonic(), candidates(self._registry, params.stream), tried=tried
                )
            except LookupError:
                break
            nobody_else = len(self._registry.workers) == len(tried) + 1
            patience = self._settings.last_patience if nobody_else else hurried
            result = await self._offer_to(assignment, params, patience)
            if result is not None:
                return result
            tried |= {assignment.worker}
        raise OverloadedError("No worker can take another viewer at the moment: try again after Retry-After seconds.")

    async def _offer_to(self, assignment: Assignment, params: OfferParams, patience: float) -> OfferResult | None:
        """None when another worker should be asked."""
        try:
            result = await self._call(assignment.worker, "offer", params, OfferResult, patience)
        except (StreamNotFoundError, StreamNotLiveError):
            self._router.withdraw(assignment)
            # The registry lists the stream, so this worker knows less than we do: the player should ask again.
            raise StreamNotLiveError(f"The stream {params.stream!r} has not reached its worker yet.") from None
        except BusUnavailableError:
            self._router.withdraw(assignment)
            raise
        except BeamcastError as error:
            if error.status < 500:
                self._router.withdraw(assignment)
                raise
            log.warning("worker %s did not take a viewer: %s", assignment.worker, error.detail)
            self._router.refused(assignment, time.monotonic())
            return None
        except BaseException:
            self._router.withdraw(assignment)
            raise
        self._router.joined(assignment, time.monotonic())
        return result

    async def _session(self, request: web.Request, secret: str) -> SessionRecord:
        record = await self._bus.get_session(secret)
        if record is None or record.stream != request.match_info["stream"]:
            raise SessionNotFoundError(GONE)
        if self._registry.fresh and record.worker not in self._registry.workers:
            raise SessionNotFoundError(GONE)
        return record

    def _secret(self, request: web.Request) -> str:
        secret = request.match_info["secret"]
        if not _SECRET.fullmatch(secret):
            raise SessionNotFoundError(GONE)
        return secret

    def _check_token(self, request: web.Request) -> None:
        self._tokens.check(request.headers.getall("Authorization", []))

    async def _check_stream(self, name: str) -> None:
        try:
            stream_name(name)
        except ConfigurationError as error:
            raise StreamNotFoundError(error.detail) from None
        if not self._registry.fresh:
            raise BusUnavailableError("Redis does not answer, so nobody knows who is alive: try again in a moment.")
        listed = name in self._registry.streams
        if not (listed and self._registry.workers) and self._registry.age > self._settings.look_again:
            # It may have come since the last look; one that has not costs a look now and then, not one a request.
            await self._registry.refresh()
            listed = name in self._registry.streams
        if listed:
            return
        if self._recent.awaited(name, time.monotonic()):
            raise StreamNotLiveError(f"The stream {name!r} is off the air: try again after Retry-After seconds.")
        raise StreamNotFoundError(f"There is no stream {name!r}; /api/streams lists those on the air.")

    async def _body(self, request: web.Request, media_type: str) -> str:
        given = request.headers.getall("Content-Type", [])
        if len(given) != 1 or request.content_type != media_type:
            raise MediaTypeError(f"Send a body of the type {media_type}.")
        if (request.content_length or 0) > MAX_BODY:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length or 0)
        try:
            async with asyncio.timeout(self._settings.body):
                text = (await request.read()).decode()
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        except (web.RequestPayloadError, UnicodeDecodeError) as error:
            raise OfferError(f"The body is no UTF-8 text that could be read to its end: {error}.") from None
        if not text.strip():
            raise OfferError("The body is empty: this server answers offers, it makes none.")
        return text

    async def _call(self, worker: str, method: Method, params: msgspec.Struct, result: type[T], timeout: float) -> T:
        """Call a worker. No error of a call leaves with status 400: see the module."""
        try:
            return await self._bus.call(worker, method, params, timeout=timeout, result=result)
        except BeamcastError as error:
            if error.status == 400:
                raise OfferError(error.detail) from None
            raise


def candidates(registry: Registry, stream: str) -> list[Candidate]:
    """The workers of the registry as the router wants them, for a viewer of `stream`."""
    return [
        Candidate(
            id=name,
            ready=living.lease.state == "ready",
            age=living.age + registry.age,
            viewers=living.lease.viewers,
            capacity=living.lease.capacity,
            carries=stream in living.lease.streams,
        )
        for name, living in registry.workers.items()
    ]


def _entity_tag(values: Sequence[str]) -> str | None:
    """What If-Match asks for: None when missing, "*", or the one tag without its quotes."""
    if not values:
        return None
    if len(values) == 1:
        value = values[0].strip()
        if value == "*":
            return value
        match = _ENTITY_TAG.fullmatch(value)
        if match:
            return match[1]
    raise PreconditionFailedError(
        'If-Match is not one strong entity tag in quotes, as the header ETag gave it, or "*".'
    )
