"""Leases: who is alive. A process renews its own; a reader lists those of others with their age."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import msgspec
from redis.exceptions import WatchError

from broadcaster.bus.messages import GatewayLease, StreamLease, WorkerLease, decode, encode, key
from broadcaster.bus.server import Server, end
from broadcaster.errors import BusUnavailableError, ConfigurationError, MessageError

log = logging.getLogger(__name__)

Kind = Literal["worker", "stream", "gateway"]
LeaseRecord = WorkerLease | StreamLease | GatewayLease
_L_co = TypeVar("_L_co", bound=LeaseRecord, covariant=True)

RECORDS: dict[Kind, type[WorkerLease] | type[StreamLease] | type[GatewayLease]] = {
    "worker": WorkerLease,
    "stream": StreamLease,
    "gateway": GatewayLease,
}

_COALESCE = 0.2
"""Seconds by which a renewal out of turn waits for further changes: it takes four answers of Redis, and who reads it
looks every 0.5 s (`BusSettings.refresh_every`)."""


@dataclass(frozen=True, slots=True)
class Living(Generic[_L_co]):
    """A lease that has not expired; `age` is seconds since its renewal, by Redis's clock alone."""

    lease: _L_co
    age: float


class _Token(msgspec.Struct):
    epoch: int


def index(kind: Kind) -> str:
    """The Set that lists the ids of all leases of a kind."""
    return key(kind + "s")


class Lease:
    """One lease of this process. Made by `Bus.lease()`.

    `make` returns the record to publish; its `epoch` (see `new_epoch()`) stays the same for the whole run and is the
    fencing token: a record with another epoch is somebody else's and is never overwritten or deleted.
    """

    def __init__(
        self,
        server: Server,
        kind: Kind,
        id: str,  # noqa: A002
        make: Callable[[], LeaseRecord],
        on_taken: Callable[[], None],
    ) -> None:
        self._on_taken = on_taken
        self._server = server
        self._kind: Kind = kind
        self._id = id
        self._make = make
        self._epoch: int | None = None
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self.held = False
        """Whether the last renewal succeeded."""

    async def acquire(self) -> None:
        """Take the lease and keep it renewed in the background.

        Waits for the lease of a dead process to expire; ConfigurationError when another living process renews it,
        BusUnavailableError when Redis does not answer.
        """
        last: int | None = None
        while await self._claim() is not None:
            with self._server.errors():
                left = int(await self._server.redis.pttl(key(self._kind, self._id)))
            if left == -1 or (last is not None and left > last):
                raise ConfigurationError(
                    f"another living {self._kind} has the name {self._id!r}: stop it, or give this one another name"
                )
            last = left
            await asyncio.sleep(self._server.settings.renew_every / 4)
        self._stopping = False
        self._task = asyncio.create_task(self._renew(), name=f"lease {self._kind}:{self._id}")

    def renew_soon(self) -> None:
        """Publish a fresh record now rather than at the next renewal."""
        self._wanted.set()

    async def release(self) -> None:
        """Stop renewing, and delete the lease when it is still ours. An outage is no error: the lease expires."""
        if self._task is not None:
            self._stopping = True
            self._wanted.set()
            # A renewal under way ends first: it must not bring back what is deleted next.
            await asyncio.wait({self._task}, timeout=2 * self._server.settings.command_timeout)
            await end(self._task)
            self._task = None
        self.held = False
        try:
            await self._delete()
        except BusUnavailableError as error:
            log.info("the lease %s:%s is left to expire: %s", self._kind, self._id, error)

    async def _renew(self) -> None:
        settings = self._server.settings
        while True:
            try:
                async with asyncio.timeout(settings.renew_every):
                    await self._wanted.wait()
                await asyncio.sleep(_COALESCE)
            except TimeoutError:
                pass
            if self._stopping:
                return
            self._wanted.clear()
            before = self.held
            try:
                other = await self._claim()
            except BusUnavailableError as error:
                self.held = False
                if before:
                    log.warning("the lease %s:%s waits for Redis: %s", self._kind, self._id, error)
            except Exception:
                log.exception("the lease %s:%s could not be renewed", self._kind, self._id)
            else:
                if other is not None:
                    log.error("the lease %s:%s was taken by another process", self._kind, self._id)
                    self.held = False
                    self._on_taken()
                    return
                if not before:
                    log.info("the lease %s:%s is ours again", self._kind, self._id)

    async def _claim(self) -> int | None:
        """Write our record unless somebody else's is there; then return its epoch."""
        record = self._make()
        self._epoch = record.epoch
        name = key(self._kind, self._id)
        with self._server.errors():
            async with self._server.redis.pipeline() as pipe:
                for _ in range(3):
                    try:
                        await pipe.watch(name)
                        other = _epoch(await pipe.get(name))
                        if other is not None and other != self._epoch:
                            self.held = False
                            return other
                        pipe.multi()  # type: ignore[no-untyped-call]
                        pipe.set(name, encode(record), px=int(self._server.settings.lease_ttl * 1000))
                        pipe.sadd(index(self._kind), self._id)
                        await pipe.execute()
                    except WatchError:
                        continue
                    self.held = True
                    return None
        raise BusUnavailableError(f"the lease {self._kind}:{self._id} changes faster than it can be taken")

    async def _delete(self) -> None:
        name = key(self._kind, self._id)
        with self._server.errors():
            async with self._server.redis.pipeline() as pipe:
                try:
                    await pipe.watch(name)
                    if self._epoch is None or _epoch(await pipe.get(name)) != self._epoch:
                        return
                    pipe.multi()  # type: ignore[no-untyped-call]
                    pipe.delete(name)
                    pipe.srem(index(self._kind), self._id)
                    await pipe.execute()
                except WatchError:
                    return


class Roll:
    """Reads who is alive. `rejected` counts records that are none."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.rejected = 0

    async def call(self, kinds: Sequence[Kind]) -> dict[Kind, tuple[dict[str, Living[Any]], list[str]]]:
        """For each kind: the living by id, and the ids whose lease has expired. BusUnavailableError."""
        settings = self._server.settings
        with self._server.errors():
            async with self._server.redis.pipeline(transaction=False) as pipe:
                for kind in kinds:
                    pipe.smembers(index(kind))
                members = await pipe.execute()
            wanted = [
                (kind, name.decode(errors="replace"))
                for kind, names in zip(kinds, members, strict=True)
                for name in sorted(names)
            ]
            async with self._server.redis.pipeline(transaction=False) as pipe:
                for kind, name in wanted:
                    pipe.get(key(kind, name))
                    pipe.pttl(key(kind, name))
                values = await pipe.execute(raise_on_error=False)
        found: dict[Kind, tuple[dict[str, Living[Any]], list[str]]] = {kind: ({}, []) for kind in kinds}
        for (kind, name), payload, left in zip(wanted, values[::2], values[1::2], strict=True):
            living, expired = found[kind]
            if payload is None:
                expired.append(name)
                continue
            try:
                record = decode(payload if isinstance(payload, bytes) else b"", RECORDS[kind])
            except MessageError as error:
                self.rejected += 1
                log.debug("the lease %s:%s: %s", kind, name, error)
                continue
            age = settings.lease_ttl - left / 1000 if isinstance(left, int) else 0.0
            living[name] = Living(record, min(max(age, 0.0), settings.lease_ttl))
        return found

    async def strike(self, kind: Kind, name: str) -> None:
        """Take an expired id off the index, unless its lease is back. BusUnavailableError."""
        with self._server.errors():
            async with self._server.redis.pipeline() as pipe:
                try:
                    await pipe.watch(key(kind, name))
                    if not await pipe.exists(key(kind, name)):
                        pipe.multi()  # type: ignore[no-untyped-call]
                        pipe.srem(index(kind), name)
                        await pipe.execute()
                except WatchError:
                    return


def _epoch(payload: object) -> int | None:
    if not isinstance(payload, bytes):
        return None
    try:
        return decode(payload, _Token).epoch
    except MessageError:
        return None
