"""What a Beamcast publishes on Redis, decoded as a subscriber would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import redis.asyncio as redis

from tests.topology import Topology


class Events:
    """What is published from here on."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url)
        self._pubsub = self._redis.pubsub()
        self._passed: list[dict[str, Any]] = []

    async def open(self) -> None:
        await self._pubsub.psubscribe("beamcast:v1:events:*")
        await self._pubsub.get_message(timeout=5)

    async def until(
        self,
        type: str,  # noqa: A002
        timeout: float,
        where: Callable[[dict[str, Any]], bool] | None = None,
        **data: Any,
    ) -> dict[str, Any]:
        """The next event of this type whose data has these values, and for which `where` holds."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=timeout)
                    if message is None:
                        continue
                    event = msgpack.unpackb(message["data"])
                    assert isinstance(event, dict)
                    self._passed.append(event)
                    if (
                        event["type"] == type
                        and all(event["data"].get(name) == value for name, value in data.items())
                        and (where is None or where(event["data"]))
                    ):
                        return event
        except TimeoutError:
            told = "\n".join(f"{event['type']} {event['data']}" for event in self._passed)
            raise TimeoutError(f"no {type} event with {data} within {timeout} s; there were:\n{told}") from None

    async def close(self) -> None:
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]
        await self._redis.aclose()


@asynccontextmanager
async def events(beamcast: Topology) -> AsyncIterator[Events]:
    subscriber = Events(beamcast.redis.url)
    await subscriber.open()
    try:
        yield subscriber
    finally:
        await subscriber.close()
