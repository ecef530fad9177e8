"""Feed: one stream inside a worker, from its frame link to its forwarder, for as long as anybody watches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from broadcaster.adaptation.audience import Histogram, histogram, merged
from broadcaster.errors import LinkError, StreamNotLiveError
from broadcaster.link import LinkClient, RungDemand
from broadcaster.stream import EncodedFrame, EncodedSound, StreamDescription
from workers.forward import Fanout, Forwarder

log = logging.getLogger(__name__)

Locate = Callable[[str], Awaitable[list[str]]]
"""Finds the "host:port" addresses of a stream's frame link; empty when the stream is not on the air."""


@dataclass(frozen=True)
class FeedSettings:
    ready_timeout: float = 3.0
    """Seconds that a viewer's offer waits for the stream's description."""
    linger: float = 10.0
    """Seconds that a feed outlives its last viewer, so that a player that reconnects finds it warm."""


class Feed:
    """Frames and sound of one stream for all its viewers in this worker."""

    def __init__(
        self,
        stream: str,
        locate: Locate,
        fanout: Fanout,
        *,
        on_description: Callable[[StreamDescription], None],
        on_frame: Callable[[], None] = lambda: None,
    ) -> None:
        self.stream = stream
        self._on_description = on_description
        self._on_frame = on_frame
        self.link = LinkClient(
            stream,
            lambda: locate(stream),
            on_description=self._described,
            on_frame=self._frame,
            on_sound=self._sound,
            on_down=self._down,
        )
        self.forwarder = Forwarder(fanout, self.link.request_keyframe, self._demand_changed)
        self._epoch = 0
        self._audiences: dict[int, dict[int, int]] = {}
        self._viewers: Mapping[int, int] = {}

    def start(self) -> None:
        self.link.start()

    async def close(self) -> None:
        await self.link.close()

    async def description(self, timeout: float) -> StreamDescription:
        """The stream's description; StreamNotLiveError when it does not come in `timeout` seconds."""
        try:
            return await self.link.ready(timeout)
        except LinkError:
            raise StreamNotLiveError(f"The stream {self.stream!r} has no live source; try again in a moment.") from None

    @property
    def audience(self) -> Histogram:
        """What the paths of the viewers here carry."""
        return merged(self._audiences.values())

    def tell_audience(self, estimates: Mapping[int, list[float]]) -> None:
        """What the paths of the viewers of each rung carry, in bit/s: the broadcaster's ladder follows."""
        self._audiences = {rung: histogram(found) for rung, found in estimates.items()}
        self._say()

    def _say(self) -> None:
        self.link.demand(
            {
                rung: RungDemand(viewers=count, audience=self._audiences.get(rung, {}))
                for rung, count in self._viewers.items()
            },
            self.forwarder.listeners,
        )

    def _demand_changed(self, viewers: Mapping[int, int]) -> None:
        self._viewers = viewers
        self._say()

    def _described(self, description: StreamDescription) -> None:
        if description.epoch != self._epoch:
            self._epoch = description.epoch
            self._audiences.clear()
        self.forwarder.describe(description)
        self._on_description(description)

    def _frame(self, frame: EncodedFrame) -> None:
        self.forwarder.frame(frame)
        self._on_frame()

    def _sound(self, sound: EncodedSound) -> None:
        self.forwarder.sound(sound)
        self._on_frame()

    def _down(self) -> None:
        log.info("the frame link of %s is down", self.stream)


class Feeds:
    """All feeds of a worker: opened for the first viewer of a stream, closed some seconds after the last."""

    def __init__(
        self,
        locate: Locate,
        fanout: Fanout,
        *,
        on_description: Callable[[StreamDescription], None],
        on_frame: Callable[[], None] = lambda: None,
        settings: FeedSettings | None = None,
    ) -> None:
        self._locate = locate
        self._fanout = fanout
        self._on_description = on_description
        self._on_frame = on_frame
        self._settings = settings or FeedSettings()
        self._feeds: dict[str, Feed] = {}
        self._users: dict[str, int] = {}
        self._closing: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def use(self, stream: str) -> tuple[Feed, StreamDescription]:
        """The feed of `stream`, counted as used until `release`; StreamNotLiveError when there is none."""
        feed = self._feeds.get(stream)
        if feed is None:
            feed = self._feeds[stream] = Feed(
                stream, self._locate, self._fanout, on_description=self._on_description, on_frame=self._on_frame
            )
            feed.start()
        self._users[stream] = self._users.get(stream, 0) + 1
        if timer := self._closing.pop(stream, None):
            timer.cancel()
        try:
            return feed, await feed.description(self._settings.ready_timeout)
        except BaseException:
            self.release(stream)
            raise

    def release(self, stream: str) -> None:
        self._users[stream] -= 1
        if self._users[stream] == 0:
            loop = asyncio.get_running_loop()
            self._closing[stream] = loop.call_later(self._settings.linger, self._forget, stream)

    def running(self) -> list[Feed]:
        return list(self._feeds.values())

    def _forget(self, stream: str) -> None:
        self._closing.pop(stream, None)
        self._users.pop(stream, None)
        task = asyncio.get_running_loop().create_task(self._feeds.pop(stream).close())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for timer in self._closing.values():
            timer.cancel()
        await asyncio.gather(*(feed.close() for feed in self._feeds.values()), *self._tasks)
        self._feeds.clear()
