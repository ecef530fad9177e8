"""The Redis that a bus talks to: its tunables, its clients, and its errors in our words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool, Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError, WatchError

from broadcaster.errors import BusUnavailableError, ConfigurationError


@dataclass(frozen=True, slots=True)
class BusSettings:
    """All times in seconds."""

    lease_ttl: float = 5.0
    renew_every: float = 1.0
    refresh_every: float = 0.5
    fresh_for: float = 2.0
    """Age of the last good refresh above which a registry says that it is not fresh."""
    session_ttl: float = 60.0
    """Renewed by the worker well within it, so that a record outlives a short outage."""
    picture_ttl: float = 10.0
    tick: float = 0.05
    """Events wait at most this long to share one write."""
    queue: int = 10_000
    """Events that wait for Redis; beyond them the oldest is dropped."""
    batch: int = 500
    """Events in one write."""
    kept: int = 10_000
    """Events that the Stream beside each channel keeps for replay, about."""
    kept_for: float = 86_400.0
    """Age at which the Stream of a silent channel is deleted."""
    command_timeout: float = 2.0
    ping_every: float = 2.0
    silence: float = 5.0
    """A subscription that heard nothing for so long, not even a PONG, is rebuilt."""
    first_delay: float = 0.1
    longest_delay: float = 2.0
    """Reconnecting waits between these two, doubling."""
    concurrent_calls: int = 256
    connections: int = 32
    """Commands that are under way at once; more wait, for `command_timeout` at most, as when all viewers leave."""


class Server:
    """One Redis, named by `url`."""

    def __init__(self, url: str, settings: BusSettings) -> None:
        self.url = url
        self.settings = settings
        self.redis = self._client(settings.command_timeout)
        self._unhurried = self._client(None)

    def _client(self, timeout: float | None) -> Redis:
        try:
            pool = BlockingConnectionPool.from_url(
                self.url,
                max_connections=self.settings.connections,
                timeout=self.settings.command_timeout,
                protocol=2,
                socket_timeout=timeout,
                socket_connect_timeout=self.settings.command_timeout,
                socket_keepalive=True,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise ConfigurationError(f"{self.shown} is not a usable Redis URL: {error}") from None
        return Redis.from_pool(pool)

    @property
    def shown(self) -> str:
        """The URL as it may be printed: without its password."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}"

    def connection(self, *, unhurried: bool = False) -> Connection:
        """A connection of the caller's own; an `unhurried` one may wait for an answer for ever."""
        client = self._unhurried if unhurried else self.redis
        made: Connection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        return made

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise BusUnavailableError with one clear sentence for whatever goes wrong with Redis inside."""
        try:
            yield
        except AuthenticationError as error:
            raise BusUnavailableError(f"Redis at {self.shown} refuses us: {error}") from error
        except (ResponseError, WatchError) as error:
            raise BusUnavailableError(f"Redis at {self.shown} refuses a command: {error}") from error
        except (RedisError, OSError) as error:
            text = str(error).rstrip(".") or type(error).__name__
            raise BusUnavailableError(
                f"Redis at {self.shown} does not answer: {text}; start it, or name another one with --redis-url"
            ) from error

    async def close(self) -> None:
        await self.redis.aclose()
        await self._unhurried.aclose()


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel `tasks` until they are done.

    Once is not enough: redis-py waits with `asyncio.wait_for`, which up to Python 3.11 loses a cancellation that
    arrives together with the result.
    """
    while waiting := [task for task in tasks if not task.done()]:
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting, timeout=0.1)
    await asyncio.gather(*tasks, return_exceptions=True)
