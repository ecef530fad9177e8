"""Calls: request and reply between processes over pub/sub, each with a deadline."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from broadcaster.bus.commands import Commands
from broadcaster.bus.messages import Call, Failure, Method, Reply, decode, encode, key
from broadcaster.bus.server import Server, end
from broadcaster.bus.subscription import Subscription
from broadcaster.errors import (
    BeamcastError,
    BusUnavailableError,
    CallTimeoutError,
    CallUnheardError,
    MessageError,
    OverloadedError,
    by_name,
)

log = logging.getLogger(__name__)

Handlers = Mapping[Method, Callable[[dict[str, Any]], Awaitable[msgspec.Struct]]]
_T = TypeVar("_T", bound=msgspec.Struct)

_REPLIES = key("reply", "")

_LONGEST = 600.0
"""Seconds; a call with a longer deadline is none of ours."""


class Calls:
    """Both ends of calls, on one subscription. `rejected` counts messages that are no call and no reply of ours."""

    def __init__(self, server: Server, source: str, commands: Commands) -> None:
        self._server = server
        self._commands = commands
        self._replies = f"{_REPLIES}{source}:{secrets.token_hex(8)}"
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        self._served: dict[str, tuple[str, Handlers]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self.subscription = Subscription(server, self._take, self._lost)
        self.rejected = 0

    async def start(self) -> None:
        await self.subscription.start(channels=[self._replies])

    async def close(self) -> None:
        await end(*self._running)
        await self.subscription.close()

    async def serve(self, id: str, handlers: Handlers) -> None:  # noqa: A002
        channel = key("rpc", id)
        self._served[channel] = (id, handlers)
        await self.subscription.add(channel)

    async def call(self, id: str, method: Method, params: msgspec.Struct, *, timeout: float, result: type[_T]) -> _T:  # noqa: A002
        if not self.subscription.connected:
            raise BusUnavailableError(f"Redis at {self._server.shown} does not answer at the moment: try again")
        call = Call(
            id=secrets.token_hex(8),
            method=method,
            params=msgspec.to_builtins(params),
            reply_to=self._replies,
            deadline=timeout,
        )
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        answer: asyncio.Future[Reply] = loop.create_future()
        self._waiting[call.id] = answer
        try:
            with self._server.errors():
                heard = await self._commands.run(b"PUBLISH", key("rpc", id).encode(), encode(call))
            if not heard:
                raise CallUnheardError(f"nobody answers as {id!r}: it has stopped or has lost Redis")
            async with asyncio.timeout_at(until):
                reply = await answer
        except TimeoutError:
            raise CallTimeoutError(f"{id} did not answer {method!r} within {timeout:g} s") from None
        finally:
            del self._waiting[call.id]
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, also when publishing failed first
        if reply.failure is not None:
            raise by_name().get(reply.failure.error, BeamcastError)(reply.failure.detail)
        try:
            return msgspec.convert(reply.result, result)
        except msgspec.ValidationError as error:
            raise MessageError(
                f"{id} answered {method!r} with something else than {result.__name__}: {error}"
            ) from None

    def _lost(self) -> None:
        """A reply that was on its way is gone with the subscription: tell the callers now."""
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(BusUnavailableError(f"the connection to Redis at {self._server.shown} was lost"))

    def _take(self, channel: str, payload: bytes) -> None:
        served = self._served.get(channel)
        try:
            if served is None:
                reply = decode(payload, Reply)
                answer = self._waiting.get(reply.id)
                if answer is not None and not answer.done():
                    answer.set_result(reply)
                return
            call = _checked(decode(payload, Call))
        except MessageError as error:
            self.rejected += 1
            log.debug("ignored a message on %s: %s", channel, error)
            return
        full = len(self._running) >= self._server.settings.concurrent_calls
        task = asyncio.create_task(self._answer(call, *served, full=full), name=f"call {call.method}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, call: Call, id: str, handlers: Handlers, *, full: bool) -> None:  # noqa: A002
        reply = Reply(id=call.id)
        limit: asyncio.Timeout | None = None
        try:
            handler = handlers.get(call.method)
            if handler is None:
                raise MessageError(f"{id} has no method {call.method!r}")  # noqa: TRY301
            if full:
                raise OverloadedError(f"{id} is answering as many calls as it can: try another one")  # noqa: TRY301
            async with asyncio.timeout(call.deadline) as limit:
                reply.result = msgspec.to_builtins(await handler(call.params))
        except BeamcastError as error:
            reply.failure = Failure(error=type(error).__name__, detail=error.detail)
        except msgspec.ValidationError as error:
            reply.failure = Failure(error="MessageError", detail=f"{id} cannot read the parameters: {error}")
        except Exception:
            if limit is not None and limit.expired():
                log.warning("%s was not done within the caller's %g s", call.method, call.deadline)
                return
            log.exception("%s failed", call.method)
            reply.failure = Failure(error="BeamcastError", detail=f"{id} failed at {call.method!r}: its log says why")
        try:
            with self._server.errors():
                await self._commands.run(b"PUBLISH", call.reply_to.encode(), encode(reply))
        except BusUnavailableError as error:
            log.warning("the answer to %s is lost: %s", call.method, error)


def _checked(call: Call) -> Call:
    if not call.reply_to.startswith(_REPLIES) or not 0.0 < call.deadline < _LONGEST:
        raise MessageError("a call with a reply channel or a deadline that cannot be")
    return call
