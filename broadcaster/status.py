"""`beamcast status`: who is on the air, as the registry sees it. Also the health check of containers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Literal

from broadcaster.bus import Bus
from broadcaster.errors import BeamcastError, ConfigurationError
from broadcaster.settings import Parser, redis_url

Kind = Literal["worker", "stream", "gateway"]

ID_FILE_VARIABLE = "BEAMCAST_ID_FILE"
"""Where a process leaves its kind and id, for a `beamcast status --self` beside it in the same container."""


class NotAliveError(BeamcastError):
    """The process that left its id here holds no lease."""


def leave_id(kind: Kind, id: str) -> None:  # noqa: A002
    """Write the kind and id of this process to the file that BEAMCAST_ID_FILE names, if it names one."""
    if path := os.environ.get(ID_FILE_VARIABLE):
        try:
            Path(path).write_text(f"{kind} {id}\n", encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{ID_FILE_VARIABLE}={path} cannot be written: {error.strerror}") from None


def main(arguments: list[str]) -> int:
    """Print a line for each living process; with --self, fail unless the process beside this one is among them."""
    parser = Parser(prog="beamcast status", description="Who is on the air, as the registry sees it.")
    parser.option("--redis-url", redis_url, default="redis://127.0.0.1:6379", metavar="URL", help="the Redis to ask")
    parser.add_argument(
        "--self", action="store_true", help=f"fail unless the process that wrote the file {ID_FILE_VARIABLE} is alive"
    )
    options = parser.parse_args(arguments)
    alive = asyncio.run(_print_all(options.redis_url))
    if options.self:
        _check_self(alive)
    return 0


def _check_self(alive: set[str]) -> None:
    path = os.environ.get(ID_FILE_VARIABLE)
    if not path:
        raise ConfigurationError(f"--self needs {ID_FILE_VARIABLE}, the file to which the process wrote its id")
    try:
        itself = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise NotAliveError(f"{path}: {error.strerror}; the process has not started yet") from None
    if itself not in alive:
        raise NotAliveError(f"{itself} holds no lease in the registry")


async def _print_all(url: str) -> set[str]:
    bus = Bus(url, source="status")
    await bus.start()
    alive: set[str] = set()
    try:
        for gateway in [living.lease for living in await bus.gateways()]:
            alive.add(f"gateway {gateway.id}")
            print(f"gateway  {gateway.id:<20} {gateway.host:<16} {gateway.url}")
        for stream in [living.lease for living in await bus.streams()]:
            alive.add(f"stream {stream.name}")
            state = "live" if stream.live else "slate"
            rungs = " ".join(rung.name for rung in stream.rungs)
            print(f"stream   {stream.name:<20} {stream.host:<16} {state} {rungs}")
        for worker in [living.lease for living in await bus.workers()]:
            alive.add(f"worker {worker.id}")
            load = f"{worker.viewers}/{worker.capacity} viewers"
            print(f"worker   {worker.id:<20} {worker.host:<16} {worker.state}, {load}, UDP port {worker.udp_port}")
    finally:
        await bus.close()
    return alive
