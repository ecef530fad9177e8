"""The broadcaster's end of the frame link: one description and the frames of a stream, to many workers."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

from broadcaster.adaptation.audience import merged
from broadcaster.errors import LinkError, LinkLimitError, LinkProtocolError
from broadcaster.link.address import announced_addresses, join_address
from broadcaster.link.backlog import Backlog, BacklogLimits
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
from broadcaster.opening import Opening
from broadcaster.stream import EncodedFrame, EncodedSound, StreamDescription

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Times in seconds, sizes in bytes.

    `hello`: a connection that has not said what it wants by then is dropped, and so is one of which nothing was heard
    for `silence` although it is pinged every `ping`. `socket_buffer` keeps the kernel from hiding seconds of video.
    """

    connections: int = 64
    hello: float = 5.0
    ping: float = 2.0
    silence: float = 6.0
    socket_buffer: int = 256 * 1024
    backlog: BacklogLimits = field(default_factory=BacklogLimits)
    wire: WireLimits = field(default_factory=WireLimits)


SERVER_LIMITS = ServerLimits()


@dataclass(slots=True)
class LinkStatistics:
    """Counts since the start, but for `connections` and `waiting`, which are of now.

    `sent` and `dropped` count frames and packets of sound per worker; `bytes` are of those sent, `waiting` are in
    backlogs; `published` counts frames;
    `oversized` frames exceeded the wire's limit; `errors` are connections that were cut for what they sent.
    """

    connections: int = 0
    published: int = 0
    sent: int = 0
    dropped: int = 0
    waiting: int = 0
    bytes: int = 0
    oversized: int = 0
    refused: int = 0
    silent: int = 0
    errors: int = 0
    unknown: int = 0


def aggregate(demands: Iterable[Mapping[int, RungDemand]], rungs: int) -> dict[int, RungDemand]:
    """The demand of all workers for each of `rungs` rungs.

    Viewers and audiences add up.
    """
    total: dict[int, RungDemand] = {}
    every = list(demands)
    for rung in range(rungs):
        heard = [demand[rung] for demand in every if rung in demand and demand[rung].viewers]
        viewers = sum(demand.viewers for demand in heard)
        total[rung] = RungDemand(viewers, merged(demand.audience for demand in heard))
    return total


class LinkServer:
    """Serves one stream to workers. All methods and both callbacks run in the thread of the event loop.

    `on_keyframe(rung, patient)` asks for a keyframe, for a viewer or because a worker has lost frames; `on_demand` gets
    the demand of all workers together, an entry for every rung, whenever it or the number of `listeners` changes.
    """

    def __init__(
        self,
        description: StreamDescription,
        *,
        on_keyframe: Callable[[int, bool], None],
        on_demand: Callable[[dict[int, RungDemand]], None],
        limits: ServerLimits = SERVER_LIMITS,
    ) -> None:
        self.description = description
        self.limits = limits
        self.demands = aggregate([], len(description.rungs))
        self.listeners = 0
        """Viewers that take the sound."""
        self._on_keyframe = on_keyframe
        self._on_demand = on_demand
        self._connections: set[_Connection] = set()
        self._openings: dict[int, Opening] = {}
        """Of demanded rungs."""
        self._server: asyncio.Server | None = None
        self._statistics = LinkStatistics()

    async def start(self, host: str, port: int) -> list[str]:
        """Listen, and return the "host:port" addresses to announce; LinkError when that cannot be done.

        For a wildcard host these are the default route's source address and loopback.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _Connection(self), host, port)
        except OSError as error:
            reason = error.strerror or error
            raise LinkError(
                f"the frame link cannot listen on {join_address(host, port)} ({reason}): "
                "choose another --link-host or --link-port"
            ) from None
        found = [
            address for listener in self._server.sockets for address in announced_addresses(listener.getsockname())
        ]
        return list(dict.fromkeys(found))

    def publish(self, frame: EncodedFrame) -> None:
        """Send `frame` to every worker that demands its rung; the message is encoded once."""
        if frame.rung >= len(self.description.rungs):
            return
        self._statistics.published += 1
        try:
            message = encode(frame, self.limits.wire)
        except LinkLimitError as error:
            self._statistics.oversized += 1
            log.warning("frame dropped: %s", error)
            return
        now = asyncio.get_running_loop().time()
        if self.demands[frame.rung].viewers:
            self._openings.setdefault(frame.rung, Opening()).add(frame, now)
        for connection in self._connections:
            connection.push(frame, message, now)

    def publish_sound(self, sound: EncodedSound) -> None:
        """Send a packet of sound to every worker that has listeners."""
        if self.listeners:
            message = encode(sound, self.limits.wire)
            for connection in self._connections:
                if connection.listeners:
                    connection.push_sound(message)

    def describe(self, description: StreamDescription) -> None:
        """The ladder has changed. Unless only bitrates did, every rung begins anew for every worker, at a keyframe."""
        restart = not description.continues(self.description)
        if restart:
            self._openings.clear()
        self.description = description
        message = encode(description, self.limits.wire)
        for connection in self._connections:
            connection.describe(message, restart=restart)
        self._demand_changed()

    def statistics(self) -> LinkStatistics:
        now = LinkStatistics(**{name: getattr(self._statistics, name) for name in LinkStatistics.__slots__})
        now.connections = len(self._connections)
        for connection in self._connections:
            now.dropped += connection.backlog.dropped
            now.waiting += len(connection.backlog)
            now.unknown += connection.decoder.unknown
        return now

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        # A connection that asyncio has just accepted joins two turns of the loop later; abort leaves after one more.
        for _ in range(2):
            await asyncio.sleep(0)
        for connection in self._connections:
            connection.abort()
        await asyncio.sleep(0)
        await self._server.wait_closed()

    # What the connections tell.

    def _joined(self, connection: _Connection) -> None:
        self._connections.add(connection)
        # Strangers who say nothing take no worker's place, but there is an end to their number too.
        if len(self._connections) > 2 * self.limits.connections:
            self._statistics.refused += 1
            connection.abort()

    def _full(self) -> bool:
        return sum(connection.greeted for connection in self._connections) >= self.limits.connections

    def _left(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._statistics.dropped += connection.backlog.dropped
        self._statistics.unknown += connection.decoder.unknown
        self._demand_changed()

    def _demand_changed(self) -> None:
        demands = aggregate((connection.demands for connection in self._connections), len(self.description.rungs))
        listeners = sum(connection.listeners for connection in self._connections)
        if (demands, listeners) != (self.demands, self.listeners):
            self.demands, self.listeners = demands, listeners
            for rung in [rung for rung in self._openings if not demands[rung].viewers]:
                del self._openings[rung]
            self._on_demand(demands)

    def _opening(self, rung: int, now: float) -> list[EncodedFrame]:
        """What somebody who begins to demand `rung` can start with."""
        opening = self._openings.get(rung)
        return opening.frames(now) if opening is not None else []

    def _keyframes(self, rungs: Iterable[int], *, patient: bool = False) -> None:
        for rung in sorted(rungs):
            if rung < len(self.description.rungs):
                self._on_keyframe(rung, patient)

    def _sent(self, size: int) -> None:
        self._statistics.sent += 1
        self._statistics.bytes += size

    def _refused(self) -> None:
        self._statistics.refused += 1

    def _silent(self) -> None:
        self._statistics.silent += 1

    def _failed(self) -> None:
        self._statistics.errors += 1


class _Connection(asyncio.Protocol):
    """One worker. Frames beyond what the socket takes wait in the backlog, where they can still be withdrawn."""

    def __init__(self, server: LinkServer) -> None:
        self.backlog = Backlog(server.limits.backlog)
        self.decoder = Decoder(frames=False, limits=server.limits.wire)
        self.demands: Mapping[int, RungDemand] = {}
        self.listeners = 0
        self._server = server
        self._limits = server.limits
        self._loop = asyncio.get_running_loop()
        self.greeted = False
        self._asked: dict[int, bool] = {}
        """Whether the worker was patient when it asked for a keyframe of a rung that it did not demand yet."""
        self._new = True
        self._paused = False
        self._token = 0
        self._heard = self._loop.time()
        self._timer = self._loop.call_later(self._limits.hello, self._never_greeted)
        self._peer = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # Above zero means: the socket is full. From then on frames wait here, not in the transport.
        self._transport.set_write_buffer_limits(high=0)
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._limits.socket_buffer)
        peer = transport.get_extra_info("peername")
        self._peer = join_address(*peer[:2]) if peer else "?"
        self._server._joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self.demands, self.listeners = {}, 0
        self._server._left(self)
        if self.greeted:
            log.info("worker %s left the frame link", self._peer)

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        try:
            for message in self.decoder.feed(data):
                self._handle(message)
                if self._transport.is_closing():
                    return
        except LinkError as error:
            self._server._failed()
            log.warning("worker %s is cut from the frame link: %s", self._peer, error)
            self.abort()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()
        if not self._paused and not self.backlog:
            self._server._keyframes(self.backlog.starved())

    def push(self, frame: EncodedFrame, message: bytes, now: float) -> None:
        self.backlog.push(frame, message, now)
        self._flush()

    def push_sound(self, message: bytes) -> None:
        self.backlog.push_sound(message)
        self._flush()

    def describe(self, message: bytes, *, restart: bool) -> None:
        if self.greeted:
            if restart:
                self.backlog.restart()
            self._transport.write(message)

    def abort(self) -> None:
        self._transport.abort()

    def _flush(self) -> None:
        while self.backlog and not self._paused:
            message = self.backlog.pop()
            self._server._sent(len(message))
            self._transport.write(message)

    def _handle(self, message: Message) -> None:
        if not self.greeted:
            self._greet(message)
            return
        match message:
            case Pong():
                pass
            case KeyframeRequest(rung, patient):
                if rung in self.backlog.demanded:
                    self._server._keyframes([rung], patient=patient)
                else:
                    self._asked[rung] = patient and self._asked.get(rung, True)
            case Demand(rungs, listeners):
                self.demands, self.listeners = rungs, listeners
                new = self.backlog.demand({rung for rung, demand in rungs.items() if demand.viewers})
                self._server._demand_changed()
                for rung in sorted(new):
                    self._begin(rung)
                self._asked.clear()
                self._new = False
            case _:
                raise LinkProtocolError(f"a worker does not send a {type(message).__name__}")

    def _begin(self, rung: int) -> None:
        """Bring the worker into a rung that it begins to demand, at no cost to those who watch it where that can be."""
        now = self._loop.time()
        opening = self._server._opening(rung, now)
        for frame in opening:
            self.push(frame, encode(frame, self._limits.wire), now)
        if not opening:
            # A worker that comes (back) with viewers knows nothing yet of what they wait for.
            self._server._keyframes([rung], patient=self._asked.get(rung, not self._new))

    def _greet(self, message: Message) -> None:
        if not isinstance(message, Hello):
            raise LinkProtocolError(f"the first message is a {type(message).__name__}, not a Hello")
        description = self._server.description
        if message.version != VERSION:
            self._refuse(f"this broadcaster speaks version {VERSION} of the frame link, not {message.version}: update")
        elif message.stream != description.name:
            self._refuse(f"this broadcaster has the stream {description.name}, not {message.stream}")
        elif self._server._full():
            self._refuse(f"this broadcaster serves {self._limits.connections} workers already: start another one")
        else:
            self.greeted = True
            self._transport.write(encode(description, self._limits.wire))
            self._timer.cancel()
            self._timer = self._loop.call_later(self._limits.ping, self._ping)
            log.info("worker %s joined the frame link", self._peer)

    def _refuse(self, reason: str) -> None:
        self._server._refused()
        self._transport.write(encode(Refusal(reason), self._limits.wire))
        self._transport.close()

    def _never_greeted(self) -> None:
        self._server._silent()
        self.abort()

    def _ping(self) -> None:
        silence = self._loop.time() - self._heard
        if silence > self._limits.silence:
            log.warning("worker %s is cut from the frame link: not heard of for %.1f s", self._peer, silence)
            self._server._silent()
            self.abort()
            return
        self._token += 1
        self._transport.write(encode(Ping(self._token), self._limits.wire))
        self._timer = self._loop.call_later(self._limits.ping, self._ping)
