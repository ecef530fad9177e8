"""Attempts: who of the viewers of one line tries for more, and what that teaches all of them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

_Viewer = TypeVar("_Viewer", bound=Hashable)


@dataclass(frozen=True, slots=True)
class AttemptSettings:
    """Times in seconds.

    What a probe does to the line is seen by others up to `answer` after it, what a step up does for `trial`; and when
    that is taken back, it takes `relief` until the others see less of a queue. An attempt is too much where a `crowd`
    share of the others see congestion meanwhile, one at least; who does tells of it at least each `fresh`. A step up
    that is taken back within `falls` has failed. After a failure nobody tries for as much for `pause`, doubled with
    each up to `longest_pause`, and forgiven after `forgiveness` without any. Where bursts come `wider` times as fast as
    then, the line has changed and the pause is over.
    """

    answer: float = 0.6
    trial: float = 2.5
    relief: float = 1.0
    crowd: float = 0.3
    fresh: float = 0.3
    falls: float = 30.0
    pause: float = 6.0
    longest_pause: float = 96.0
    forgiveness: float = 300.0
    wider: float = 1.3


@dataclass(slots=True)
class _Seen:
    place: int
    aim: int | None = None
    aimed_at: float = -math.inf
    raised_at: float = -math.inf
    raised_from: int = 0
    raised_to: int = 0
    fell_at: float = -math.inf


class Attempts(Generic[_Viewer]):
    """Of the viewers behind one line. Pure; `now` is seconds of a clock that does not go back."""

    def __init__(self, settings: AttemptSettings | None = None) -> None:
        self._settings = settings or AttemptSettings()
        self._seen: dict[_Viewer, _Seen] = {}
        self._recent: dict[_Viewer, float] = {}
        """Until when at most somebody's attempt shows."""
        self._aiming: dict[_Viewer, float] = {}
        """When they probed last, the one whose last time is longest ago first."""
        self._congested: dict[_Viewer, float] = {}
        """When they said so last."""
        self._closed: int | None = None
        """The place from which on nobody tries."""
        self._closed_until = -math.inf
        self._pause = self._settings.pause
        self._width: float | None = None

    def see(
        self, now: float, viewer: _Viewer, *, place: int, aim: int | None, congested: bool, capacity: float | None
    ) -> None:
        """Take what became of `viewer` in its last update: the place of its level, the place that it probes for, and
        what its path shows."""
        settings = self._settings
        seen = self._seen.get(viewer)
        if seen is None:
            seen = self._seen[viewer] = _Seen(place)
        if congested:
            self._congested[viewer] = now
        else:
            self._congested.pop(viewer, None)
        if self._width is not None and (capacity or 0.0) > settings.wider * self._width:
            self.reopen()
        if aim is not None:
            seen.aimed_at, self._recent[viewer] = now, now + settings.answer
            self._aiming.pop(viewer, None)
            self._aiming[viewer] = now
        elif seen.aim is not None and place < seen.aim:
            self._close(now, seen.aim, capacity)
        if place > seen.place:
            seen.raised_at, seen.raised_from, seen.raised_to = now, seen.place, place
            self._recent[viewer] = now + settings.trial
        elif place < seen.place:
            if now - seen.raised_at <= settings.trial:
                seen.fell_at = now
                self._recent[viewer] = max(self._recent.get(viewer, now), now + settings.relief)
            if now - seen.raised_at <= settings.falls and place <= seen.raised_from:
                self._close(now, seen.raised_to, capacity)
                seen.raised_at = -math.inf
        seen.place, seen.aim = place, aim

    def keep(self, now: float, places: Mapping[_Viewer, int]) -> None:
        """Those that there are, with the places of their levels; all others are forgotten."""
        for viewer in self._seen.keys() - places.keys():
            del self._seen[viewer]
            self._congested.pop(viewer, None)
            self._aiming.pop(viewer, None)
        self._recent = {one: until for one, until in self._recent.items() if one in places and now <= until}
        for viewer, place in places.items():
            if viewer not in self._seen:
                self._seen[viewer] = _Seen(place)

    def relevel(self) -> None:
        """The ladder has changed: places are others than they were."""
        self._seen.clear()
        self._recent.clear()
        self._aiming.clear()
        self.reopen()

    def reopen(self) -> None:
        """What was too much may not be any more."""
        self._closed_until, self._width = -math.inf, None

    def raised_at(self, viewer: _Viewer) -> float:
        """When its last step up was that has not been taken back."""
        seen = self._seen.get(viewer)
        return -math.inf if seen is None else seen.raised_at

    def probing(self, now: float, viewer: _Viewer) -> int:
        """How many others probe, or did a moment ago."""
        aiming = self._aiming
        while aiming and now - aiming[first := next(iter(aiming))] > self._settings.answer:
            del aiming[first]
        return len(aiming) - (viewer in aiming)

    def trying(self, now: float, viewer: _Viewer) -> int:
        """How many others probe or have just come higher, so that what it does to the line is not known yet."""
        return sum(now <= until for one, until in self._recent.items() if one != viewer)

    def burden(self, now: float, viewer: _Viewer, place: int) -> bool:
        """Whether what `viewer` at `place` sees is of another's doing: of one who probes, who has just come as high, or
        who has just given way."""
        settings = self._settings
        for one, until in self._recent.items():
            if now > until or one == viewer:
                continue
            seen = self._seen[one]
            if now - seen.aimed_at <= settings.answer or now - seen.fell_at <= settings.relief:
                return True
            if now - seen.raised_at <= settings.trial and seen.place >= place:
                return True
        return False

    def crowded(self, now: float, viewer: _Viewer) -> bool:
        """Whether `viewer` probes, and many of the others see congestion."""
        seen = self._seen.get(viewer)
        if seen is None or seen.aim is None:
            return False
        others = sum(now - at <= self._settings.fresh for one, at in self._congested.items() if one != viewer)
        return others >= max(1.0, self._settings.crowd * (len(self._seen) - 1))

    def failed(self, now: float) -> bool:
        """Whether an attempt was too much before, as far as that still counts."""
        return now - self._closed_until <= self._settings.forgiveness

    def closed(self, now: float) -> int | None:
        """The place from which on nobody tries now."""
        return self._closed if now < self._closed_until else None

    def _close(self, now: float, place: int, capacity: float | None) -> None:
        """What fails while the line is closed belongs to the same failure."""
        settings, closed = self._settings, self.closed(now)
        if closed is None:
            again = now - self._closed_until <= settings.forgiveness
            self._pause = min(2.0 * self._pause, settings.longest_pause) if again else settings.pause
        self._closed = place if closed is None else min(place, closed)
        self._closed_until, self._width = max(self._closed_until, now + self._pause), capacity
