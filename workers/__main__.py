"""`python -m workers` (`beamcast worker`): one process that hosts viewers."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

from broadcaster.bus import Bus
from broadcaster.errors import ConfigurationError
from broadcaster.process import Shutdown, run
from broadcaster.settings import Parser, main_with_errors, own_name, port_range, positive, redis_url
from broadcaster.status import leave_id
from workers.transport import Endpoint
from workers.worker import Worker, WorkerSettings


def seconds(text: str) -> float:
    """A number of seconds, not negative."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < 86_400.0:
        raise ConfigurationError(f"{text!r} is not a number of seconds")
    return value


def main(arguments: list[str] | None = None) -> int:
    """Run a worker until it is told to stop, and return its exit code."""
    parser = Parser(prog="beamcast worker", description="Host viewers: one UDP port, as many workers as wanted.")
    parser.option(
        "--redis-url", redis_url, default="redis://127.0.0.1:6379", metavar="URL", help="the Redis of the cluster"
    )
    parser.option(
        "--udp-ports",
        port_range,
        default=range(40000, 40100),
        metavar="FIRST-LAST",
        help="the first free port of this range is used for UDP and ICE-TCP; 40000-40099 by default, 0 is any",
    )
    parser.option(
        "--announce",
        many=True,
        metavar="ADDRESS",
        help="the address that players are told; may be given again (default: the default route's, and loopback)",
    )
    parser.option("--capacity", positive, default=WorkerSettings.capacity, metavar="N", help="viewers to take at most")
    parser.option(
        "--drain", seconds, default=WorkerSettings.drain, metavar="SECONDS", help="time to send viewers away at the end"
    )
    parser.option("--id", default=own_name("worker"), help="the worker's name in events")
    options = parser.parse_args(arguments)
    return run(lambda shutdown: serve(options, shutdown), name=options.id)


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def serve(options: argparse.Namespace, shutdown: Shutdown) -> None:
    """Host viewers until `shutdown`."""
    settings = WorkerSettings(capacity=options.capacity, drain=options.drain)
    bus = Bus(options.redis_url, source=options.id)
    await bus.start()
    try:
        endpoint = await Endpoint.open(options.udp_ports, announce=options.announce)
        worker = Worker(options.id, endpoint, bus, settings)
        try:
            await worker.start()
            leave_id("worker", options.id)
            await _first(shutdown.wait(), worker.replaced.wait())
            await worker.drain()
        finally:
            await worker.close()
    finally:
        await bus.close()


if __name__ == "__main__":
    sys.exit(main_with_errors(main))
