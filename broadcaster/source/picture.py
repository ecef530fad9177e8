"""Picture: one captured image and when it was captured."""

from __future__ import annotations

from dataclasses import dataclass

import av

from broadcaster.clock import WallClock


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


WALL_CLOCK = WallClock.anchored()
"""The one clock of this process: capture times of all its sources compare."""
