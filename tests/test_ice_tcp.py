"""Viewers over TCP, on the same port number."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.handmade_viewer import check, plays, serve
from workers.transport import Endpoint, TransportSettings

SETTINGS = TransportSettings(tcp_idle=0.2, tick=0.05, tcp_strangers=3, tcp_connections=5, tcp_write_buffer=10_000)


@pytest_asyncio.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    one = await Endpoint.open(range(1), settings=SETTINGS)
    yield one
    await one.close()


async def hung_up(reader: asyncio.StreamReader) -> bool:
    """Whether the server ends the connection, without a word."""
    try:
        return await asyncio.wait_for(reader.read(1), 2) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_viewer_plays_over_tcp(endpoint: Endpoint, host: str) -> None:
    served, viewer = serve(endpoint, host, tcp=True)
    async with viewer:
        assert (await viewer.check()).attributes["XOR-MAPPED-ADDRESS"] == viewer.address[:2]
        await viewer.handshake(endpoint.fingerprint)
        await served.until(lambda: served.keys)
        assert served.peer.path is not None
        assert served.peer.path.is_tcp
        await plays(served, viewer)
        await asyncio.sleep(2 * SETTINGS.tcp_idle)
        await plays(served, viewer)
    await served.until(lambda: served.reasons)
    assert served.reasons == ["closed"]


async def test_frames_in_pieces_and_in_one_piece(endpoint: Endpoint) -> None:
    served, viewer = serve(endpoint, tcp=True)
    async with viewer:
        stream = viewer._streams[0]
        one = check(viewer.ufrag, viewer.password)
        for byte in len(one).to_bytes(2, "big") + one:
            stream.write(bytes([byte]))
            await asyncio.sleep(0)
        await viewer.until(lambda: len(viewer.answers) == 1)
        several = [check(viewer.ufrag, viewer.password) for _ in range(3)]
        stream.write(b"".join(len(data).to_bytes(2, "big") + data for data in several))
        await viewer.until(lambda: len(viewer.answers) == 4)
        assert served.peer.state == "checking"


async def test_a_viewer_moves_from_tcp_to_udp(endpoint: Endpoint) -> None:
    served, viewer = serve(endpoint, tcp=True)
    async with viewer:
        await viewer.connect(endpoint.fingerprint)
        await served.until(lambda: served.keys)
        await plays(served, viewer)
        viewer._tcp = False
        await viewer.open()
        await viewer.check()
        assert served.peer.path is not None
        assert not served.peer.path.is_tcp
        await plays(served, viewer)
        viewer.hang_up()
        viewer._tcp = True


async def test_a_lost_connection_is_replaced_by_the_next_one(endpoint: Endpoint) -> None:
    served, viewer = serve(endpoint, tcp=True)
    async with viewer:
        await viewer.connect(endpoint.fingerprint)
        await served.until(lambda: served.keys)
        viewer.hang_up()
        while served.peer.addresses:
            await asyncio.sleep(0.005)
        assert (served.peer.path, served.reasons) == (None, [])
        await viewer.open()
        await viewer.check()
        assert served.peer.path is not None
        await plays(served, viewer)


async def test_silence_is_hung_up(endpoint: Endpoint) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
    assert await hung_up(reader)
    assert endpoint.statistics.tcp_refused == 1
    writer.close()


async def test_strangers_chatter_is_hung_up_too(endpoint: Endpoint) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
    for data in (b"", b"\x16 hello", check("nobody", "x" * 24), b"\x80\xc9 report"):
        writer.write(len(data).to_bytes(2, "big") + data)
    assert await hung_up(reader)
    assert endpoint.statistics.strangers == 3
    assert endpoint.statistics.malformed == 1
    writer.close()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff", b"\x08\x01"])
async def test_a_frame_that_is_too_large_is_hung_up_at_once(data: bytes) -> None:
    endpoint = await Endpoint.open(range(1))
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
    writer.write(data)
    assert await hung_up(reader)
    assert endpoint.statistics.malformed == 1
    writer.close()
    await endpoint.close()


async def test_strangers_cannot_keep_viewers_out(endpoint: Endpoint) -> None:
    async with contextlib.AsyncExitStack() as open_ones:
        streams = []
        for _ in range(4):
            reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
            open_ones.callback(writer.close)
            streams.append(reader)
        served, viewer = serve(endpoint, tcp=True)
        async with viewer:
            await viewer.connect(endpoint.fingerprint)
            await served.until(lambda: served.keys)
            assert await hung_up(streams[0])
            await plays(served, viewer)


async def test_the_number_of_connections_is_bounded(endpoint: Endpoint) -> None:
    async with contextlib.AsyncExitStack() as open_ones:
        for _ in range(SETTINGS.tcp_connections):
            _, viewer = serve(endpoint, tcp=True)
            await open_ones.enter_async_context(viewer)
            await viewer.check()
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        assert await hung_up(reader)
        writer.close()


async def test_a_viewer_that_does_not_read_costs_a_bounded_buffer(endpoint: Endpoint) -> None:
    served, viewer = serve(endpoint, tcp=True)
    async with viewer:
        await viewer.connect(endpoint.fingerprint)
        await served.until(lambda: served.keys)
        path = served.peer.path
        assert path is not None
        sent = 0
        while path.send(bytes(1200)):
            sent += 1
            assert sent < 20_000
        assert endpoint.statistics.sends_dropped == 1
        assert path._flow._transport.get_write_buffer_size() <= SETTINGS.tcp_write_buffer + 1202  # type: ignore[attr-defined]


async def test_a_peer_that_is_closed_hangs_up(endpoint: Endpoint) -> None:
    served, viewer = serve(endpoint, tcp=True)
    async with viewer:
        await viewer.connect(endpoint.fingerprint)
        served.peer.close()
        await viewer.until(lambda: viewer.lost)
