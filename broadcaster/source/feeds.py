"""Feeds: the loops that make a source's pictures in real time, one for the test pattern and one for media."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass

import av

from broadcaster.source.fit import Fitter, upright_size
from broadcaster.source.media import Decoded, Ended, Location, MediaConfig, Reader
from broadcaster.source.pacing import LiveTimeline, Metronome, PacingConfig, Timeline
from broadcaster.source.pattern import TestPattern
from broadcaster.source.picture import WALL_CLOCK
from broadcaster.source.shared import Outlet
from broadcaster.source.slate import Slate
from broadcaster.source.sound_feeds import SoundtrackFeed, ToneFeed
from broadcaster.source.tone import TestTone

_log = logging.getLogger(__name__)

_STOP_CHECK = 0.2
"""Seconds between two looks at whether to stop while the input is silent."""


@dataclass(frozen=True, slots=True)
class ReturnConfig:
    """`stall_after`: seconds without a picture before the slate. `first_delay`, `longest_delay`: seconds between
    attempts to open a lost input, doubling, each shortened by up to half at random. `steady_after`: seconds that an
    input must play before the next loss starts at `first_delay` again. `repeat_after`: seconds after which a picture
    that stands still is delivered again, so that nobody who joins waits for the next one."""

    stall_after: float = 2.0
    first_delay: float = 0.5
    longest_delay: float = 15.0
    steady_after: float = 5.0
    repeat_after: float = 0.5


class Backoff:
    """Delays between attempts, in seconds. Pure; the random numbers are passed in."""

    def __init__(self, config: ReturnConfig, chance: random.Random) -> None:
        self._config = config
        self._chance = chance
        self._attempts = 0

    def next(self) -> float:
        delay = min(self._config.longest_delay, self._config.first_delay * 2.0 ** min(self._attempts, 30))
        self._attempts += 1
        return delay * self._chance.uniform(0.5, 1.0)

    def reset(self) -> None:
        self._attempts = 0


class PatternFeed:
    """Draws the test pattern, and sounds the test tone where there is one."""

    def __init__(self, pattern: TestPattern, fps: float, tone: TestTone | None = None) -> None:
        self._pattern = pattern
        self._fps = fps
        self._tone = tone

    def run(self, outlet: Outlet) -> None:
        if self._tone is not None:
            ToneFeed(self._tone, outlet).start()
        metronome = Metronome(self._fps, time.monotonic())
        while True:
            due = metronome.due(time.monotonic())
            if outlet.stopped.wait(max(0.0, due - time.monotonic())):
                return
            captured = WALL_CLOCK.wall(due)
            outlet.publish(self._pattern.draw(outlet.next_index, captured), captured)


class MediaFeed:
    """Plays an input at its own speed; a slate stands in while it is away, and silence for its sound."""

    def __init__(
        self,
        name: str,
        location: Location,
        width: int,
        height: int,
        fps: float,
        *,
        media: MediaConfig,
        pacing: PacingConfig,
        returning: ReturnConfig,
        sound: bool = False,
    ) -> None:
        self._sound = sound
        self._location = location
        self._fps = fps
        self._media = media
        self._pacing = pacing
        self._returning = returning
        self._fitter = Fitter(width, height)
        self._slate = Slate(name, width, height)
        self._shown: av.VideoFrame | None = None

    def run(self, outlet: Outlet) -> None:
        backoff = Backoff(self._returning, random.Random())
        while not outlet.stopped.is_set():
            reader = Reader(self._location, self._media, sound=self._sound)
            reader.start()
            heard = SoundtrackFeed(reader.soundtrack, outlet)
            if self._sound:
                heard.start()
            try:
                reason = self._play(reader, heard, outlet, backoff)
            except Exception as error:
                # An input may change to pictures that cannot be fitted; that is its end, not the stream's.
                _log.exception("an input's pictures could not be shown")
                reason = f"its pictures cannot be shown: {error}"
            finally:
                heard.stop()
                reader.stop()
            if not outlet.stopped.is_set():
                outlet.report(live=False, detail=reason)
                self._show_slate(outlet, time.monotonic() + backoff.next())
        reader.join(1.0)

    def _play(self, reader: Reader, heard: SoundtrackFeed, outlet: Outlet, backoff: Backoff) -> str:
        """Show what `reader` decodes until it ends; return why it did."""
        recorded, live = Timeline(self._fps, self._pacing), LiveTimeline(self._fps, self._pacing)
        now = time.monotonic()
        slate_due = now + self._returning.stall_after
        playing_since: float | None = None
        while not outlet.stopped.is_set():
            item = reader.take(min(_STOP_CHECK, slate_due - now))
            now = time.monotonic()
            if isinstance(item, Ended):
                return item.reason
            if item is None:
                if now >= slate_due:
                    playing_since = None
                    outlet.report(live=False, detail="the input delivers no pictures")
                    outlet.publish(self._slate.draw(WALL_CLOCK.wall(now)), WALL_CLOCK.wall(now))
                    slate_due = max(slate_due, now - 1 / self._fps) + 1 / self._fps
                continue
            due = recorded.due(item.media_time, now) if item.paced else live.due(now, item.media_time)
            if (shift := recorded.shift if item.paced else live.shift) is not None:
                heard.follow(shift)
            if due is not None:
                self._show(item, due, outlet)
                now = time.monotonic()
            playing_since = playing_since or now
            if now - playing_since > self._returning.steady_after:
                backoff.reset()
            slate_due = now + self._returning.stall_after
        return "the source was stopped"

    def _show(self, item: Decoded, due: float, outlet: Outlet) -> None:
        frame = self._fitter.fit(item.frame, item.pixel_aspect)
        while (wait := due - time.monotonic()) > self._returning.repeat_after:
            if outlet.stopped.wait(self._returning.repeat_after):
                return
            if self._shown is not None:
                outlet.publish(self._shown, WALL_CLOCK.now())
        if not outlet.stopped.wait(max(0.0, wait)):
            outlet.report(live=True, input_size=upright_size(item.frame, item.pixel_aspect))
            outlet.publish(frame, WALL_CLOCK.wall(due))
            self._shown = frame

    def _show_slate(self, outlet: Outlet, until: float) -> None:
        metronome = Metronome(self._fps, time.monotonic())
        while (due := metronome.due(time.monotonic())) < until:
            if outlet.stopped.wait(max(0.0, due - time.monotonic())):
                return
            captured = WALL_CLOCK.wall(due)
            outlet.publish(self._slate.draw(captured), captured)
