"""The worker's end of the frame link: stays connected to the broadcaster of one stream, wherever that is."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

from broadcaster.errors import BeamcastError, LinkError, LinkProtocolError
from broadcaster.link.address import split_address
from broadcaster.link.wire import (
    VERSION,
    Decoder,
    Demand,
    Hello,
    KeyframeRequest,
    Message,
    Ping,
    Pong,
    Refusal,
    RungDemand,
    WireLimits,
    encode,
)
from broadcaster.stream import EncodedFrame, EncodedSound, StreamDescription

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Times in seconds.

    `connect` bounds the way to the description, `silence` is how long a broadcaster that pings every 2 s may say
    nothing, `retry_least` to `retry_most` is the pause before the next round of all addresses, doubled each time. A
    change of demand in numbers alone is told at most `demand_pause` later.
    """

    connect: float = 3.0
    silence: float = 6.0
    retry_least: float = 0.1
    retry_most: float = 2.0
    demand_pause: float = 0.1
    wire: WireLimits = field(default_factory=WireLimits)


CLIENT_LIMITS = ClientLimits()


class LinkClient:
    """Receives `stream` from the first of the located addresses that serves it, and connects again when that ends.

    `locate` returns "host:port" addresses and is asked anew before every round; its errors count as a failed round.
    The callbacks run in the event loop: `on_description` when the link comes up and when the ladder changes (rung
    indexes have the new meaning from then on), `on_frame` for each frame of a demanded rung, `on_sound` for each packet
    of sound where somebody listens, `on_down` when a link that was up has ended.
    """

    def __init__(
        self,
        stream: str,
        locate: Callable[[], Awaitable[list[str]]],
        *,
        on_description: Callable[[StreamDescription], None],
        on_frame: Callable[[EncodedFrame], None],
        on_down: Callable[[], None],
        on_sound: Callable[[EncodedSound], None] = lambda sound: None,
        limits: ClientLimits = CLIENT_LIMITS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.stream = stream
        self.description: StreamDescription | None = None
        self.limits = limits
        self.unknown = 0
        """Messages of types that this version does not know."""
        self._locate = locate
        self._on_description = on_description
        self._on_frame = on_frame
        self._on_sound = on_sound
        self._on_down = on_down
        self._jitter = jitter
        self._demand = Demand({})
        self._telling: asyncio.TimerHandle | None = None
        self._connection: _Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._came_up = asyncio.Event()
        self._failure = "no attempt has ended yet"

    @property
    def up(self) -> bool:
        """Whether a broadcaster has described the stream on a connection that still stands."""
        return self._came_up.is_set()

    def start(self) -> None:
        """Begin to connect, in the background; needs a running event loop."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"link-{self.stream}")

    async def close(self) -> None:
        """Disconnect for good. `on_down` is not called."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if self._task is None:
            return
        # Once may not be enough: what `locate` awaits can lose a cancellation (asyncio.wait_for before Python 3.12).
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=0.1)

    async def ready(self, timeout: float) -> StreamDescription:
        """The stream's description, as soon as the link is up; LinkError after `timeout` seconds without."""
        try:
            async with asyncio.timeout(timeout):
                await self._came_up.wait()
        except TimeoutError:
            raise LinkError(
                f"the stream {self.stream} could not be reached within {timeout:g} s ({self._failure}): "
                "check that its broadcaster runs and that this machine can connect to it"
            ) from None
        assert self.description is not None
        return self.description

    def request_keyframe(self, rung: int, patient: bool = False) -> None:
        """Ask for a keyframe of `rung`; lost while the link is down, because a new link begins with keyframes.

        A `patient` request may be left until a keyframe costs those who watch the rung little.
        """
        if self.up and self._connection is not None:
            self._connection.send(KeyframeRequest(rung, patient))

    def demand(self, demands: dict[int, RungDemand], listeners: int = 0) -> None:
        """Say which rungs have viewers, and how many take the sound; holds until the next call, also across reconnects
        and new descriptions.

        What changes who gets anything is said at once. A number may wait, because viewers come and go in crowds.
        """
        demand, before = Demand(dict(demands), listeners), self._demand
        if demand == before:
            return
        self._demand = demand
        if demand.rungs.keys() != before.rungs.keys() or (not demand.listeners) != (not before.listeners):
            self._send_demand()
        elif self._telling is None and self.up:
            self._telling = asyncio.get_running_loop().call_later(self.limits.demand_pause, self._send_demand)

    def _send_demand(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if self.up and self._connection is not None:
            self._connection.send(self._demand)

    async def _run(self) -> None:
        pause = self.limits.retry_least
        while True:
            try:
                if await self._round():
                    pause = self.limits.retry_least
            except Exception:
                # A fault in `locate` or `on_down` must not end the stream for all viewers of this worker.
                log.exception("stream %s: a round of connecting failed", self.stream)
            await asyncio.sleep(pause * (0.5 + 0.5 * self._jitter()))
            pause = min(2 * pause, self.limits.retry_most)

    async def _round(self) -> bool:
        """Try all addresses once; whether one of them was up."""
        try:
            addresses = await self._locate()
        except (BeamcastError, OSError) as error:
            self._failed(f"it could not be located: {error}")
            return False
        if not addresses:
            self._failed("no broadcaster has it on the air")
        for address in addresses:
            if await self._follow(address):
                return True
        return False

    async def _follow(self, address: str) -> bool:
        """Stay with the broadcaster at `address` until it ends; whether it was up."""
        loop = asyncio.get_running_loop()
        connection = _Connection(self)
        try:
            host, port = split_address(address)
            async with asyncio.timeout(self.limits.connect):
                await loop.create_connection(lambda: connection, host, port)
            await connection.ended
        except (LinkError, OSError) as error:
            # TimeoutError is an OSError, and says nothing.
            self._failed(f"{address}: {error or 'no answer'}")
            return False
        finally:
            was_up = self.up
            self._connection = None
            self._came_up.clear()
            connection.abort()
        self._failed(f"{address}: {connection.reason}")
        if was_up:
            self._on_down()
        return was_up

    def _failed(self, reason: str) -> None:
        if reason != self._failure:
            log.info("stream %s: %s", self.stream, reason)
        self._failure = reason

    # What the connection tells.

    def _described(self, connection: _Connection, description: StreamDescription) -> None:
        if description.name != self.stream:
            raise LinkProtocolError(f"the broadcaster described {description.name} instead of {self.stream}")
        self.description = description
        self._connection = connection
        self._came_up.set()
        self._on_description(description)
        if self._demand.rungs or self._demand.listeners:
            self._send_demand()

    def _received(self, frame: EncodedFrame) -> None:
        if self.description is None or frame.rung >= len(self.description.rungs):
            raise LinkProtocolError(f"a frame of rung {frame.rung}, which is not described")
        self._on_frame(frame)

    def _heard(self, sound: EncodedSound) -> None:
        if self.description is None or self.description.sound is None:
            raise LinkProtocolError("a packet of sound of a stream that has none")
        self._on_sound(sound)


class _Connection(asyncio.Protocol):
    def __init__(self, client: LinkClient) -> None:
        self.reason = "the broadcaster has ended the connection"
        self._client = client
        self._limits = client.limits
        self._decoder = Decoder(frames=True, limits=client.limits.wire)
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._described = False
        self._heard = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(Hello(VERSION, self._client.stream))
        self._watch(self._limits.connect)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._client.unknown += self._decoder.unknown
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        try:
            for message in self._decoder.feed(data):
                if self.ended.done():
                    return
                self._handle(message)
        except LinkError as error:
            self._give_up(str(error))

    def send(self, message: Message) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(encode(message, self._limits.wire))
        if transport.get_write_buffer_size() > self._limits.wire.control:
            self._give_up("the broadcaster does not read what it is sent")

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _handle(self, message: Message) -> None:
        match message:
            case EncodedFrame() if self._described:
                self._client._received(message)
            case EncodedSound() if self._described:
                self._client._heard(message)
            case StreamDescription():
                if not self._described:
                    self._described = True
                    self._watch(self._limits.silence)
                self._client._described(self, message)
            case Ping(token) if self._described:
                self.send(Pong(token))
            case Refusal(reason) if not self._described:
                self._give_up(reason)
            case _:
                raise LinkProtocolError(f"the broadcaster sent a {type(message).__name__} out of turn")

    def _check(self) -> None:
        if not self._described:
            self._give_up("no description came")
            return
        left = self._heard + self._limits.silence - self._loop.time()
        if left <= 0:
            self._give_up(f"nothing was heard for {self._limits.silence:g} s")
            return
        self._watch(left)

    def _watch(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._check)

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        self.abort()
        if not self.ended.done():
            self.ended.set_result(None)
