"""Events of a stream for browsers, as server-sent events: one subscription of Redis for all that listen."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from dataclasses import dataclass

import msgspec
from aiohttp import web

from broadcaster.bus import Bus, Subscription
from broadcaster.bus.messages import Event, decode
from broadcaster.errors import ConfigurationError, MessageError, OverloadedError, StreamNotFoundError
from broadcaster.stream import stream_name
from gateway.cors import preflight

TYPES = ("adaptation", "joined", "connected", "left", "stats")


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """`clients`: listeners that this gateway takes of one viewer's events, which every page that plays is, and as many
    again of all events, so that an audience does not keep the operator out. `queue`: events that wait for a slow one;
    it then loses the oldest. `heartbeat`: seconds between two signs of life. `patience`: seconds for which a listener
    may take nothing of what it is sent; then it has gone without a word, or never reads, and its place is another's.
    `replay`: past events that a listener can ask for at most."""

    clients: int = 200
    queue: int = 500
    heartbeat: float = 15.0
    patience: float = 30.0
    look: float = 1.0
    replay: int = 500


class _Listener:
    """One open response."""

    def __init__(self, viewer: str | None, types: frozenset[str], size: int) -> None:
        self._viewer = viewer
        self.types = types
        self._size = size
        self.waiting: deque[Event] = deque()
        self.lost = 0
        self.more = asyncio.Event()

    def wants(self, event: Event) -> bool:
        return event.type in self.types and self._viewer in (None, event.viewer)

    def take(self, event: Event) -> None:
        if not self.wants(event):
            return
        if len(self.waiting) >= self._size:
            self.waiting.popleft()
            self.lost += 1
        self.waiting.append(event)
        self.more.set()


class _Feed:
    """One stream: its listeners and the subscription that they share."""

    def __init__(self) -> None:
        self.listeners: set[_Listener] = set()
        self.subscription: asyncio.Task[Subscription] | None = None

    def hear(self, _channel: str, payload: bytes) -> None:
        try:
            event = decode(payload, Event)
        except MessageError:
            return
        for listener in self.listeners:
            listener.take(event)


class Feeds:
    """`/api/events/{stream}`: what happens to the viewers of a stream, as it happens.

    `?viewer=` asks for one viewer's events, `?types=a,b` for some types, `?replay=N` for the last N of these first, and
    for as many statistics; a `Last-Event-ID` (HTML, server-sent events) for all since then, as far as Redis keeps them.
    Besides the events come `lost` with a count where the listener was too slow, and `away` and `back` for Redis.
    """

    def __init__(self, bus: Bus, settings: FeedSettings | None = None) -> None:
        self._bus = bus
        self._settings = settings or FeedSettings()
        self._feeds: dict[str, _Feed] = {}
        self._counts = {True: 0, False: 0}
        """Listeners, by whether they want one viewer's events."""
        self._closing = asyncio.Event()

    def add_to(self, app: web.Application) -> None:
        resource = app.router.add_resource("/api/events/{stream}")
        resource.add_route("GET", self.listen)
        resource.add_route("OPTIONS", preflight())
        app.on_shutdown.append(self._shut_down)

    async def listen(self, request: web.Request) -> web.StreamResponse:
        settings = self._settings
        try:
            stream = stream_name(request.match_info["stream"])
        except ConfigurationError as error:
            raise StreamNotFoundError(error.detail) from None
        types = _types(request.query.get("types"))
        replay = _number(request.query.get("replay"), settings.replay)
        viewer = request.query.get("viewer")
        narrow = viewer is not None
        if self._counts[narrow] >= settings.clients:
            raise OverloadedError(f"This gateway has all the {settings.clients} listeners that it takes.")
        self._counts[narrow] += 1
        listener = _Listener(viewer, types, settings.queue)
        feed = self._feeds.setdefault(stream, _Feed())
        feed.listeners.add(listener)
        try:
            subscription = await self._subscribed(stream, feed)
            past = await self._past(stream, listener, replay, request.headers.get("Last-Event-ID"))
            return await self._answer(request, listener, subscription, past)
        finally:
            self._counts[narrow] -= 1
            feed.listeners.discard(listener)
            if not feed.listeners:
                await self._end(stream, feed)

    async def _subscribed(self, stream: str, feed: _Feed) -> Subscription:
        if feed.subscription is None or (feed.subscription.done() and feed.subscription.exception() is not None):
            feed.subscription = asyncio.create_task(self._bus.hear(stream, feed.hear))
        return await asyncio.shield(feed.subscription)

    async def _past(self, stream: str, listener: _Listener, replay: int, last: str | None) -> list[Event]:
        if not replay and last is None:
            return []
        events = await self._bus.past(stream, self._settings.replay, stats="stats" in listener.types)
        if last is not None:
            place = next((number for number, event in enumerate(events) if event.id == last), None)
            if place is not None:
                return [event for event in events[place + 1 :] if listener.wants(event)]
        if not replay:
            return []
        wanted = [event for event in events if listener.wants(event)]
        # Statistics are so many that no decision would be left beside them.
        kinds = [[event for event in wanted if (event.type == "stats") is stats] for stats in (False, True)]
        return sorted((event for kind in kinds for event in kind[-replay:]), key=lambda event: event.ts)

    async def _answer(
        self, request: web.Request, listener: _Listener, subscription: Subscription, past: list[Event]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        await response.prepare(request)
        self._limit_silence(request)
        seen = {event.id for event in past}
        listener.waiting = deque([*past, *(event for event in listener.waiting if event.id not in seen)])
        listener.more.set()
        closing = asyncio.create_task(self._closing.wait())
        connected, silent = True, 0.0
        try:
            while not self._closing.is_set():
                text, listener.more = _text(listener), asyncio.Event()
                if subscription.connected != connected:
                    connected = subscription.connected
                    text += f"event: {'back' if connected else 'away'}\ndata: {{}}\n\n"
                if not text and silent >= self._settings.heartbeat:
                    text = ": alive\n\n"
                if text:
                    await response.write(text.encode())
                    silent = 0.0
                more = asyncio.create_task(listener.more.wait())
                await asyncio.wait({more, closing}, timeout=self._settings.look, return_when=asyncio.FIRST_COMPLETED)
                silent += 0.0 if more.done() else self._settings.look
                more.cancel()
        except ConnectionResetError:
            pass  # the browser has left
        finally:
            closing.cancel()
        return response

    def _limit_silence(self, request: web.Request) -> None:
        """Only the kernel knows what was acknowledged; by itself it tries for a quarter of an hour."""
        connection = request.transport.get_extra_info("socket") if request.transport is not None else None
        if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * self._settings.patience))

    async def _end(self, stream: str, feed: _Feed) -> None:
        if self._feeds.get(stream) is feed:
            del self._feeds[stream]
        task = feed.subscription
        if task is not None:
            task.cancel()
            for subscription in await asyncio.gather(task, return_exceptions=True):
                if isinstance(subscription, Subscription):
                    await subscription.close()

    async def _shut_down(self, app: web.Application) -> None:
        self._closing.set()


def _text(listener: _Listener) -> str:
    parts = []
    if listener.lost:
        parts.append(f'event: lost\ndata: {{"count":{listener.lost}}}\n\n')
        listener.lost = 0
    while listener.waiting:
        event = listener.waiting.popleft()
        try:
            data = msgspec.json.encode(event).decode()
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
            continue  # msgpack can say what JSON cannot; no event of ours does
        parts.append(f"id: {event.id}\nevent: {event.type}\ndata: {data}\n\n")
    return "".join(parts)


def _types(text: str | None) -> frozenset[str]:
    if text is None:
        return frozenset(TYPES)
    chosen = frozenset(text.split(","))
    if not chosen <= set(TYPES):
        raise ConfigurationError(f"?types= takes some of {', '.join(TYPES)}, with commas between them")
    return chosen


def _number(text: str | None, most: int) -> int:
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise ConfigurationError(f"?replay= takes a number of events, at most {most}")
    return min(most, int(text))
