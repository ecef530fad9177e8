"""Sound on the frame link: its bytes, who gets it, and that a backlog of pictures costs none of it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcaster.errors import LinkProtocolError
from broadcaster.link import LinkClient, LinkServer, RungDemand, ServerLimits, WireLimits
from broadcaster.link.address import split_address
from broadcaster.link.backlog import Backlog, BacklogLimits
from broadcaster.link.wire import VERSION, Decoder, Demand, Hello, Message, encode
from broadcaster.stream import OPUS, EncodedFrame, EncodedSound, Rung, SoundFormat, StreamDescription
from tests.patience import PATIENCE, until

RUNG = Rung("180p", 320, 180, 30.0, 200_000, 3)
DESCRIPTION = StreamDescription("main", 3, (RUNG,), OPUS)
SOUND = EncodedSound(index=7, timestamp=0xFFFFFFFF, payload=b"opus")


def decode(data: bytes) -> list[Message]:
    return list(Decoder(frames=True).feed(data))


def raw(*fields: Any) -> bytes:
    body: bytes = msgpack.packb(fields)
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    ("message", "golden"),
    [
        (SOUND, "0000000e 94 10 07 ceffffffff c4046f707573"),
        (
            DESCRIPTION,
            "0000002d 95 02 a46d61696e 03 91 96 a431383070 cd0140 ccb4 cb403e000000000000 ce00030d40 03"
            " 93 a46f707573 cdbb80 02",
        ),
        (Demand({0: RungDemand(1)}, listeners=3), "00000008 93 06 91 93 00 01 90 03"),
        (Demand({}, listeners=1), "00000004 93 06 90 01"),
    ],
    ids=["sound", "description", "demand", "paused"],
)
def test_golden_bytes(message: Message, golden: str) -> None:
    assert encode(message).hex() == golden.replace(" ", "")
    assert decode(bytes.fromhex(golden)) == [message]


@given(
    st.one_of(
        st.builds(
            EncodedSound,
            index=st.integers(0, 2**63 - 1),
            timestamp=st.integers(0, 2**32 - 1),
            payload=st.binary(min_size=1, max_size=1275),
        ),
        st.builds(
            SoundFormat, codec=st.text(max_size=63), clock=st.integers(1, 2**32 - 1), channels=st.integers(1, 255)
        ).map(lambda sound: StreamDescription("main", 1, (RUNG,), sound)),
    )
)
def test_any_sound_survives(message: Message) -> None:
    assert decode(encode(message)) == [message]


@pytest.mark.parametrize(
    "data",
    [
        raw(16, 0, 0),
        raw(16, -1, 0, b"x"),
        raw(16, 0, 2**32, b"x"),
        raw(16, 0, 0, b""),
        raw(16, 0, 0, "x"),
        raw(16, 0, 0, bytes(WireLimits().sound + 1)),
        raw(2, "main", 1, [["720p", 1280, 720, 30.0, 1, 2]], []),
        raw(2, "main", 1, [["720p", 1280, 720, 30.0, 1, 2]], ["opus", 0, 2]),
        raw(2, "main", 1, [["720p", 1280, 720, 30.0, 1, 2]], [b"opus", 48000, 2]),
        raw(2, "main", 1, [["720p", 1280, 720, 30.0, 1, 2]], 1),
        raw(6, [], -1),
        raw(6, [], None),
    ],
)
def test_what_the_protocol_does_not_allow(data: bytes) -> None:
    with pytest.raises(LinkProtocolError):
        decode(data)


def test_sound_overtakes_pictures_and_is_not_lost_with_them() -> None:
    backlog = Backlog(BacklogLimits(size=250))
    backlog.demand({0})
    for index in range(2):
        backlog.push(EncodedFrame(0, index, 0, index == 0, 0, False, bytes(100)), b"p%d" % index + bytes(98), 0.0)
        backlog.push_sound(b"s%d" % index)
    backlog.push(EncodedFrame(0, 2, 0, False, 0, False, bytes(100)), bytes(100), 0.0)
    assert (len(backlog), backlog.dropped) == (2, 3)
    assert [backlog.pop(), backlog.pop()] == [b"s0", b"s1"]
    with pytest.raises(IndexError):
        backlog.pop()


def test_of_too_much_sound_the_oldest_goes() -> None:
    backlog = Backlog(BacklogLimits(sounds=2))
    for number in range(3):
        backlog.push_sound(b"%d" % number)
    assert (backlog.pop(), backlog.pop(), backlog.dropped) == (b"1", b"2", 1)


def server_of(description: StreamDescription, limits: ServerLimits | None = None) -> LinkServer:
    return LinkServer(
        description,
        on_keyframe=lambda rung, patient: None,
        on_demand=lambda demands: None,
        limits=limits or ServerLimits(),
    )


async def test_sound_goes_to_workers_with_listeners_alone() -> None:
    server = server_of(DESCRIPTION)
    addresses = await server.start("127.0.0.1", 0)
    heard: list[list[EncodedSound]] = [[], []]

    async def locate() -> list[str]:
        return addresses

    clients = [
        LinkClient(
            "main",
            locate,
            on_description=lambda description: None,
            on_frame=lambda frame: None,
            on_sound=sounds.append,
            on_down=lambda: None,
        )
        for sounds in heard
    ]
    for client in clients:
        client.start()
        assert (await client.ready(PATIENCE)).sound == OPUS
    server.publish_sound(SOUND)
    clients[0].demand({}, listeners=2)
    clients[1].demand({0: RungDemand(1)})
    await until(lambda: server.listeners == 2 and server.demands[0].viewers == 1)
    server.publish_sound(SOUND)
    await until(lambda: bool(heard[0]))
    clients[0].demand({})
    await until(lambda: server.listeners == 0)
    server.publish_sound(SOUND)
    clients[1].demand({}, listeners=1)
    await until(lambda: server.listeners == 1)
    server.publish_sound(EncodedSound(8, 0, b"later"))
    await until(lambda: bool(heard[1]))
    assert heard == [[SOUND], [EncodedSound(8, 0, b"later")]]
    for client in clients:
        await client.close()
    await until(lambda: server.listeners == 0)
    await server.close()


async def test_a_worker_that_reads_slowly_loses_pictures_and_no_sound() -> None:
    limits = ServerLimits(socket_buffer=32 * 1024, backlog=BacklogLimits(size=100_000))
    server = server_of(DESCRIPTION, limits)
    (address,) = await server.start("127.0.0.1", 0)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        slow.connect(split_address(address))
        slow.sendall(encode(Hello(VERSION, "main")) + encode(Demand({0: RungDemand(1)}, listeners=1)))
        slow.setblocking(False)
        await until(lambda: server.listeners == 1)
        for index in range(40):
            server.publish(EncodedFrame(0, index, index, index % 10 == 0, 0, False, bytes(20_000)))
            server.publish_sound(EncodedSound(index, index, b"opus"))
        assert server.statistics().dropped > 0
        loop, decoder = asyncio.get_running_loop(), Decoder(frames=True)
        sounds: list[int] = []
        async with asyncio.timeout(PATIENCE):
            while len(sounds) < 40:
                messages = decoder.feed(await loop.sock_recv(slow, 65536))
                sounds += [message.index for message in messages if isinstance(message, EncodedSound)]
        assert sounds == list(range(40))
    await server.close()


async def test_a_stream_that_has_no_sound_sends_none() -> None:
    server = server_of(StreamDescription("main", 3, (RUNG,)))
    addresses = await server.start("127.0.0.1", 0)
    downs: list[int] = []

    async def locate() -> list[str]:
        return addresses

    client = LinkClient(
        "main",
        locate,
        on_description=lambda description: None,
        on_frame=lambda frame: None,
        on_down=lambda: downs.append(1),
    )
    client.start()
    assert (await client.ready(PATIENCE)).sound is None
    client.demand({}, listeners=1)
    await until(lambda: server.listeners == 1)
    server.publish_sound(SOUND)
    await until(lambda: bool(downs))
    await client.close()
    await server.close()
