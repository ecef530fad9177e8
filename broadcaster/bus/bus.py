"""Bus: everything that a process says and hears over Redis."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import msgspec

from broadcaster.bus.calls import Calls, Handlers
from broadcaster.bus.commands import Commands
from broadcaster.bus.leases import Kind, Lease, LeaseRecord, Living, Roll
from broadcaster.bus.messages import (
    CLUSTER,
    Event,
    EventData,
    EventType,
    GatewayLease,
    Method,
    SessionRecord,
    StreamLease,
    WorkerLease,
    decode,
    encode,
    key,
)
from broadcaster.bus.publisher import Publisher
from broadcaster.bus.server import BusSettings, Server
from broadcaster.bus.subscription import Subscription
from broadcaster.errors import BusUnavailableError, MessageError

log = logging.getLogger(__name__)

_T = TypeVar("_T", bound=msgspec.Struct)
_DEFAULTS = BusSettings()


class Bus:
    """One process's end of the bus. `source` names the process in its events ("worker-1").

    All of it belongs to one event loop. Outages heal by themselves. During one, `publish`, `delete_session`,
    `refresh_sessions`, `put_picture` and a lease's upkeep neither fail nor wait long; whatever must have an answer
    raises BusUnavailableError.
    """

    def __init__(self, url: str, source: str, *, settings: BusSettings = _DEFAULTS) -> None:
        self.settings = settings
        self.source = source
        self.server = Server(url, settings)
        self.roll = Roll(self.server)
        self._publisher = Publisher(self.server)
        self._commands = Commands(self.server)
        self._calls = Calls(self.server, source, self._commands)
        self._run = secrets.token_hex(4)
        self._seq = 0
        self._channels: dict[tuple[bool, str | None], bytes] = {}
        self._sessions: dict[str, bytes] = {}

    async def start(self) -> None:
        """Connect; BusUnavailableError with one clear sentence when there is no Redis."""
        try:
            with self.server.errors():
                await self.server.redis.ping()
            await self._calls.start()
        except BaseException:
            await self.server.close()
            raise
        self._publisher.start()

    async def close(self) -> None:
        """Send the events that wait, and disconnect. Leases are released by their owners before."""
        await self._publisher.close()
        await self._calls.close()
        await self._commands.close()
        await self.server.close()

    @property
    def connected(self) -> bool:
        """Whether Redis was heard within the last seconds (`BusSettings.silence`)."""
        return self._calls.subscription.connected

    @property
    def counters(self) -> dict[str, int]:
        """`published` and `dropped` events, and `rejected` messages and records that were none of ours."""
        return {
            "published": self._publisher.published,
            "dropped": self._publisher.dropped,
            "rejected": self._calls.rejected + self.roll.rejected,
        }

    # --- events ---

    def publish(self, type: EventType, data: EventData, *, stream: str | None, viewer: str | None = None) -> None:  # noqa: A002
        """Tell subscribers. Never blocks and never raises: the queue is bounded and drops the oldest."""
        self._seq += 1
        event = Event(
            type=type,
            id=f"{self._run}-{self._seq}",
            seq=self._seq,
            ts=time.time(),
            source=self.source,
            stream=stream,
            viewer=viewer,
            data=cast(dict[str, Any], data),
        )
        where = (type == "stats", stream)
        channel = self._channels.get(where)
        if channel is None:
            channel = key("stats" if type == "stats" else "events", stream or CLUSTER).encode()
            self._channels[where] = channel
        self._publisher.put(channel, encode(event))

    async def hear(self, stream: str, on_message: Callable[[str, bytes], None]) -> Subscription:
        """Call `on_message(channel, payload)` for each event and each statistic of a stream, until the subscription is
        closed. BusUnavailableError when Redis does not answer now; later outages heal by themselves.
        """
        subscription = Subscription(self.server, on_message)
        await subscription.start(channels=[key("events", stream), key("stats", stream)])
        return subscription

    async def past(self, stream: str, count: int, *, stats: bool = False) -> list[Event]:
        """The last `count` events of a stream that Redis keeps, oldest first, with or without as many statistics."""
        events: list[Event] = []
        with self.server.errors():
            for kind in ("events", "stats") if stats else ("events",):
                entries: Any = await self.server.redis.xrevrange(key(kind, stream), count=count)
                for _, fields in entries:
                    with contextlib.suppress(MessageError):
                        events.append(decode(fields.get(b"event", b""), Event))
        return sorted(events, key=lambda event: event.ts)

    # --- who is alive ---

    def lease(
        self,
        kind: Kind,
        id: str,  # noqa: A002
        make: Callable[[], LeaseRecord],
        *,
        on_taken: Callable[[], None] = lambda: None,
    ) -> Lease:
        """A lease to `acquire()` and later `release()`; `make` returns its record, afresh for each renewal.

        `on_taken` is called when another process took it, which can happen while this one was cut off: two that bear
        one name answer for each other, so this one should stop.
        """
        return Lease(self.server, kind, id, make, on_taken)

    async def workers(self) -> list[Living[WorkerLease]]:
        return await self._living("worker")

    async def streams(self) -> list[Living[StreamLease]]:
        return await self._living("stream")

    async def gateways(self) -> list[Living[GatewayLease]]:
        return await self._living("gateway")

    async def _living(self, kind: Kind) -> list[Living[Any]]:
        living, _ = (await self.roll.call([kind]))[kind]
        return list(living.values())

    # --- calls ---

    async def serve(self, id: str, handlers: Handlers) -> None:  # noqa: A002
        """Answer calls to `id` from now on, in the background.

        A BeamcastError of a handler is raised as itself at the caller, and a handler is cancelled at the deadline.
        """
        await self._calls.serve(id, handlers)

    async def call(self, id: str, method: Method, params: msgspec.Struct, *, timeout: float, result: type[_T]) -> _T:  # noqa: A002
        """Ask the process that serves `id`, for at most `timeout` seconds.

        CallUnheardError at once when nobody serves `id`, CallTimeoutError at the deadline, BusUnavailableError
        without Redis, MessageError when the answer is no `result`, or the error that the handler raised.
        """
        return await self._calls.call(id, method, params, timeout=timeout, result=result)

    # --- sessions and pictures ---

    async def put_session(self, secret: str, record: SessionRecord) -> None:
        """Record whose session this is. From then on it belongs to this bus, and lives by `refresh_sessions`."""
        payload = encode(record)
        with self.server.errors():
            await self._commands.run(b"SET", key("session", secret).encode(), payload, b"PX", b"%d" % self._session_ms)
        self._sessions[secret] = payload

    async def get_session(self, secret: str) -> SessionRecord | None:
        """BusUnavailableError, or MessageError for a record that is none."""
        with self.server.errors():
            payload = await self._commands.run(b"GET", key("session", secret).encode())
        return decode(payload, SessionRecord) if isinstance(payload, bytes) else None

    async def refresh_sessions(self, secrets: Iterable[str]) -> bool:
        """Renew records of this bus, also those that an outage wiped out; False when Redis did not answer."""
        renewed = [(secret, self._sessions[secret]) for secret in secrets if secret in self._sessions]
        if not renewed:
            return True
        try:
            with self.server.errors():
                async with self.server.redis.pipeline(transaction=False) as pipe:
                    for secret, payload in renewed:
                        pipe.set(key("session", secret), payload, px=self._session_ms)
                    await pipe.execute()
        except BusUnavailableError as error:
            log.info("%d session records wait for Redis: %s", len(renewed), error)
            return False
        return True

    async def delete_session(self, *secrets: str) -> None:
        """Delete records of this bus; what cannot be deleted now expires."""
        ours = [secret for secret in secrets if self._sessions.pop(secret, None) is not None]
        if not ours:
            return
        try:
            with self.server.errors():
                await self._commands.run(b"DEL", *(key("session", secret).encode() for secret in ours))
        except BusUnavailableError as error:
            log.info("%d session records are left to expire: %s", len(ours), error)

    async def put_picture(self, stream: str, jpeg: bytes) -> None:
        """Show `jpeg` as the current picture of `stream` for ten seconds; lost silently without Redis."""
        try:
            with self.server.errors():
                await self.server.redis.set(key("picture", stream), jpeg, px=int(self.settings.picture_ttl * 1000))
        except BusUnavailableError as error:
            log.debug("a picture of %s is lost: %s", stream, error)

    async def get_picture(self, stream: str) -> bytes | None:
        with self.server.errors():
            picture = await self.server.redis.get(key("picture", stream))
        return picture if isinstance(picture, bytes) else None

    @property
    def _session_ms(self) -> int:
        return int(self.settings.session_ttl * 1000)
