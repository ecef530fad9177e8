"""Keyframes on demand. Pure; the time is passed in.

A keyframe costs every viewer of a rung, so requests are merged and the forced ones keep a distance: a viewer that
asks without end gets two a second and no more.
"""

from __future__ import annotations

from dataclasses import dataclass

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class KeyframeConfig:
    """`interval`: the shortest distance of two forced keyframes, in seconds."""

    interval: float = 0.5


class KeyframeGate:
    """Decides for each picture of one rung whether it becomes a keyframe."""

    def __init__(self, config: KeyframeConfig | None = None) -> None:
        self._interval = (config or KeyframeConfig()).interval
        self._wanted = False
        self._last = _NEVER
        self.requests = 0

    def request(self) -> None:
        """Somebody needs a keyframe; until one comes, further requests change nothing."""
        self._wanted = True
        self.requests += 1

    def due(self, now: float) -> bool:
        """Whether the picture at `now` (seconds) has to be a keyframe."""
        return self._wanted and now - self._last >= self._interval

    def made(self, now: float) -> None:
        """A keyframe was encoded at `now`, for whatever reason: it answers all requests so far."""
        self._wanted = False
        self._last = now
