"""Both ends of the frame link over loopback TCP, which write down what they hear, and strangers to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from broadcaster.link import ClientLimits, LinkClient, LinkServer, RungDemand, ServerLimits
from broadcaster.link.address import split_address
from broadcaster.link.wire import Decoder, Message, encode
from broadcaster.stream import EncodedFrame, Rung, StreamDescription
from tests.patience import PATIENCE

DESCRIPTION = StreamDescription(
    "main", 7, (Rung("720p", 1280, 720, 30.0, 2_500_000, 2), Rung("360p", 640, 360, 30.0, 800_000, 3))
)
OTHER_LADDER = StreamDescription("main", 7, (Rung("180p", 320, 180, 15.0, 200_000, 3),))
WATCHED = RungDemand(1)


class Broadcaster(LinkServer):
    """A server that writes down what it is asked for."""

    def __init__(self, description: StreamDescription = DESCRIPTION, limits: ServerLimits | None = None) -> None:
        self.keyframes: list[int] = []
        self.patient: list[int] = []
        self.heard: list[dict[int, RungDemand]] = []
        super().__init__(
            description,
            on_keyframe=lambda rung, patient: (self.patient if patient else self.keyframes).append(rung),
            on_demand=self.heard.append,
            limits=limits or ServerLimits(),
        )
        self.counts = [0] * 16
        self.addresses: list[str] = []

    def send(self, rung: int, *, keyframe: bool = False, size: int = 100) -> EncodedFrame:
        frame = EncodedFrame(rung, self.counts[rung], self.counts[rung] * 3000, keyframe, 0, False, bytes(size))
        self.counts[rung] += 1
        self.publish(frame)
        return frame


class Worker(LinkClient):
    """A client that writes down what it gets."""

    def __init__(self, *addresses: str, stream: str = "main", limits: ClientLimits | None = None) -> None:
        self.addresses = list(addresses)
        self.frames: list[EncodedFrame] = []
        self.descriptions: list[StreamDescription] = []
        self.downs = 0
        super().__init__(
            stream,
            self._where,
            on_description=self.descriptions.append,
            on_frame=self.frames.append,
            on_down=self._count_down,
            limits=limits or ClientLimits(retry_least=0.01, retry_most=0.05),
        )

    async def _where(self) -> list[str]:
        return self.addresses

    def _count_down(self) -> None:
        self.downs += 1


@asynccontextmanager
async def broadcasting(
    description: StreamDescription = DESCRIPTION, limits: ServerLimits | None = None, port: int = 0
) -> AsyncIterator[Broadcaster]:
    server = Broadcaster(description, limits)
    server.addresses = await server.start("127.0.0.1", port)
    yield server
    await server.close()


@asynccontextmanager
async def working(*addresses: str, stream: str = "main", limits: ClientLimits | None = None) -> AsyncIterator[Worker]:
    client = Worker(*addresses, stream=stream, limits=limits)
    client.start()
    yield client
    await client.close()


class Stranger:
    """A raw connection that speaks as the test likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._decoder = Decoder(frames=True)
        self._messages: list[Message] = []

    async def next(self) -> Message | None:
        """The next message; None at the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            while not self._messages:
                try:
                    data = await self.reader.read(65536)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self._messages += self._decoder.feed(data)
        return self._messages.pop(0)

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.writer.write(encode(message))


@asynccontextmanager
async def stranger(address: str) -> AsyncIterator[Stranger]:
    reader, writer = await asyncio.open_connection(*split_address(address))
    yield Stranger(reader, writer)
    writer.transport.abort()
    await asyncio.sleep(0)


@contextmanager
def slow_reader(address: str, *messages: Message) -> Iterator[socket.socket]:
    """A worker with a small receive buffer that says `messages` and reads when the test does."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.connect(split_address(address))
        connection.sendall(b"".join(encode(message) for message in messages))
        connection.setblocking(False)
        yield connection
