"""Pauses: when a path that carries not even the lowest level is left alone, and for how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PauseSettings:
    """Times in seconds. Congestion at the lowest level for `after` pauses the viewer, for `first`; doubled each time
    that less than `early` has passed since the last change, up to `longest`."""

    after: float = 2.0
    first: float = 3.0
    longest: float = 30.0
    early: float = 30.0


class Pauses:
    """Pure."""

    def __init__(self, settings: PauseSettings) -> None:
        self._settings = settings
        self._length = settings.first

    def due(self, stuck: float) -> bool:
        """Whether congestion of so many seconds is enough."""
        return stuck >= self._settings.after

    def begin(self, since_change: float) -> None:
        settings = self._settings
        again = since_change < settings.early
        self._length = min(2.0 * self._length, settings.longest) if again else settings.first

    def over(self, since_change: float) -> bool:
        """Whether it is time to try the lowest level."""
        return since_change >= self._length
