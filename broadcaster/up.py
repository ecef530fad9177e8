"""`beamcast up`: a whole Beamcast on one machine, each part in a process of its own, supervised."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import socket
import sys
import time
from dataclasses import dataclass

from broadcaster.bus import Bus, EmbeddedRedis
from broadcaster.errors import BeamcastError, BusUnavailableError, ConfigurationError
from broadcaster.process import SUPERVISOR_VARIABLE, Shutdown, run
from broadcaster.settings import Parser, port, port_range, positive, redis_url

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UpSettings:
    ready_timeout: float = 30.0
    """Seconds until every process must have said that it takes work."""
    stop_timeout: float = 8.0
    """Seconds between asking a process to stop and ending it."""
    restart_first: float = 0.5
    restart_most: float = 10.0
    """Seconds before an ended process is started again: doubled each time, up to `restart_most`."""
    steady: float = 30.0
    """A process that ran this many seconds starts with the first delay again."""


@dataclass
class Child:
    """One supervised process: `name` is also its id in the registry."""

    name: str
    kind: str
    command: list[str]
    process: asyncio.subprocess.Process | None = None
    started: float = 0.0
    delay: float = 0.0


class FirstStartError(BeamcastError):
    """A process ended before it took work; it has said why itself."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} ended with code {code} before it took work; its own line above says why")


class Supervisor:
    """Starts the children, starts them again when they end, and stops them all together."""

    def __init__(self, children: list[Child], environment: dict[str, str], settings: UpSettings) -> None:
        self.children = children
        self._environment = environment
        self._settings = settings
        self._keepers: list[asyncio.Task[None]] = []
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ready = False

    async def start(self) -> None:
        for child in self.children:
            if self.failed.done():
                return
            await self._spawn(child)
            self._keepers.append(asyncio.create_task(self._keep(child)))

    async def stop(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        running = [child.process for child in self.children if child.process and child.process.returncode is None]
        for process in running:
            _signal(process, kill=False)
        if running:
            ends = [asyncio.create_task(process.wait()) for process in running]
            await asyncio.wait(ends, timeout=self._settings.stop_timeout)
            for process in running:
                if process.returncode is None:
                    _signal(process, kill=True)
            await asyncio.gather(*ends)

    async def _spawn(self, child: Child) -> None:
        child.started = time.monotonic()
        child.process = await asyncio.create_subprocess_exec(
            *child.command,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            # A group of its own: an interrupt from the terminal reaches the supervisor alone, which stops in order.
            start_new_session=True,
        )

    async def _keep(self, child: Child) -> None:
        settings = self._settings
        while True:
            assert child.process is not None
            code = await child.process.wait()
            if not self.ready:
                if not self.failed.done():
                    self.failed.set_exception(FirstStartError(child.name, code))
                return
            ran = time.monotonic() - child.started
            child.delay = (
                settings.restart_first
                if ran > settings.steady or not child.delay
                else min(settings.restart_most, child.delay * 2)
            )
            log.warning("%s ended with code %d; starting it again in %.1f s", child.name, code, child.delay)
            await asyncio.sleep(child.delay)
            try:
                await self._spawn(child)
            except OSError as error:
                log.warning("%s cannot be started: %s", child.name, error)


def _signal(process: asyncio.subprocess.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except ProcessLookupError:
        return


async def _start(supervisor: Supervisor, bus: Bus) -> None:
    """Start every child, and return when each holds its lease, and not somebody else's of that name."""
    await supervisor.start()
    wanted = {(child.name, child.process.pid) for child in supervisor.children if child.process is not None}
    while True:
        try:
            alive = {(living.lease.name, living.lease.pid) for living in await bus.streams()}
            alive |= {(living.lease.id, living.lease.pid) for living in await bus.workers()}
            alive |= {(living.lease.id, living.lease.pid) for living in await bus.gateways()}
        except BusUnavailableError:
            alive = set()
        if wanted <= alive:
            return
        await asyncio.sleep(0.1)


def _children(options: argparse.Namespace, url: str, prefix: str) -> list[Child]:
    python = [sys.executable, "-m"]
    redis = ["--redis-url", url]
    first, last = options.udp_ports[0], options.udp_ports[-1]
    gateway = ["gateway", "--host", options.host, "--port", str(options.port), "--id", f"{prefix}gateway-1"]
    broadcast = ["broadcaster", "broadcast", options.source, "--stream", options.stream]
    # Nobody is left to send viewers to when everything here stops.
    worker = ["workers", "--udp-ports", f"{first}-{last}", "--drain", "0"]
    return [
        Child(f"{prefix}gateway-1", "gateway", [*python, *gateway, *redis]),
        Child(options.stream, "broadcaster", [*python, *broadcast, *redis]),
        *(
            Child(f"{prefix}worker-{n}", "worker", [*python, *worker, "--id", f"{prefix}worker-{n}", *redis])
            for n in range(1, options.workers + 1)
        ),
    ]


def main(arguments: list[str]) -> int:
    """Run `beamcast up` and return its exit code."""
    parser = Parser(prog="beamcast up", description="Everything on this machine: open the URL that it prints.")
    parser.source()
    parser.option("--workers", positive, default=os.cpu_count() or 1, metavar="N", help="how many worker processes")
    parser.option("--host", default="127.0.0.1", help="the address that the gateway listens on")
    parser.option("--port", port, default=8080, help="the gateway's port")
    parser.option(
        "--udp-ports",
        port_range,
        default=range(40000, 40100),
        metavar="FIRST-LAST",
        help="each worker takes the first free port of this range, 40000-40099 by default",
    )
    parser.option("--redis-url", redis_url, metavar="URL", help="the Redis to use; without it, one is started")
    options = parser.parse_args(arguments)
    return run(lambda shutdown: _up(options, shutdown), name="up")


async def _up(options: argparse.Namespace, shutdown: Shutdown, settings: UpSettings | None = None) -> None:
    settings = settings or UpSettings()
    ports = len(options.udp_ports)
    if options.workers > ports and options.udp_ports[0]:
        raise ConfigurationError(
            f"{options.workers} workers need as many ports, and --udp-ports has {ports}: widen it, or ask for fewer"
        )
    options.port = _checked_port(options.host, options.port)
    if options.redis_url:
        prefix = f"{socket.gethostname()}-{secrets.token_hex(2)}-"
        await _supervise(options, options.redis_url, prefix, shutdown, settings)
        return
    redis = EmbeddedRedis()
    await redis.start()
    keeping = asyncio.create_task(redis.keep())
    try:
        log.info("Redis: %s at %s (--redis-url uses one of yours instead)", redis.kind, redis.url)
        await _supervise(options, redis.url, "", shutdown, settings)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await redis.stop()


async def _supervise(
    options: argparse.Namespace, url: str, prefix: str, shutdown: Shutdown, settings: UpSettings
) -> None:
    bus = Bus(url, source=f"{prefix}up")
    await bus.start()
    environment = {**os.environ, SUPERVISOR_VARIABLE: str(os.getpid())}
    supervisor = Supervisor(_children(options, url, prefix), environment, settings)
    stop = asyncio.create_task(shutdown.wait())
    ready = asyncio.create_task(_start(supervisor, bus))
    try:
        await asyncio.wait(
            {ready, stop, supervisor.failed},
            timeout=settings.ready_timeout,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if supervisor.failed.done():
            supervisor.failed.result()
        if ready.done():
            ready.result()
        if not stop.done() and not ready.done():
            log.warning("not everything takes work yet after %.0f s; see the lines above", settings.ready_timeout)
        supervisor.ready = True
        if not stop.done():
            host = f"[{options.host}]" if ":" in options.host else options.host
            print(f"Beamcast is at http://{host}:{options.port}/  (^C stops it)", flush=True)
        if all(child.process is not None for child in supervisor.children):
            ready.cancel()
        await stop
    finally:
        for task in (stop, ready):
            task.cancel()
        await asyncio.gather(stop, ready, return_exceptions=True)
        await supervisor.stop()
        await bus.close()


def _checked_port(host: str, number: int) -> int:
    """The port to listen on, a free one for 0; ConfigurationError, before anything is started, when that cannot be."""
    try:
        with socket.create_server((host, number), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            free: int = probe.getsockname()[1]
            return free
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host} port {number}: {error.strerror}; choose another with --host or --port"
        ) from None
