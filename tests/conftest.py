"""What every test gets, a check that its event loop was never blocked, and what several ask for."""

from __future__ import annotations

import inspect
import signal
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from playwright.async_api import Browser
from redis.asyncio import Redis

from broadcaster.bus import Bus
from tests.browsers import chromium
from tests.listened_viewer import Connection
from tests.loop_watch import never_blocked
from tests.quick_bus import QUICK
from tests.redis_server import RedisServer, redis_server  # noqa: F401
from tests.rtp_viewer import CLOCK
from workers.forward.fanout import Fanout, PythonFanout
from workers.forward.native import NativeFanout
from workers.transport import Endpoint
from workers.transport.receive import NativeReceiver, PythonReceiver

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs tests in the background has them ignore SIGINT, and so would every process that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest_asyncio.fixture(autouse=True)
async def loop_never_blocked(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    if not inspect.iscoroutinefunction(request.function):
        yield  # the loop does not run during a plain function, so it cannot be blocked by one
        return
    with never_blocked():
        yield


@pytest_asyncio.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:  # noqa: F811
    """A plain client of the test's own redis-server."""
    client = Redis.from_url(redis_server.url, protocol=2)
    yield client
    await client.aclose()


@pytest_asyncio.fixture
async def bus(redis_server: RedisServer) -> AsyncIterator[Bus]:  # noqa: F811
    """A worker's bus on the test's own redis-server, and a quick one."""
    bus = Bus(redis_server.url, "worker-1", settings=QUICK)
    await bus.start()
    yield bus
    await bus.close()


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


@pytest.fixture(params=[PythonFanout, NativeFanout])
def fanout(request: pytest.FixtureRequest) -> Callable[[], Fanout]:
    """Makes a fan-out; the test runs with each kind."""
    return lambda: request.param(CLOCK, monotonic=lambda: 5.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests of a module; they have to share an event loop, too."""
    async with chromium() as one:
        yield one


@pytest.fixture(autouse=True)
def stock_connections_on_loopback(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiortc's own connections gather every address but loopback; the tests' traffic stays on loopback.

    Except where Firefox plays: it never does from 127.0.0.1, so there it is this machine's own address.
    """
    if "own_address" in request.keywords:
        return
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
