"""SharedSource: one input, one thread, any number of readers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import av

from broadcaster.errors import SourceError
from broadcaster.source.picture import Picture, SourceStatus
from broadcaster.source.sound import Samples, Sound

_log = logging.getLogger(__name__)

Sink = Callable[[Picture], None]
SoundSink = Callable[[Sound], None]

_SMALLEST_STEP = 0.001
"""Seconds between the capture times of two pictures at least, so that their RTP timestamps differ."""

_CLOSE_PATIENCE = 5.0
"""Seconds that close() waits for the thread."""


class Outlet(Protocol):
    """What a feed is given to deliver to."""

    stopped: threading.Event

    @property
    def next_index(self) -> int:
        """The index of the next picture."""

    def publish(self, frame: av.VideoFrame, captured: float) -> None:
        """Hand `frame`, captured at the wall time `captured`, to every reader."""

    def publish_sound(self, samples: Samples, captured: float) -> None:
        """Hand a piece of sound, whose first sample was captured at the wall time `captured`, to every listener. To be
        called from one thread, which may be another one than that of the pictures."""

    def report(self, *, live: bool, detail: str = "", input_size: tuple[int, int] | None = None) -> None:
        """Say what is being delivered; nothing happens when nothing changed."""


class Feed(Protocol):
    """Makes the pictures of a source."""

    def run(self, outlet: Outlet) -> None:
        """Deliver in real time until `outlet.stopped` is set. Runs in the source's thread, again after each start."""


class _Run:
    """One run of the thread, from the first reader to the last."""

    def __init__(self, source: SharedSource) -> None:
        self.stopped = threading.Event()
        self._source = source

    @property
    def next_index(self) -> int:
        return self._source._next_index

    def publish(self, frame: av.VideoFrame, captured: float) -> None:
        if not self.stopped.is_set():
            self._source._publish(frame, captured)

    def publish_sound(self, samples: Samples, captured: float) -> None:
        if not self.stopped.is_set():
            self._source._publish_sound(Sound(samples, captured))

    def report(self, *, live: bool, detail: str = "", input_size: tuple[int, int] | None = None) -> None:
        if not self.stopped.is_set():
            self._source._report(live, detail, input_size)


class SharedSource:
    """A source that is read once for all its readers, and only while it has any.

    `fps`, `width` and `height` are those of every picture and never change; `live` is False while a slate stands in.
    `sound` says whether it delivers sound.
    """

    def __init__(self, name: str, fps: float, width: int, height: int, feed: Feed, *, sound: bool = False) -> None:
        self.name = name
        self.sound = sound
        self.fps = fps
        self.width = width
        self.height = height
        self._feed = feed
        # Reentrant, because a track that is collected as garbage detaches wherever the collector happens to run.
        self._lock = threading.RLock()
        self._users = 0
        self._closed = False
        self._run: _Run | None = None
        self._thread: threading.Thread | None = None
        self._sinks: tuple[Sink, ...] = ()
        self._sound_sinks: tuple[SoundSink, ...] = ()
        self._callbacks: tuple[Callable[[SourceStatus], None], ...] = ()
        self._status = SourceStatus(True, width, height, width, height)
        self._latest: Picture | None = None
        self._last_captured = float("-inf")
        self._next_index = 0

    @property
    def live(self) -> bool:
        return self._status.live

    @property
    def status(self) -> SourceStatus:
        return self._status

    @property
    def closed(self) -> bool:
        return self._closed

    def attach(self) -> None:
        """Keep the source running. The first reader starts it. Raises SourceError when it was closed."""
        with self._lock:
            if self._closed:
                raise SourceError(f"the source {self.name!r} was closed; open it again")
            self._users += 1
            if self._users == 1:
                self._run = _Run(self)
                arguments = (self._run, self._thread)
                self._thread = threading.Thread(
                    target=self._work, args=arguments, name=f"source-{self.name}", daemon=True
                )
                self._thread.start()

    def detach(self) -> None:
        """Undo one attach(). The last reader stops the source, without waiting for its thread."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if self._users == 0:
                self._stop()

    def latest(self) -> Picture | None:
        """The newest picture, or None while there is none. Never blocks."""
        return self._latest

    def subscribe(self, sink: Sink) -> Callable[[], None]:
        """Attach, and call `sink` in the source's thread with every picture, in order; it must not block.

        Returns the function that ends it, which may be called more than once and from anywhere.
        """
        with self._lock:
            self._sinks = (*self._sinks, sink)
        try:
            self.attach()
        except SourceError:
            self._remove(sink)
            raise
        ended = threading.Event()

        def unsubscribe() -> None:
            if not ended.is_set():
                ended.set()
                self._remove(sink)
                self.detach()

        return unsubscribe

    def hear(self, sink: SoundSink) -> Callable[[], None]:
        """Call `sink` with every piece of sound, in order and in a thread that is not the pictures', for as long as the
        source runs; it must not block. This alone does not keep the source running. Returns the function that ends it.
        """
        with self._lock:
            self._sound_sinks = (*self._sound_sinks, sink)

        def leave() -> None:
            with self._lock:
                self._sound_sinks = tuple(one for one in self._sound_sinks if one is not sink)

        return leave

    def on_change(self, callback: Callable[[SourceStatus], None]) -> None:
        """Call `callback` in the source's thread whenever its status changes: live, slate, or the input's size."""
        with self._lock:
            self._callbacks = (*self._callbacks, callback)

    def close(self) -> None:
        """End it for all readers and wait for its thread."""
        with self._lock:
            self._closed = True
            self._users = 0
            self._sinks = ()
            self._sound_sinks = ()
            self._callbacks = ()
            self._stop()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSE_PATIENCE)

    def _remove(self, sink: Sink) -> None:
        with self._lock:
            sinks = list(self._sinks)
            if sink in sinks:
                sinks.remove(sink)
            self._sinks = tuple(sinks)

    def _stop(self) -> None:
        if self._run is not None:
            self._run.stopped.set()
            self._run = None
        self._latest = None

    def _work(self, run: _Run, previous: threading.Thread | None) -> None:
        if previous is not None:
            previous.join()
        try:
            self._feed.run(run)
        except Exception as error:
            _log.exception("the source %s ended", self.name)
            run.report(live=False, detail=f"the source failed: {error}")

    def _publish(self, frame: av.VideoFrame, captured: float) -> None:
        captured = max(captured, self._last_captured + _SMALLEST_STEP)
        picture = Picture(frame, captured, self._next_index)
        self._last_captured = captured
        self._next_index += 1
        with self._lock:
            if self._users:
                self._latest = picture
        for sink in self._sinks:
            try:
                sink(picture)
            except Exception:
                _log.exception("a reader of the source %s failed", self.name)

    def _publish_sound(self, sound: Sound) -> None:
        for sink in self._sound_sinks:
            try:
                sink(sound)
            except Exception:
                _log.exception("a listener of the source %s failed", self.name)

    def _report(self, live: bool, detail: str, input_size: tuple[int, int] | None) -> None:
        old = self._status
        width, height = input_size or (old.input_width, old.input_height)
        status = replace(old, live=live, detail=detail, input_width=width, input_height=height)
        if status == old:
            return
        self._status = status
        for callback in self._callbacks:
            try:
                callback(status)
            except Exception:
                _log.exception("a reader of the source %s failed", self.name)
