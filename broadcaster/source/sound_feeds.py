"""Sound feeds: the threads that deliver a source's sound in real time, beside the loop that delivers its pictures.

They share nothing with that loop but the clock: neither ever waits for the other.
"""

from __future__ import annotations

import math
import threading
import time

from broadcaster.source.picture import WALL_CLOCK
from broadcaster.source.shared import Outlet
from broadcaster.source.sound import PIECE
from broadcaster.source.soundtrack import Soundtrack
from broadcaster.source.tone import TestTone
from broadcaster.stream import SOUND_CLOCK

_STOP_CHECK = 0.2
"""Seconds between two looks at whether to stop while there is no sound."""

_RECHECK = 0.1
"""Seconds between two looks at when a piece is due: the pictures may have moved on."""

_TOO_LATE = 1.0
"""Seconds after which a piece is of no use any more."""


class ToneFeed(threading.Thread):
    """Delivers the test tone until the outlet is stopped."""

    def __init__(self, tone: TestTone, outlet: Outlet) -> None:
        super().__init__(name="source-tone", daemon=True)
        self._tone = tone
        self._outlet = outlet

    def run(self) -> None:
        first = self._next()
        while True:
            wait = first / SOUND_CLOCK - WALL_CLOCK.now()
            if self._outlet.stopped.wait(max(0.0, wait)):
                return
            if wait < -_TOO_LATE:
                first = self._next()
            self._outlet.publish_sound(self._tone.draw(first), first / SOUND_CLOCK)
            first += PIECE

    def _next(self) -> int:
        """The number of the first sample of the piece that begins next."""
        return math.ceil(WALL_CLOCK.now() * SOUND_CLOCK / PIECE) * PIECE


class SoundtrackFeed(threading.Thread):
    """Delivers a soundtrack in step with the pictures, of which it is told by `follow`."""

    def __init__(self, track: Soundtrack, outlet: Outlet) -> None:
        super().__init__(name="source-sound", daemon=True)
        self._track = track
        self._outlet = outlet
        self._ended = threading.Event()
        self._shift: float | None = None

    def follow(self, shift: float) -> None:
        """What has the media time `t` is to be heard at the monotonic time `shift + t`, in seconds."""
        self._shift = shift

    def stop(self) -> None:
        self._ended.set()

    def run(self) -> None:
        while not self._ended.is_set():
            piece = self._track.take(_STOP_CHECK)
            if piece is None:
                continue
            due = self._wait(piece[0])
            if due is not None:
                self._outlet.publish_sound(piece[1], WALL_CLOCK.wall(due))

    def _wait(self, media_time: float) -> float | None:
        """Wait until the piece is due, and return when it was; None when it is too late for it, or over."""
        while True:
            shift, wait = self._shift, _RECHECK
            if shift is not None:
                wait = shift + media_time - time.monotonic()
                if wait <= 0:
                    return shift + media_time if wait > -_TOO_LATE else None
            if self._ended.wait(min(wait, _RECHECK)):
                return None
