"""`beamcast events`: what happens in the cluster, one line of JSON for each event."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from broadcaster.bus.messages import Event, EventType, decode, key
from broadcaster.bus.server import BusSettings, Server
from broadcaster.bus.subscription import Subscription
from broadcaster.errors import ConfigurationError, MessageError
from broadcaster.settings import Parser, main_with_errors, redis_url
from broadcaster.stream import stream_name

DEFAULT_REDIS = "redis://127.0.0.1:6379/0"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events to print: of one stream or of all, and of which types (None: all but stats)."""

    stream: str | None = None
    types: frozenset[str] | None = None
    stats: bool = False

    def patterns(self) -> list[str]:
        """The channels to hear."""
        kinds = [kind for kind, wanted in (("events", self._events()), ("stats", self._stats())) if wanted]
        return [key(kind, self.stream or "*") for kind in kinds]

    def takes(self, event: Event) -> bool:
        if self.types is not None and event.type not in self.types:
            return self.stats and event.type == "stats"
        return True

    def _events(self) -> bool:
        return self.types is None or bool(self.types - {"stats"})

    def _stats(self) -> bool:
        return self.stats or (self.types is not None and "stats" in self.types)


class Printer:
    """Writes events to stdout until nobody reads it any more; then `closed` is set."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._held: list[Event] | None = None
        self.closed = asyncio.Event()

    def take(self, _channel: str, payload: bytes) -> None:
        try:
            event = decode(payload, Event)
        except MessageError:
            return
        if self._held is not None:
            self._held.append(event)
        else:
            self.show(event)

    def show(self, event: Event) -> None:
        if self.closed.is_set() or not self._selection.takes(event):
            return
        try:
            line = msgspec.json.encode(event)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
            return  # msgpack can say what JSON cannot; no event of ours does
        try:
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            self.closed.set()

    def hold(self) -> None:
        """Keep what arrives until `release`."""
        self._held = []

    def release(self, past: Sequence[Event]) -> None:
        """Show `past`, then what arrived meanwhile, nothing twice."""
        seen = {event.id for event in past}
        held, self._held = self._held or [], None
        for event in [*past, *(event for event in held if event.id not in seen)]:
            self.show(event)


async def follow(url: str, selection: Selection, *, replay: bool = False) -> None:
    """Print events until stdout is closed. BusUnavailableError when Redis does not answer at the start."""
    server = Server(url, BusSettings())
    printer = Printer(selection)
    subscription = Subscription(server, printer.take)
    try:
        if replay:
            printer.hold()
        await subscription.start(patterns=selection.patterns())
        if replay:
            printer.release(await _past(server, selection))
        await printer.closed.wait()
    finally:
        await subscription.close()
        await server.close()


async def _past(server: Server, selection: Selection) -> list[Event]:
    """The events that the Streams keep, oldest first."""
    events: list[Event] = []
    with server.errors():
        for pattern in selection.patterns():
            names: list[Any] = [name async for name in server.redis.scan_iter(match=pattern, _type="stream")]
            for name in names:
                entries: Any = await server.redis.xrange(name)
                for _, fields in entries:
                    try:
                        events.append(decode(fields.get(b"event", b""), Event))
                    except MessageError:
                        continue
    return sorted(events, key=lambda event: event.ts)


def _event_type(text: str) -> str:
    if text not in get_args(EventType):
        raise ConfigurationError(f"there is no such type of event; use one of {', '.join(get_args(EventType))}")
    return text


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    return main_with_errors(lambda: _main(arguments))


def _main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="beamcast events", description="Print what happens, one line of JSON for each event.")
    parser.option("--stream", stream_name, help="only events of this stream", metavar="NAME")
    parser.option("--type", _event_type, help="only events of this type; may be given again", many=True)
    parser.option("--redis-url", redis_url, default=DEFAULT_REDIS, help="the Redis of the cluster", metavar="URL")
    parser.add_argument("--stats", action="store_true", help="print the statistics of each viewer too, once a second")
    parser.add_argument("--replay", action="store_true", help="print what Redis has kept first")
    options = parser.parse_args(arguments)
    selection = Selection(options.stream, frozenset(options.type) or None, options.stats)
    try:
        asyncio.run(follow(options.redis_url, selection, replay=options.replay))
    finally:
        _detach_stdout()
    return 0


def _detach_stdout() -> None:
    """Point a closed stdout at nothing, or the interpreter complains about it when it exits."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
