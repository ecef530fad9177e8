"""Commands: what every join needs of Redis, over one connection that answers in order.

A client that takes a connection out of a pool for each command spends more on that than on the command, and a time-out
for each read as much again. Here commands leave as they come, and whoever waits for one is told by the one reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from broadcaster.bus.server import Server, end

log = logging.getLogger(__name__)


def packed(*arguments: bytes) -> bytes:
    """A command as Redis reads it (RESP)."""
    return b"*%d\r\n%b" % (len(arguments), b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in arguments))


class Commands:
    """One connection, made when it is needed and again after it was lost.

    Nothing is sent twice: a command whose answer was lost with the connection has failed, as far as anybody knows.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._opening: asyncio.Task[Connection] | None = None
        self._connection: Connection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        """Who waits for an answer, and until when, in the order in which commands were sent."""
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, *arguments: bytes) -> Any:
        """The answer to a command. Raises redis-py's errors and OSError, TimeoutError after `command_timeout`."""
        connection = self._connection or await self._open()
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self._waiting.append((loop.time() + self._server.settings.command_timeout, answer))
        if self._timer is None:
            self._timer = loop.call_at(self._waiting[0][0], self._check)
        try:
            await connection.send_packed_command(packed(*arguments), check_health=False)
        except BaseException:
            answer.cancel()
            raise
        return await answer

    async def close(self) -> None:
        """Disconnect; whoever still waits is told."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await end(*(task for task in (self._opening, self._reader) if task is not None))

    async def _open(self) -> Connection:
        """Connect, once for all who wait for it: where one of them fails, all do."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._connect(), name="bus commands connect")
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    def _opened(self, opening: asyncio.Task[Connection]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # seen, also when nobody waits any more

    async def _connect(self) -> Connection:
        connection = self._server.connection(unhurried=True)  # one time-out for all that waits is enough
        try:
            async with asyncio.timeout(self._server.settings.command_timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await _hang_up(connection)
            raise
        self._connection = connection
        self._reader = asyncio.create_task(self._read(connection), name="bus commands")
        return connection

    async def _read(self, connection: Connection) -> None:
        lost: Exception = RedisConnectionError("the connection was closed")
        try:
            while True:
                try:
                    said = await connection.read_response(disable_decoding=True)
                except ResponseError as error:
                    said = error
                if not self._waiting:
                    raise RedisConnectionError("an answer that nobody asked for")
                _, answer = self._waiting.popleft()
                if answer.done():
                    continue
                if isinstance(said, Exception):
                    answer.set_exception(said)
                else:
                    answer.set_result(said)
        except (RedisError, OSError) as error:
            lost = error
        finally:
            self._lose(connection, lost)
            await _hang_up(connection)

    def _lose(self, connection: Connection, error: Exception) -> None:
        if self._connection is not connection:
            return
        self._connection = None
        waiting, self._waiting = self._waiting, deque()
        for _, answer in waiting:
            if not answer.done():
                answer.set_exception(error)

    def _check(self) -> None:
        """Give up on a connection whose oldest command is not answered in time; what follows it would not be either."""
        self._timer = None
        if not self._waiting:
            return
        loop, until = asyncio.get_running_loop(), self._waiting[0][0]
        if loop.time() < until:
            self._timer = loop.call_at(until, self._check)
        elif self._connection is not None and self._reader is not None:
            self._lose(self._connection, TimeoutError("no answer in time"))
            self._reader.cancel()


async def _hang_up(connection: Connection) -> None:
    with contextlib.suppress(RedisError, OSError):
        await connection.disconnect(nowait=True)
