"""Neighbours: viewers behind one address, who share what its line carries, where it is the line that is narrow."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True, slots=True)
class NeighbourSettings:
    """A line is shared where at the same moment at least `together` of the viewers behind an address see a queue of
    `queue` seconds: behind a carrier's address many have paths of their own, whose queues come and go apart. It counts
    as shared for `memory` seconds after that. Nobody then gets more than `ahead` levels above the `lowest` share of
    the viewers have had lately (`lasting` seconds). `least` viewers make neighbours.
    """

    together: float = 0.6
    queue: float = 0.03
    memory: float = 30.0
    ahead: int = 1
    lowest: float = 0.02
    lasting: float = 6.0
    least: int = 3


_Viewer = TypeVar("_Viewer", bound=Hashable)


class Neighbours:
    """The viewers behind one address. Pure."""

    def __init__(self, settings: NeighbourSettings | None = None) -> None:
        self._settings = settings or NeighbourSettings()
        self._shared_at = -math.inf
        self._places: dict[Hashable, list[tuple[float, int]]] = {}

    def cap(self, now: float, viewers: Mapping[_Viewer, tuple[int, float]]) -> int | None:
        """The place (0 is the lowest level) that nobody should exceed, None: no limit.

        `viewers` maps each to the place of its level and the seconds of queue in its path.
        """
        settings = self._settings
        if len(viewers) < settings.least:
            return None
        queued = sum(queue >= settings.queue for _, queue in viewers.values())
        if queued >= settings.together * len(viewers):
            self._shared_at = now
        if now - self._shared_at > settings.memory:
            return None
        lasting = sorted(self._lasting(now, viewers))
        return lasting[int(settings.lowest * len(lasting))] + settings.ahead

    def _lasting(self, now: float, viewers: Mapping[_Viewer, tuple[int, float]]) -> Iterator[int]:
        """The best place of each viewer lately: who is low for a moment needs nobody's help."""
        settings = self._settings
        self._places = {viewer: self._places.get(viewer, []) for viewer in viewers}
        for viewer, (place, _) in viewers.items():
            recent = [(at, one) for at, one in self._places[viewer] if now - at <= settings.lasting]
            self._places[viewer] = recent = [*recent, (now, place)]
            yield max(one for _, one in recent)
