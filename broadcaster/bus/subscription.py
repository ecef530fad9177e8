"""Subscription: one connection that hears channels, notices when it went deaf, and rebuilds itself."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from broadcaster.bus.server import Server, end

log = logging.getLogger(__name__)


class Subscription:
    """Calls `on_message(channel, payload)` in the loop's thread for each message.

    It reads the connection itself, because redis-py's `listen()` costs three times the CPU. A half-open socket looks
    alive to TCP, so it asks for a PONG and takes silence for death. `on_lost()` tells of each loss: messages may have
    been missed from then on.
    """

    def __init__(
        self,
        server: Server,
        on_message: Callable[[str, bytes], None],
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._server = server
        self._on_message = on_message
        self._on_lost = on_lost
        self._channels: list[str] = []
        self._patterns: list[str] = []
        self._connection: Connection | None = None
        self._confirmed: set[str] = set()
        self._changed = asyncio.Condition()
        self._heard = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def start(self, *, channels: list[str] | None = None, patterns: list[str] | None = None) -> None:
        """Connect and subscribe; BusUnavailableError when that fails. From then on losses heal by themselves."""
        self._channels = list(channels or [])
        self._patterns = list(patterns or [])
        connection = self._server.connection(unhurried=True)
        try:
            with self._server.errors():
                async with asyncio.timeout(self._server.settings.command_timeout):
                    await self._open(connection)
        except BaseException:
            await _drop(connection)
            raise
        self._task = asyncio.create_task(self._run(connection), name="bus subscription")
        try:
            await self._all_confirmed()
        except BaseException:  # a caller that is cancelled never gets what it would have to close
            await self.close()
            raise

    async def add(self, channel: str) -> None:
        """Hear `channel` too; returns when Redis has confirmed, or after the command time-out during an outage."""
        self._channels.append(channel)
        connection = self._connection
        if connection is not None:
            try:
                await connection.send_command("SUBSCRIBE", channel)
            except (RedisError, OSError) as error:
                log.debug("subscribing to %s waits for Redis: %s", channel, error)
        await self._all_confirmed()

    async def close(self) -> None:
        if self._task is not None:
            await end(self._task)
            self._task = None

    async def _all_confirmed(self) -> None:
        wanted = {*self._channels, *self._patterns}
        try:
            async with asyncio.timeout(self._server.settings.command_timeout), self._changed:
                await self._changed.wait_for(lambda: wanted <= self._confirmed)
        except TimeoutError:
            log.warning("Redis at %s has not confirmed a subscription yet", self._server.shown)

    async def _open(self, connection: Connection) -> None:
        await connection.connect()  # type: ignore[no-untyped-call]
        if self._patterns:
            await connection.send_command("PSUBSCRIBE", *self._patterns)
        sent: set[str] = set()
        while missing := [channel for channel in self._channels if channel not in sent]:
            await connection.send_command("SUBSCRIBE", *missing)
            sent.update(missing)
        self._connection = connection

    async def _run(self, connection: Connection | None) -> None:
        settings = self._server.settings
        delay = settings.first_delay
        while True:
            try:
                if connection is None:
                    connection = self._server.connection(unhurried=True)
                    async with asyncio.timeout(settings.command_timeout):
                        await self._open(connection)
                delay = settings.first_delay
                await self._hear(connection)
            except (RedisError, OSError) as error:
                log.warning(
                    "lost the subscription to Redis at %s: %s", self._server.shown, str(error) or "it went silent"
                )
            finally:
                was_connected = self._connection is not None
                self._connection = None
                self._confirmed.clear()
                if connection is not None:
                    await _drop(connection)
                if was_connected:
                    self._on_lost()
            connection = None
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, settings.longest_delay)

    async def _hear(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        async with asyncio.timeout(self._server.settings.silence) as limit:
            pinging = asyncio.create_task(self._ping(connection, limit), name="bus ping")
            try:
                while True:
                    reply: Any = await connection.read_response(disable_decoding=True)
                    self._heard = loop.time()
                    await self._take(reply)
            finally:
                pinging.cancel()

    async def _ping(self, connection: Connection, limit: asyncio.Timeout) -> None:
        settings = self._server.settings
        while True:
            await asyncio.sleep(settings.ping_every)
            limit.reschedule(self._heard + settings.silence)
            try:
                await connection.send_command("PING")
            except (RedisError, OSError):
                return

    async def _take(self, reply: Any) -> None:
        match reply:
            case [b"message", bytes(channel), bytes(payload)] | [b"pmessage", _, bytes(channel), bytes(payload)]:
                try:
                    self._on_message(channel.decode(errors="replace"), payload)
                except Exception:
                    log.exception("a message on %r could not be handled", channel)
            case [b"subscribe" | b"psubscribe", bytes(name), _]:
                async with self._changed:
                    self._confirmed.add(name.decode())
                    self._changed.notify_all()
            case _:
                pass


async def _drop(connection: Connection) -> None:
    try:
        await connection.disconnect(nowait=True)
    except (RedisError, OSError) as error:
        log.debug("closing a connection to Redis: %s", error)
