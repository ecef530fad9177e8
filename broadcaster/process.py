"""What every process of ours does: log to stderr, stop in order when told to, and say in one line why it cannot run."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from broadcaster.errors import BeamcastError, ConfigurationError
from broadcaster.settings import main_with_errors

log = logging.getLogger(__name__)

SUPERVISOR_VARIABLE = "BEAMCAST_SUPERVISOR_PID"
"""The environment variable with the process id of the parent without which this process shall not go on."""

LOG_LEVEL_VARIABLE = "BEAMCAST_LOG_LEVEL"

_PARENT_CHECK = 1.0
"""Seconds between looks at the parent."""


class Shutdown:
    """Whether the process shall stop. Belongs to its event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def request(self, reason: str) -> None:
        """Stop the process; `reason` goes to the log."""
        if not self._event.is_set():
            log.info("stopping: %s", reason)
            self._event.set()

    async def wait(self) -> None:
        """Return when the process shall stop."""
        await self._event.wait()


def log_level(text: str) -> str:
    """ "debug", "info", "warning" or "error"."""
    if text.lower() not in {"debug", "info", "warning", "error"}:
        raise ConfigurationError(f"{text!r} is not a log level: use debug, info, warning or error")
    return text.lower()


def run(body: Callable[[Shutdown], Awaitable[None]], *, name: str, level: str | None = None) -> int:
    """Run `body` in an event loop until it returns, and return the exit code of the process.

    SIGTERM, SIGINT and the end of the supervisor (SUPERVISOR_VARIABLE) request the shutdown that `body` gets; a second
    signal ends the process at once with 128 plus its number. A BeamcastError is one line on stderr and exit code 1, a
    ConfigurationError 2; any other exception is logged, with exit code 1. `name` stands in every line of the log;
    `level` is that of the log (default: BEAMCAST_LOG_LEVEL, else info). Call it in the main thread.
    """

    def whole() -> int:
        _start_log(name, log_level(level or os.environ.get(LOG_LEVEL_VARIABLE) or "info"))
        parent = _supervisor()
        try:
            asyncio.run(_run(body, parent))
        except BeamcastError:
            raise
        except Exception:
            log.exception("%s ended with an error that nobody expected", name)
            return 1
        return 0

    return main_with_errors(whole)


async def _run(body: Callable[[Shutdown], Awaitable[None]], parent: int | None) -> None:
    shutdown = Shutdown()
    watch = asyncio.create_task(_watch_parent(parent, shutdown), name="parent-watch") if parent is not None else None
    with _signals(asyncio.get_running_loop(), shutdown):
        try:
            await body(shutdown)
        finally:
            if watch is not None:
                watch.cancel()


@contextmanager
def _signals(loop: asyncio.AbstractEventLoop, shutdown: Shutdown) -> Iterator[None]:
    # Not loop.add_signal_handler: the second signal must end a process whose loop is stuck, too.
    stopping = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            _end_now(128 + number)
        stopping = True
        loop.call_soon_threadsafe(shutdown.request, signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_now(code: int) -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


async def _watch_parent(parent: int, shutdown: Shutdown) -> None:
    while os.getppid() == parent:  # noqa: ASYNC110 - no event tells of a parent's end everywhere
        await asyncio.sleep(_PARENT_CHECK)
    shutdown.request(f"the supervisor, process {parent}, has ended")


def _supervisor() -> int | None:
    text = os.environ.get(SUPERVISOR_VARIABLE)
    if not text:
        return None
    if not text.isdecimal():
        raise ConfigurationError(f"{SUPERVISOR_VARIABLE}={text} is not a process id")
    return int(text)


class _OneLine(logging.Formatter):
    """UTC time, level, process, logger, message; tracebacks too stay on the record's line."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{seconds}.{int(record.msecs):03d}Z"

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", "\\n")


def _start_log(name: str, level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine(f"%(asctime)s %(levelname)s {name.replace('%', '%%')} %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
