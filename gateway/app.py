"""The gateway process: one HTTP server over the registry, without state of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from broadcaster.bus import Bus, Registry, new_epoch
from broadcaster.bus.messages import GatewayLease, WorkerLease, WorkerNotice
from broadcaster.errors import ConfigurationError
from broadcaster.process import Shutdown
from broadcaster.status import leave_id
from gateway.api import Api
from gateway.cors import Cors
from gateway.feeds import Feeds, FeedSettings
from gateway.metrics import CONTENT_TYPE, Metrics
from gateway.pages import DIRECTORY, Pages
from gateway.problems import problems
from gateway.routing import RecentStreams, Router
from gateway.whep import DEFAULT_WHEP, MAX_BODY, Whep, WhepSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What the command line sets. `ice_servers` are values of the Link header; durations are in seconds."""

    id: str
    host: str = "127.0.0.1"
    port: int = 8080
    redis_url: str = "redis://127.0.0.1:6379/0"
    tokens: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ("*",)
    ice_servers: tuple[str, ...] = ()
    pages: Path = field(default=DIRECTORY)
    whep: WhepSettings = DEFAULT_WHEP
    feeds: FeedSettings = field(default_factory=FeedSettings)
    watch_interval: float = 0.5
    finish: float = 5.0
    """For running requests to end after SIGTERM."""
    idle: float = 65.0
    """For a request's headers to arrive, and for the next request: above the 60 s that reverse proxies keep idle ones.
    Whoever opens connections and says nothing must not have them for ever."""


def application(settings: GatewaySettings, bus: Bus, registry: Registry, recent: RecentStreams) -> web.Application:
    """The HTTP application over a bus and a registry that run already."""
    metrics = Metrics()
    router = Router()
    app = web.Application(middlewares=[metrics.observe, problems], client_max_size=MAX_BODY)
    app.on_response_prepare.append(Cors(settings.cors_origins).grant)
    app.on_response_prepare.append(_harden)
    whep = Whep(
        bus,
        registry,
        router,
        recent,
        metrics,
        tokens=settings.tokens,
        ice_servers=settings.ice_servers,
        settings=settings.whep,
    )
    whep.add_to(app)
    Api(bus, registry, router).add_to(app)
    Feeds(bus, settings.feeds).add_to(app)
    Pages(settings.pages).add_to(app)

    async def scrape(request: web.Request) -> web.Response:
        return web.Response(body=metrics.text(registry).encode(), headers={"Content-Type": CONTENT_TYPE})

    app.router.add_get("/metrics", scrape)
    return app


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "Beamcast"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, or ConfigurationError when the address cannot be had. "::" takes IPv4 as well."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024, dualstack_ipv6=host == "::")
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --host or --port"
        ) from None


async def serve(settings: GatewaySettings, shutdown: Shutdown) -> None:
    """Serve until `shutdown`, then finish what runs.

    Raises ConfigurationError when it cannot listen there or another gateway has its id, and BusUnavailableError when
    Redis does not answer at the start; later outages heal by themselves.
    """
    with listen(settings.host, settings.port) as listener:
        bus = Bus(settings.redis_url, source=settings.id)
        await bus.start()
        try:
            await _serve(settings, shutdown, bus, listener)
        finally:
            await bus.close()


async def _serve(settings: GatewaySettings, shutdown: Shutdown, bus: Bus, listener: socket.socket) -> None:
    def lost(lease: WorkerLease) -> None:
        log.warning("worker %s is lost with %d viewers", lease.id, lease.viewers)
        notice = WorkerNotice(worker=lease.id, host=lease.host, capacity=lease.capacity, viewers=lease.viewers)
        bus.publish("lost", notice, stream=None)

    registry = Registry(bus, on_lost=lost)
    recent = RecentStreams(time.monotonic())
    # What aiohttp logs besides our own problems are requests that are no HTTP, each with a stack trace: noise.
    noise = logging.getLogger("gateway.http")
    noise.setLevel(logging.CRITICAL)
    runner = web.AppRunner(
        application(settings, bus, registry, recent),
        access_log=None,
        logger=noise,
        shutdown_timeout=settings.finish,
        keepalive_timeout=settings.idle,
        lingering_time=1.0,
    )
    record = _record(settings, listener)
    lease = bus.lease("gateway", settings.id, lambda: record)
    stop = asyncio.create_task(shutdown.wait())
    tasks = [stop]
    try:
        await registry.start()
        await runner.setup()
        await web.SockSite(runner, listener).start()
        log.info("listening at %s", record.url)
        tasks.append(asyncio.create_task(_remember(registry, recent, settings.watch_interval)))
        # After a crash this waits for the old lease to expire; requests are served meanwhile.
        tasks.append(asyncio.create_task(lease.acquire()))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
        leave_id("gateway", settings.id)
        await stop
    finally:
        await runner.cleanup()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await lease.release()
        await registry.close()


async def _remember(registry: Registry, recent: RecentStreams, interval: float) -> None:
    while True:
        if registry.fresh:
            recent.note(registry.streams, time.monotonic())
        await asyncio.sleep(interval)


def _record(settings: GatewaySettings, listener: socket.socket) -> GatewayLease:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return GatewayLease(
        id=settings.id,
        epoch=new_epoch(),
        pid=os.getpid(),
        host=socket.gethostname(),
        url=f"http://{host}:{listener.getsockname()[1]}",
        since=time.time(),
    )
