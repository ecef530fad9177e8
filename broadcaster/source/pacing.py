"""Pacing: when each picture is due. Pure; the time is passed in.

The three timelines keep two promises. No drift: deadlines are computed from the start, never from the last picture.
No burst: what a stall delayed is dropped, and pictures that catch up keep their distance.
"""

from __future__ import annotations

from dataclasses import dataclass

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class PacingConfig:
    """`max_fps`: pictures beyond this rate are dropped. `give_up`: seconds of lateness after which a recording goes
    on from where it is instead of catching up. `jump`: seconds ahead that count as a break in its timestamps.
    `closest`: the shortest distance of pictures that catch up, as a share of their interval. `backlog`: pictures of
    a live input that may wait for their turn. `steady`: the weight of a live picture in how far its input's times lie
    from real time, and `early` the seconds by which one may come too early before that is believed at once."""

    max_fps: float = 60.0
    give_up: float = 0.5
    jump: float = 30.0
    closest: float = 0.5
    backlog: int = 3
    steady: float = 0.02
    early: float = 0.1


class Metronome:
    """Ticks of a fixed rate, for pictures that are drawn."""

    def __init__(self, fps: float, start: float) -> None:
        self._fps = fps
        self._start = start
        self._tick = 0

    def due(self, now: float) -> float:
        """The time of the next tick, in the seconds of `now`; ticks that were missed by a whole interval are gone."""
        self._tick = max(self._tick, int((now - self._start) * self._fps))
        due = self._start + self._tick / self._fps
        self._tick += 1
        return due


class Timeline:
    """Real times for the presentation times of a recording."""

    def __init__(self, fps: float, config: PacingConfig | None = None) -> None:
        self._config = config or PacingConfig()
        self._interval = 1.0 / fps
        self._offset: float | None = None
        self._last_media = _NEVER
        self._last_shown = _NEVER
        self._next_slot = _NEVER

    @property
    def shift(self) -> float | None:
        """Real time minus the recording's, in seconds; None before the first picture."""
        return self._offset

    def due(self, media_time: float, now: float) -> float | None:
        """When to show the picture of `media_time` (seconds of the recording): `now` or later; None drops it."""
        config = self._config
        if self._beyond_rate(media_time):
            return None
        if self._offset is None or not -config.jump < now - (self._offset + media_time) <= config.give_up:
            self._offset = now - media_time
            self._last_media = _NEVER
        planned = self._offset + media_time
        if now - planned > self._interval and now < self._last_shown + config.closest * self._interval:
            return None
        distance = config.closest * min(self._interval, max(media_time - self._last_media, 0.0))
        shown = max(planned, now, self._last_shown + distance)
        self._last_media, self._last_shown = media_time, shown
        return shown

    def _beyond_rate(self, media_time: float) -> bool:
        slot = 1.0 / self._config.max_fps
        if self._next_slot == _NEVER or media_time < self._next_slot - 1.0:
            self._next_slot = media_time
        if media_time < self._next_slot - slot / 100:
            return True
        self._next_slot = max(self._next_slot, media_time - slot) + slot
        return False


class LiveTimeline:
    """Real times for pictures that are shown as they come: a camera, a stream from elsewhere."""

    def __init__(self, fps: float, config: PacingConfig | None = None) -> None:
        config = config or PacingConfig()
        self._distance = max(config.closest / fps, 0.9 / config.max_fps)
        self._patience = (config.backlog + 0.5) * self._distance
        self._config = config
        self._last_shown = _NEVER
        self.shift: float | None = None
        """Real time minus the input's, in seconds, as the pictures come on average; None before the first."""

    def due(self, now: float, media_time: float = 0.0) -> float | None:
        """When to show a picture of `media_time` (seconds of the input) that came at `now`; None drops it, because too
        many are waiting before it."""
        shown = max(now, self._last_shown + self._distance)
        if shown - now > self._patience:
            return None
        self._last_shown = shown
        self._follow(shown - media_time)
        return shown

    def _follow(self, shift: float) -> None:
        """What the network holds up comes late and not early, so the average may rise slowly and fall at once."""
        config, before = self._config, self.shift
        if before is None or not before - config.early <= shift <= before + config.jump:
            self.shift = shift
        else:
            self.shift = before + config.steady * (shift - before)
