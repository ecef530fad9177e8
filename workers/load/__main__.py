"""`python -m workers.load` (`beamcast load`): join many viewers, and measure what they get."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from broadcaster.errors import ConfigurationError, LoadError
from broadcaster.process import Shutdown, run
from broadcaster.settings import Parser, main_with_errors, positive, token
from workers.load.crowd import Crowd, CrowdSettings
from workers.load.report import Cost, Progress, summary, table
from workers.load.session import Whep, endpoint, is_loopback

_DESCRIPTION = """\
Join N viewers through WHEP and measure what they get. They check, report and estimate like browsers, and ask for no
keyframe. A frame is a new RTP timestamp; a freeze is a gap between frames of at least 3 times the average gap of the
last 30, and 150 ms more than it."""


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = _number(text)
    if not 0.0 <= value <= 1.0:
        raise ConfigurationError(f"{text!r} is not a share: use a number from 0 to 1, 0.05 for 5 %")
    return value


def above_zero(text: str) -> float:
    """A number above zero, below a million."""
    value = _number(text)
    if not 0.0 < value < 1e6:
        raise ConfigurationError(f"{text!r} is not a number above zero")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is not a number") from None


def main(arguments: list[str] | None = None) -> int:
    """Make the load, print what was measured, and return the exit code: 1 when a viewer did not play."""
    parser = Parser(prog="beamcast load", description=_DESCRIPTION)
    parser.add_argument("url", metavar="URL", help="http://HOST:PORT/whep/STREAM, or the server's address alone")
    parser.option("--viewers", positive, default=CrowdSettings.viewers, metavar="N", help="viewers to join")
    parser.option("--stream", default="main", metavar="NAME", help="the stream, where the URL names none")
    parser.option(
        "--duration", above_zero, default=30.0, metavar="SECONDS", help="how long to watch once all have joined"
    )
    parser.option("--ramp", above_zero, default=CrowdSettings.ramp, metavar="N", help="joins a second")
    parser.option("--token", token, help="the bearer token, where the server wants one")
    parser.option(
        "--loss", share, default=0.0, metavar="SHARE", help="throw this share of packets away, to see it adapt"
    )
    parser.add_argument("--nack", action="store_true", help="ask for lost packets again")
    parser.add_argument(
        "--no-gro",
        action="store_true",
        help="take every packet by itself, as from a network card: on loopback this costs both sides more",
    )
    parser.option("--json", metavar="FILE", help="write the figures there too; - is the standard output")
    parser.add_argument(
        "--i-own-this-server", action="store_true", help="allow a server that is not on this machine's loopback"
    )
    options = parser.parse_args(arguments)
    return run(lambda shutdown: load(options, shutdown), name="load", level="warning")


async def load(options: argparse.Namespace, shutdown: Shutdown) -> None:
    """Make the load of these options. Raises LoadError when a viewer did not play."""
    url = endpoint(options.url, options.stream)
    host = urlsplit(url).hostname or ""
    loopback = await asyncio.to_thread(is_loopback, host)
    if not loopback and not options.i_own_this_server:
        raise ConfigurationError(
            f"{host} is not this machine's loopback, and a load on other people's servers is an attack; "
            "if it is yours, add --i-own-this-server"
        )
    if options.json not in {None, "-"}:
        _write(options.json, "")
    _allow_sockets()
    settings = CrowdSettings(
        viewers=options.viewers,
        ramp=options.ramp,
        loss=options.loss,
        nack=options.nack,
        joined_packets=not options.no_gro,
    )
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        crowd = Crowd(Whep(http, url, token=options.token, loopback=loopback), settings)
        cost = await _measure(crowd, options.duration, shutdown)
    if not crowd.clients and not shutdown.requested:
        raise LoadError(_first_problem(crowd))
    figures = summary(crowd, url, cost, interrupted=shutdown.requested)
    await asyncio.to_thread(_print, figures, options.json)
    if figures["problems"]:
        raise LoadError("; ".join(figures["problems"]))


def _allow_sockets() -> None:
    """Each viewer has a socket, and a process starts with fewer than it may have: 1024 usually."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # what has no limit here may have another one elsewhere
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _measure(crowd: Crowd, duration: float, shutdown: Shutdown) -> Cost:
    """Join, watch, leave; the cost is that of watching, or of everything when it was cut short before."""
    progress = Progress()
    started = time.monotonic()
    joining = crowd.settings.viewers / crowd.settings.ramp
    cpu, since, datagrams = time.process_time(), started, 0

    def look() -> None:
        now = time.monotonic()
        counters = crowd.counters
        progress.show(
            now,
            (now - started) / (joining + duration),
            f"{crowd.playing} of {crowd.settings.viewers} viewers playing, {counters.packets.sum():,} packets, "
            f"{counters.lost.sum():,} lost, {counters.freezes.sum():,} freezes",
        )

    async def watch() -> None:
        nonlocal cpu, since, datagrams
        await crowd.join()
        if crowd.clients:
            gc.freeze()  # else the collector walks all viewers again and again, at the cost of what is measured
            cpu, since, datagrams = time.process_time(), time.monotonic(), crowd.tally.datagrams
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(duration):
                    await crowd.deserted.wait()

    tasks = [asyncio.create_task(one) for one in (watch(), crowd.attend(look), shutdown.wait())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        cost = Cost(time.process_time() - cpu, time.monotonic() - since, crowd.tally.datagrams - datagrams)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        progress.clear()
        await crowd.leave()
    return cost


def _first_problem(crowd: Crowd) -> str:
    problem = next((one.problem for one in crowd.joined.values() if one.problem is not None), "nobody joined")
    return crowd.tally.refusal or problem


def _print(figures: dict[str, Any], file: str | None) -> None:
    text = json.dumps(figures, indent=2)
    print(table(figures), file=sys.stderr if file == "-" else sys.stdout)
    if file == "-":
        print(text)
    elif file is not None:
        _write(file, text + "\n")


def _write(file: str, text: str) -> None:
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main_with_errors(main))
