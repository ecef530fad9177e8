"""The JSON API: what is on the air, who carries it, who watches."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from aiohttp import web

from broadcaster.bus import Bus, Registry
from broadcaster.bus.messages import ViewersParams, ViewersResult, ViewerStatus
from broadcaster.errors import BeamcastError, BusUnavailableError, ConfigurationError, StreamNotFoundError
from broadcaster.stream import stream_name
from gateway.cors import preflight
from gateway.problems import problem
from gateway.routing import Router
from gateway.whep import candidates

VIEWERS_DEADLINE = 1.0
"""Seconds that a worker has to list its viewers; without its answer the list is incomplete, but in time."""


def json(value: Any) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), content_type="application/json", headers={"Cache-Control": "no-store"}
    )


class Api:
    """`/api/...` and the probes."""

    def __init__(self, bus: Bus, registry: Registry, router: Router) -> None:
        self._bus = bus
        self._registry = registry
        self._router = router

    def add_to(self, app: web.Application) -> None:
        for path, handler in (
            ("/api/streams", self.streams),
            ("/api/streams/{stream}/picture.jpg", self.picture),
            ("/api/workers", self.workers),
            ("/api/viewers", self.viewers),
            ("/api/time", self.time),
        ):
            resource = app.router.add_resource(path)
            resource.add_route("GET", handler)
            resource.add_route("HEAD", handler)
            resource.add_route("OPTIONS", preflight())
        app.router.add_get("/healthz", self.health)
        app.router.add_get("/readyz", self.ready)

    async def streams(self, request: web.Request) -> web.Response:
        """The streams on the air by name; `viewers` is their sum over all workers."""
        self._check_fresh()
        workers = [living.lease for living in self._registry.workers.values()]
        return json(
            {
                "streams": [
                    {
                        "name": name,
                        "live": living.lease.live,
                        "viewers": sum(worker.streams.get(name, 0) for worker in workers),
                        "rungs": living.lease.rungs,
                        "since": living.lease.since,
                        "picture": f"/api/streams/{name}/picture.jpg",
                    }
                    for name, living in sorted(self._registry.streams.items())
                ]
            }
        )

    async def picture(self, request: web.Request) -> web.Response:
        """The latest small picture of a stream, as JPEG."""
        name = request.match_info["stream"]
        try:
            picture = await self._bus.get_picture(stream_name(name))
        except ConfigurationError as error:
            raise StreamNotFoundError(error.detail) from None
        if picture is None:
            raise StreamNotFoundError(f"There is no picture of a stream {name!r} at the moment.")
        return web.Response(body=picture, content_type="image/jpeg", headers={"Cache-Control": "no-store"})

    async def workers(self, request: web.Request) -> web.Response:
        self._check_fresh()
        fields = ("id", "pid", "host", "viewers", "capacity", "state", "streams", "since")
        leases = [living.lease for _, living in sorted(self._registry.workers.items())]
        return json({"workers": [{field: getattr(lease, field) for field in fields} for lease in leases]})

    async def viewers(self, request: web.Request) -> web.Response:
        """The viewers of one stream (`?stream=`) or of all; `incomplete` names the workers that did not answer."""
        name = request.query.get("stream")
        params = ViewersParams(stream=None if name is None else stream_name(name))
        self._check_fresh()
        asked = sorted(self._registry.workers)
        answers = await asyncio.gather(*(self._viewers_of(worker, params) for worker in asked))
        viewers = [viewer for answer in answers if answer is not None for viewer in answer]
        viewers.sort(key=lambda viewer: (viewer.stream, viewer.since, viewer.id))
        missing = [worker for worker, answer in zip(asked, answers, strict=True) if answer is None]
        return json({"viewers": viewers, "incomplete": missing})

    async def time(self, request: web.Request) -> web.Response:
        """The server's wall clock, against which a player measures the latency of pictures."""
        return json({"time": time.time()})

    async def health(self, request: web.Request) -> web.Response:
        return json({"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        """200 when this gateway could give a viewer to some worker."""
        self._check_fresh()
        if not any(self._router.usable(worker) for worker in candidates(self._registry, "")):
            return problem(request, 503, "No worker is ready: start one with 'beamcast worker'.", title="Not ready")
        return json({"status": "ready"})

    async def _viewers_of(self, worker: str, params: ViewersParams) -> list[ViewerStatus] | None:
        try:
            result = await self._bus.call(worker, "viewers", params, timeout=VIEWERS_DEADLINE, result=ViewersResult)
        except BeamcastError:
            return None
        return result.viewers

    def _check_fresh(self) -> None:
        if not self._registry.fresh:
            raise BusUnavailableError("Redis does not answer, so nobody knows who is alive: try again in a moment.")
