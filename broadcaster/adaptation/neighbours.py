"""Neighbours: viewers who may share a line, and what it carries where it is that line that is narrow."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from broadcaster.adaptation.attempts import Attempts

_Viewer = TypeVar("_Viewer", bound=Hashable)


@dataclass(frozen=True, slots=True)
class NeighbourSettings:
    """A line is shared where at the same moment at least `together` of the viewers behind an address see a queue of
    `queue` seconds: behind a carrier's address many have paths of their own, whose queues come and go apart. It counts
    as shared for `memory` seconds after that, twice as long each time that it is found to be after all, up to
    `longest_memory`. Nobody then gets more than `ahead` levels above the `lowest` share of
    the viewers have had lately (`lasting` seconds), and a `climbing` share of them at a time, those with least before
    the others, may try for more, for `turn` seconds. `least` viewers make neighbours.
    """

    together: float = 0.6
    queue: float = 0.03
    memory: float = 60.0
    longest_memory: float = 480.0
    ahead: int = 1
    lowest: float = 0.02
    lasting: float = 6.0
    climbing: float = 0.2
    turn: float = 3.0
    least: int = 3


NO_CAP = 1 << 16
"""More places than any ladder has."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one viewer may do on a line that is shared. `cap` is the place (0 is the lowest level) that it should not
    exceed; while it `waits` it is others' turn to try for more, and while it is `spared` others give way first: who has
    more. `burdened`: what it sees is of the doing of another, who tries for more. `crowded`: the others see congestion,
    so that its own probe is too much. Places from `closed` on were found too much for the line, and where that has
    `failed` before, a probe should last."""

    cap: int = NO_CAP
    waits: bool = False
    spared: bool = False
    burdened: bool = False
    crowded: bool = False
    closed: int | None = None
    failed: bool = False

    @property
    def alone(self) -> bool:
        """Whether the line is not known to be shared."""
        return self.cap == NO_CAP


_FREE, _WAITING = Share(), Share(waits=True)


class Neighbours(Generic[_Viewer]):
    """The viewers who may share a line. Pure."""

    def __init__(self, settings: NeighbourSettings | None = None) -> None:
        self._settings = settings or NeighbourSettings()
        self._shared_at = -math.inf
        self._memory = self._settings.memory
        self._places: dict[_Viewer, list[tuple[float, int]]] = {}
        self._turns: dict[_Viewer, float] = {}
        self._queued: set[_Viewer] = set()
        self._count = 0
        self._shares: dict[_Viewer, Share] = {}
        self._attempts: Attempts[_Viewer] = Attempts()

    def see(
        self,
        now: float,
        viewer: _Viewer,
        *,
        place: int,
        aim: int | None,
        queue: float,
        congested: bool,
        capacity: float | None,
    ) -> None:
        """Take what became of one viewer in an update: the place of its level, the place that it probes for, and what
        its path shows."""
        if self._count < self._settings.least:
            return
        (self._queued.add if queue >= self._settings.queue else self._queued.discard)(viewer)
        self._shared(now, len(self._queued))
        self._attempts.see(now, viewer, place=place, aim=aim, congested=congested, capacity=capacity)

    def relevel(self) -> None:
        """The ladder has changed: places are others than they were."""
        self._places.clear()
        # Until the next look nobody goes up, for all would do so at once.
        self._shares = dict.fromkeys(self._shares, Share(NO_CAP - 1, waits=True))
        self._attempts.relevel()

    def share(self, now: float, viewer: _Viewer, place: int) -> Share | None:
        """What one viewer may do at this moment; to be asked before each of its updates.

        As long as nobody knows whether the line is shared, only so many probe at a time: all at once would fill it.
        """
        settings, attempts = self._settings, self._attempts
        if self._count < settings.least:
            return None
        known = self._shared_at > -math.inf
        waits = attempts.probing(now, viewer) >= (1 if known else math.ceil(settings.climbing * self._count))
        if now - self._shared_at > self._memory:
            return _WAITING if waits else _FREE
        base = self._shares.get(viewer, _FREE)
        return Share(
            base.cap,
            waits=base.waits or attempts.trying(now, viewer) >= math.ceil(settings.climbing * self._count),
            spared=base.spared,
            burdened=attempts.burden(now, viewer, place),
            crowded=attempts.crowded(now, viewer),
            closed=attempts.closed(now),
            failed=attempts.failed(now),
        )

    def compare(self, now: float, viewers: Mapping[_Viewer, tuple[int, float]]) -> None:
        """Look at all of them, once a second.

        `viewers` maps each to the place of its level and the seconds of queue in its path.
        """
        settings = self._settings
        if len(viewers) < self._count:
            self._attempts.reopen()
        self._count = len(viewers)
        self._attempts.keep(now, {viewer: place for viewer, (place, _) in viewers.items()})
        self._queued.intersection_update(viewers)
        self._shares = {}
        if len(viewers) < settings.least:
            return
        if not self._shared(now, sum(queue >= settings.queue for _, queue in viewers.values())):
            return
        lasting = sorted(self._lasting(now, viewers))
        cap = lasting[int(settings.lowest * len(lasting))] + settings.ahead
        climbers = self._climbers(now, viewers, cap)
        givers = self._givers(viewers, climbers)
        self._shares = {
            viewer: Share(cap, waits=viewer not in climbers, spared=viewer not in givers) for viewer in viewers
        }

    def _shared(self, now: float, queued: int) -> bool:
        """Whether the line is shared, of whose viewers `queued` see a queue at this moment."""
        settings, since = self._settings, now - self._shared_at
        if queued >= settings.together * self._count:
            if self._memory < since < math.inf:
                self._memory = min(2.0 * self._memory, settings.longest_memory)
            self._shared_at = now
        return now - self._shared_at <= self._memory

    def _givers(self, viewers: Mapping[_Viewer, tuple[int, float]], climbers: set[_Viewer]) -> set[_Viewer]:
        """Who gives way first: of those who have most, who came there last, or tries for more."""

        def order(viewer: _Viewer) -> tuple[int, float, bool]:
            return viewers[viewer][0], self._attempts.raised_at(viewer), viewer in climbers

        count = math.ceil(self._settings.climbing * len(viewers))
        return set(sorted(viewers, key=order, reverse=True)[:count])

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
