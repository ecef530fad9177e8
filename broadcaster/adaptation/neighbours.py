"""Neighbours: viewers behind one address, who share what its line carries, where it is the line that is narrow."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

_Viewer = TypeVar("_Viewer", bound=Hashable)


@dataclass(frozen=True, slots=True)
class NeighbourSettings:
    """A line is shared where at the same moment at least `together` of the viewers behind an address see a queue of
    `queue` seconds: behind a carrier's address many have paths of their own, whose queues come and go apart. It counts
    as shared for `memory` seconds after that. Nobody then gets more than `ahead` levels above the `lowest` share of
    the viewers have had lately (`lasting` seconds), and a `climbing` share of them at a time, those with least before
    the others, may try for more, for `turn` seconds. `least` viewers make neighbours.
    """

    together: float = 0.6
    queue: float = 0.03
    memory: float = 30.0
    ahead: int = 1
    lowest: float = 0.02
    lasting: float = 6.0
    climbing: float = 0.2
    turn: float = 3.0
    least: int = 3


@dataclass(frozen=True, slots=True)
class Share:
    """What one viewer may do on a line that is shared. `cap` is the place (0 is the lowest level) that it should not
    exceed; while it `waits` it is others' turn to try for more, and while it is `spared` others give way first: who has
    more, or tries for more."""

    cap: int
    waits: bool = False
    spared: bool = False


class Neighbours(Generic[_Viewer]):
    """The viewers behind one address. Pure."""

    def __init__(self, settings: NeighbourSettings | None = None) -> None:
        self._settings = settings or NeighbourSettings()
        self._shared_at = -math.inf
        self._places: dict[_Viewer, list[tuple[float, int]]] = {}
        self._turns: dict[_Viewer, float] = {}

    def shares(self, now: float, viewers: Mapping[_Viewer, tuple[int, float]]) -> dict[_Viewer, Share]:
        """Of each; none where each has a path of its own.

        `viewers` maps each to the place of its level and the seconds of queue in its path.
        """
        settings = self._settings
        if len(viewers) < settings.least:
            return {}
        queued = sum(queue >= settings.queue for _, queue in viewers.values())
        if queued >= settings.together * len(viewers):
            self._shared_at = now
        if now - self._shared_at > settings.memory:
            return {}
        lasting = sorted(self._lasting(now, viewers))
        cap = lasting[int(settings.lowest * len(lasting))] + settings.ahead
        places = [place for place, _ in viewers.values()]
        highest, even = max(places), min(places) == max(places)
        climbers = self._climbers(now, viewers, cap)
        return {
            viewer: Share(
                cap,
                waits=viewer not in climbers,
                spared=place < highest or (even and len(climbers) > 0 and viewer not in climbers),
            )
            for viewer, (place, _) in viewers.items()
        }

    def _lasting(self, now: float, viewers: Mapping[_Viewer, tuple[int, float]]) -> Iterator[int]:
        """The best place of each viewer lately: who is low for a moment needs nobody's help."""
        settings = self._settings
        self._places = {viewer: self._places.get(viewer, []) for viewer in viewers}
        for viewer, (place, _) in viewers.items():
            recent = [(at, one) for at, one in self._places[viewer] if now - at <= settings.lasting]
            self._places[viewer] = recent = [*recent, (now, place)]
            yield max(one for _, one in recent)

    def _climbers(self, now: float, viewers: Mapping[_Viewer, tuple[int, float]], cap: int) -> set[_Viewer]:
        settings = self._settings
        turns = {viewer: since for viewer, since in self._turns.items() if viewer in viewers}
        climbers = {viewer for viewer, since in turns.items() if now - since < settings.turn}
        waiting = [viewer for viewer, (place, _) in viewers.items() if place < cap and viewer not in climbers]
        waiting.sort(key=lambda viewer: (viewers[viewer][0], turns.get(viewer, -math.inf)))
        for viewer in waiting[: max(0, math.ceil(settings.climbing * len(viewers)) - len(climbers))]:
            turns[viewer] = now
            climbers.add(viewer)
        self._turns = turns
        return climbers
