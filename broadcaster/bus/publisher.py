"""Publisher: a bounded queue of events and the one connection that empties it, many at a time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError, ResponseError

from broadcaster.bus.commands import packed
from broadcaster.bus.server import BusSettings, Server, end

log = logging.getLogger(__name__)


class Publisher:
    """`put()` never blocks and never raises; `dropped` counts what the bounded queue let go, the oldest first.

    Each event is PUBLISHed on its channel and added to the Stream of the same name. Replies cost more CPU than the
    commands, so a batch goes out between CLIENT REPLY OFF and CLIENT REPLY ON: one reply says that all of it arrived.
    The first batch of each connection is answered in full, to log what Redis refuses. A batch whose answer never came
    is sent again: events arrive at least once, and their ids tell copies apart.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._settings: BusSettings = server.settings
        self._queue: deque[tuple[bytes, bytes]] = deque()
        self._waiting = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._task: asyncio.Task[None] | None = None
        self._quiet = False
        self._proven = False
        self.published = 0
        self.dropped = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="bus publisher")

    def put(self, channel: bytes, payload: bytes) -> None:
        if len(self._queue) >= self._settings.queue:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append((channel, payload))
        self._waiting.set()
        self._empty.clear()

    async def close(self) -> None:
        """Send what waits, if Redis takes it within the command time-out, and stop."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(self._settings.command_timeout):
                await self._empty.wait()
        except TimeoutError:
            log.warning("%d events did not reach Redis at %s", len(self._queue), self._server.shown)
        await end(self._task)
        self._task = None

    async def _run(self) -> None:
        delay = self._settings.first_delay
        while True:
            connection = self._server.connection(unhurried=True)  # one time-out per batch is enough, and cheaper
            try:
                async with asyncio.timeout(self._settings.command_timeout):
                    await connection.connect()  # type: ignore[no-untyped-call]
                    await self._greet(connection)
                delay = self._settings.first_delay
                while True:
                    await self._waiting.wait()
                    async with asyncio.timeout(self._settings.command_timeout):
                        await self._flush(connection)
                    if not self._queue:
                        self._waiting.clear()
                        self._empty.set()
                    await asyncio.sleep(self._settings.tick)
            except (RedisError, OSError) as error:
                log.warning("events wait for Redis at %s: %s", self._server.shown, str(error) or "no answer in time")
            finally:
                try:
                    await connection.disconnect(nowait=True)
                except (RedisError, OSError) as error:
                    log.debug("closing the publisher's connection: %s", error)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, self._settings.longest_delay)

    async def _greet(self, connection: Connection) -> None:
        """Find out whether CLIENT REPLY OFF really silences this server; fakeredis says OK and goes on talking."""
        await connection.send_packed_command(
            connection.pack_commands(
                [("CLIENT", "REPLY", "OFF"), ("PING",), ("CLIENT", "REPLY", "ON"), ("ECHO", "end")]
            )
        )
        replies = [await connection.read_response(disable_decoding=True)]
        while replies[-1] != b"end":
            replies.append(await connection.read_response(disable_decoding=True))
        self._quiet = replies == [b"OK", b"end"]
        self._proven = False

    async def _flush(self, connection: Connection) -> None:
        count = min(len(self._queue), self._settings.batch)
        batch = [self._queue.popleft() for _ in range(count)]
        commands = [_commands(channel, payload, self._settings.kept) for channel, payload in batch]
        channels = {channel for channel, _ in batch}
        commands += [packed(b"EXPIRE", name, b"%d" % self._settings.kept_for) for name in channels]
        replies = 2 * len(batch) + len(channels)
        silent = self._quiet and self._proven
        if silent:
            commands = [_OFF, *commands, _ON]
            replies = 1
        refused: ResponseError | None = None
        try:
            await connection.send_packed_command(b"".join(commands), check_health=False)
            for _ in range(replies):
                try:
                    await connection.read_response(disable_decoding=True)
                except ResponseError as error:
                    refused = error
        except BaseException:
            self._queue.extendleft(reversed(batch))
            raise
        self._proven = True
        self.published += len(batch)
        if refused is not None:
            log.warning("Redis at %s refuses events: %s", self._server.shown, refused)


def _commands(channel: bytes, payload: bytes, kept: int) -> bytes:
    """PUBLISH and XADD of one event; spelt out because this runs for every viewer every second."""
    body = b"$%d\r\n%b\r\n" % (len(payload), payload)
    name = b"$%d\r\n%b\r\n" % (len(channel), channel)
    limit = b"%d" % kept
    return (
        b"*3\r\n$7\r\nPUBLISH\r\n%b%b*8\r\n$4\r\nXADD\r\n%b$6\r\nMAXLEN\r\n$1\r\n~\r\n$%d\r\n%b\r\n$1\r\n*\r\n$5\r\nevent\r\n%b"
        % (name, body, name, len(limit), limit, body)
    )


_OFF = packed(b"CLIENT", b"REPLY", b"OFF")
_ON = packed(b"CLIENT", b"REPLY", b"ON")
