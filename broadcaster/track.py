"""AdaptiveVideoTrack: one viewer's view of a source that many share."""

from __future__ import annotations

import asyncio
import weakref
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import av
import av.filter
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av.video.frame import PictureType

from broadcaster.errors import ConfigurationError
from broadcaster.selection import FrameSelector
from broadcaster.stream import RTP_CLOCK, StreamDescription

if TYPE_CHECKING:
    from broadcaster.adaptation.levels import Level

MAX_FPS = 240
"""Frames per second that a track can be set to at most."""

_TIME_BASE = Fraction(1, RTP_CLOCK)
_FIRST_PICTURE = 0.02
"""Seconds between two looks at a source that has no picture yet."""
_SLACK = 1.01


class SharedPicture(Protocol):
    """A picture of a shared source: `frame` is yuv420p, and nobody writes to it."""

    @property
    def frame(self) -> av.VideoFrame: ...


class SharedSource(Protocol):
    """A source that many tracks share: the first `attach` starts it, the last `detach` stops it."""

    def attach(self) -> None: ...

    def detach(self) -> None: ...

    def latest(self) -> SharedPicture | None:
        """The newest picture, at once; None before the first one."""


class Pacer:
    """When pictures are due, in the seconds of any clock. Pure.

    Ticks are counted from the last change of the rate, never from the last picture, so nothing drifts. Who comes late
    by a whole interval or more has missed those ticks: the count starts anew, and nothing bursts.
    """

    def __init__(self, fps: float, now: float) -> None:
        self._fps = fps
        self._origin = self._anchor = now
        self._ticks = 0
        self._pts = -1

    @property
    def due(self) -> float:
        """The time of the next picture."""
        return self._at(self._ticks)

    def set_fps(self, fps: float) -> None:
        """The next picture is due one new interval after the last one."""
        if self._ticks:
            self._anchor += (self._ticks - 1) / self._fps
            self._ticks = 1
        self._fps = fps

    def take(self, now: float) -> int:
        """Take the tick that is due; returns its time in ticks of 1/90000 s since the start, which always grows."""
        if now >= self._at(self._ticks + 1):
            self._anchor, self._ticks = now, 0
        self._pts = max(self._pts + 1, round((self.due - self._origin) * RTP_CLOCK))
        self._ticks += 1
        return self._pts

    def _at(self, tick: int) -> float:
        return self._anchor + tick / self._fps


class FrameCopier:
    """Makes frames of their own that share their planes: FFmpeg's null filter costs 8 µs, a copy of 720p 1.3 ms."""

    def __init__(self) -> None:
        self._shape: tuple[int, int, str] | None = None

    def copy(self, frame: av.VideoFrame) -> av.VideoFrame:
        shape = (frame.width, frame.height, frame.format.name)
        if shape != self._shape:
            graph = av.filter.Graph()
            self._entry = graph.add(
                "buffer",
                video_size=f"{shape[0]}x{shape[1]}",
                pix_fmt=shape[2],
                time_base=f"1/{RTP_CLOCK}",
                pixel_aspect="1/1",
            )
            self._exit = graph.add("buffersink")
            self._entry.link_to(self._exit)
            graph.configure()
            self._graph, self._shape = graph, shape
        self._entry.push(frame)
        copy = self._exit.pull()
        assert isinstance(copy, av.VideoFrame)
        copy.pict_type = PictureType.NONE
        return copy


class AdaptiveVideoTrack(MediaStreamTrack):
    """A video track whose frame rate can be changed while it runs.

    On a stock aiortc connection, `recv()` gives the newest picture of the shared `source` (without one: a lively test
    pattern that all tracks of this process share), paced to the frame rate. In a worker, `selector` picks encoded
    frames of a followed stream instead, and the frame rate caps their temporal layers.
    """

    kind = "video"

    def __init__(self, initial_fps: int = 30, *, source: SharedSource | None = None) -> None:
        """`initial_fps`: frames per second, above 0 and at most 240, else ConfigurationError (a ValueError)."""
        super().__init__()
        self._fps = _checked(initial_fps)
        self._source = source
        self._detach: weakref.finalize[..., AdaptiveVideoTrack] | None = None
        self._pacer: Pacer | None = None
        self._copier = FrameCopier()
        self._changed = asyncio.Event()
        self._description: StreamDescription | None = None
        self._level: Level | None = None
        self.selector: FrameSelector | None = None
        """What picks encoded frames; None until `follow` was called."""

    @property
    def fps(self) -> float:
        """The current frame rate."""
        return self._fps

    def set_fps(self, fps: int | float) -> None:
        """Change the frame rate, at once: also a `recv()` that is waiting for a slower tick returns at the new time.

        More than the source has repeats its newest picture. Raises ConfigurationError (a ValueError) unless `fps` is
        a number above 0 and at most 240.
        """
        self._fps = _checked(fps)
        if self._pacer is not None:
            self._pacer.set_fps(self._fps)
        self._changed.set()
        self._aim()

    async def recv(self) -> av.VideoFrame:
        """The next picture, when it is due: yuv420p, an object of its own (its planes are shared: do not write them).

        `pts` counts 1/90000 s since the first picture. Raises aiortc's MediaStreamError after `stop()`.
        """
        loop = asyncio.get_running_loop()
        if self.readyState != "live":
            raise MediaStreamError
        source = self._attached()
        while True:
            picture = source.latest()
            if self._pacer is None:
                wait = 0.0 if picture is not None else _FIRST_PICTURE
            else:
                wait = self._pacer.due - loop.time()
            if wait > 0.0:
                await self._sleep(wait)
                if self.readyState != "live":
                    raise MediaStreamError
                continue
            now = loop.time()
            if self._pacer is None:
                self._pacer = Pacer(self._fps, now)
            pts = self._pacer.take(now)
            if picture is not None:
                frame = self._copier.copy(picture.frame)
                frame.pts = pts
                frame.time_base = _TIME_BASE
                return frame

    def stop(self) -> None:
        """End the track: a waiting `recv()` ends too, and the source is let go."""
        if self._detach is not None:
            self._detach()
        self._changed.set()
        super().stop()

    def follow(self, description: StreamDescription, level: Level, *, entry: int | None = None) -> None:
        """Pick frames of the stream `description`, at `level` or what the frame rate leaves of it.

        Call it again when the description changes: `selector` stays the same object, and goes on without a keyframe
        where only rates and bitrates have changed. `entry` is the rung that the first pictures may come from, until
        there is a keyframe of the level's own rung.
        """
        before, self._description, self._level = self._description, description, level
        target = self._affordable(level)
        if self.selector is None or before is None:
            self.selector = FrameSelector(description.levels(), target, entry)
        else:
            self.selector.relevel(description.levels(), target, restart=not description.continues(before))

    def set_level(self, level: Level | None) -> None:
        """Go to `level` of the followed stream, or what the frame rate leaves of it; None takes no frames."""
        self._level = level
        if level is not None:
            self._aim()
        elif self.selector is not None:
            self.selector.pause()

    def _aim(self) -> None:
        if self.selector is not None and self._level is not None:
            target = self._affordable(self._level)
            if target != self.selector.target or self.selector.paused:
                self.selector.aim(target)

    def _affordable(self, level: Level) -> Level:
        """The highest layer of the level's rung that neither exceeds the level nor the frame rate, else its lowest."""
        assert self._description is not None
        layers = [other for other in self._description.levels() if other.rung == level.rung]
        below = [other for other in layers if other.layer <= level.layer and other.fps <= self._fps * _SLACK]
        return max(below, default=min(layers, key=_layer, default=level), key=_layer)

    def _attached(self) -> SharedSource:
        if self._source is None:
            from broadcaster.source import default_source

            self._source = default_source()
        if self._detach is None:
            self._source.attach()
            self._detach = weakref.finalize(self, self._source.detach)
        return self._source

    async def _sleep(self, seconds: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass


def _layer(level: Level) -> int:
    return level.layer


def _checked(fps: object) -> float:
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= MAX_FPS:
        raise ConfigurationError(f"{fps!r} is not a frame rate: use a number above 0 and at most {MAX_FPS}")
    return fps
