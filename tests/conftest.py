"""What every test gets, a check that its event loop was never blocked, and what several ask for."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.listened_viewer import Connection
from workers.transport import Endpoint
from workers.transport.receive import NativeReceiver, PythonReceiver

BLOCKED = 0.3
"""Seconds for which a loop may not answer while the machine had time for another thread of this process."""

_TICK = 0.02

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs tests in the background has them ignore SIGINT, and so would every process that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class LoopWatch(threading.Thread):
    """Asks the loop for a sign of life every tick, and counts the ticks that it let pass unanswered.

    A tick that was late itself does not count: then the machine was busy, and the loop is not to blame.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(daemon=True, name="loop-watch")
        self._loop = loop
        self._answered = threading.Event()
        self._stopping = threading.Event()
        self.worst = 0.0

    def run(self) -> None:
        waiting = 0.0
        self._ask()
        while not self._stopping.is_set():
            before = time.monotonic()
            self._stopping.wait(_TICK)
            on_time = time.monotonic() - before < 2 * _TICK
            if self._answered.is_set():
                waiting = 0.0
                self._ask()
            elif on_time:
                waiting += _TICK
                self.worst = max(self.worst, waiting)

    def _ask(self) -> None:
        self._answered.clear()
        try:
            self._loop.call_soon_threadsafe(self._answered.set)
        except RuntimeError:
            self._stopping.set()

    def stop(self) -> None:
        self._stopping.set()
        self.join()


@pytest_asyncio.fixture(autouse=True)
async def loop_never_blocked(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    if not inspect.iscoroutinefunction(request.function):
        yield  # the loop does not run during a plain function, so it cannot be blocked by one
        return
    watch = LoopWatch(asyncio.get_running_loop())
    watch.start()
    yield
    watch.stop()
    assert watch.worst < BLOCKED, f"the event loop was blocked for {watch.worst:.2f} s"


@pytest.fixture(params=["native", "python"])
def receiver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which receiver the endpoints of a test get; the test runs with each."""
    kind: str = request.param
    monkeypatch.setenv("BEAMCAST_RECEIVER", kind)
    return kind


@pytest_asyncio.fixture
async def endpoint(receiver: str) -> AsyncIterator[Endpoint]:
    """An endpoint on a free port; the test runs with each receiver."""
    one = await Endpoint.open(range(1))
    kinds = {"native": NativeReceiver, "python": PythonReceiver}
    assert isinstance(one._mux.receiver, kinds[receiver])
    yield one
    await one.close()


@pytest_asyncio.fixture
async def connection(endpoint: Endpoint) -> AsyncIterator[Connection]:
    """A viewer of it that is connected, and whose reports an outlet takes."""
    async with Connection(endpoint) as one:
        yield one


@pytest.fixture(autouse=True)
def stock_connections_on_loopback(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiortc's own connections gather every address but loopback; the tests' traffic stays on loopback.

    Except where Firefox plays: it never does from 127.0.0.1, so there it is this machine's own address.
    """
    if "own_address" in request.keywords:
        return
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
