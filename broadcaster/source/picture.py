"""Picture: one captured image and when it was captured; the clock that says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import av


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of a source.

    `frame` is yuv420p of even size; it is shared by every reader, so nobody writes to it or sets its attributes.
    `captured` is the wall clock in seconds since 1970, strictly growing within a source; `index` counts from 0.
    """

    frame: av.VideoFrame
    captured: float
    index: int


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What a source delivers: `live` is False while a slate stands in, and `detail` says why in one sentence.

    `width` and `height` are those of every picture. `input_width` and `input_height` are those of the input, which
    may change while the stream runs: its pictures are then fitted into the described size.
    """

    live: bool
    width: int
    height: int
    input_width: int
    input_height: int
    detail: str = ""


class WallClock:
    """The wall clock as it was at the start plus monotonic time: steps of the system's clock do not reach it."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def now(self) -> float:
        """Seconds since 1970."""
        return self._offset + self._monotonic()

    def at(self, monotonic: float) -> float:
        """The wall time of the monotonic time `monotonic`, in seconds since 1970."""
        return self._offset + monotonic


WALL_CLOCK = WallClock()
"""The one clock of this process: capture times of all its sources compare."""
