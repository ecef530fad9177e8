"""Options: the levels that there are for one viewer, and which of them it may be sent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter

from broadcaster.adaptation.frames import SLACK, FrameCap
from broadcaster.adaptation.levels import Level


class Options:
    """`levels`, never empty, cheapest first. What losses and overload (`frames`) and the neighbours (`reach`, the place
    of the best level that they leave, None: any) do not leave is not allowed; one is always. `overhead`: octets on the
    wire for each of media.
    """

    def __init__(self, levels: Sequence[Level], frames: FrameCap, overhead: float) -> None:
        self._frames = frames
        self._overhead = overhead
        self.reach: int | None = None
        self.arrange(levels)

    def arrange(self, levels: Sequence[Level]) -> None:
        """The ladder has changed."""
        if not levels:
            raise ValueError("an adapter needs at least one level")
        self.levels = sorted(levels, key=attrgetter("bitrate"))
        self._places = {(level.rung, level.layer): place for place, level in enumerate(self.levels)}
        self._frames.arrange(level.fps for level in levels)

    def place(self, level: Level) -> int:
        """0 for the cheapest."""
        return self._places[level.rung, level.layer]

    def instead_of(self, before: Level) -> Level:
        """What takes its place in this ladder: what bears its name, else the best that is not dearer."""
        same = [one for one in self.levels if (one.name, one.layer) == (before.name, before.layer)]
        cheaper = [one for one in self.levels if one.bitrate <= before.bitrate]
        return (same or cheaper[-1:] or self.levels[:1])[0]

    def need(self, level: Level) -> float:
        """Bit/s on the wire."""
        return level.bitrate * self._overhead

    @property
    def allowed(self) -> list[Level]:
        """Cheapest first."""
        cap = self._frames.fps * SLACK
        end = None if self.reach is None else self.reach + 1
        return [level for level in self.levels[:end] if level.fps <= cap] or self.levels[:1]

    def best(self, carried: float, *, below: float = math.inf) -> Level | None:
        """The best allowed level that needs at most `carried` bit/s, of less bitrate than `below`."""
        allowed = reversed(self.allowed)
        return next((one for one in allowed if self.need(one) <= carried and one.bitrate < below), None)

    def below(self, level: Level) -> Level | None:
        """The next allowed level."""
        return next((one for one in reversed(self.allowed) if one.bitrate < level.bitrate), None)

    def above(self, level: Level) -> list[Level]:
        """All allowed levels that are better."""
        return [one for one in self.allowed if one.bitrate > level.bitrate]

    def smoother(self, level: Level) -> Level | None:
        """The next allowed level of the same rung with more frames."""
        return next((one for one in self.allowed if one.rung == level.rung and one.layer > level.layer), None)

    def fewest(self, level: Level) -> Level:
        """The level of the same rung with the fewest frames, allowed or not."""
        return min((one for one in self.levels if one.rung == level.rung), key=attrgetter("layer"))
