"""Ladder: the levels that a viewer can be sent, and the ways between them."""

from __future__ import annotations

from collections.abc import Sequence

from broadcaster.adaptation.levels import Level

_SLACK = 1.01
"""29.97 frames a second are 30: a cap lets through what exceeds it by 1 %."""


class Ladder:
    """The levels by rung. Rungs are ordered by their index: 0 is the best."""

    def __init__(self, levels: Sequence[Level]) -> None:
        if not levels:
            raise ValueError("a ladder needs at least one level")
        rungs: dict[int, list[Level]] = {}
        for level in levels:
            rungs.setdefault(level.rung, []).append(level)
        self._rungs = {rung: sorted(rungs[rung], key=lambda level: level.layer) for rung in sorted(rungs)}
        self.fps = max(level.fps for level in levels)
        """The highest frame rate of all levels."""

    def at(self, level: Level, cap: float) -> Level:
        """On the rung of `level`: its highest layer of at most `cap` frames per second, else its lowest."""
        layers = self._rungs[level.rung]
        return next((layer for layer in reversed(layers) if layer.fps <= cap * _SLACK), layers[0])

    def nearest(self, level: Level, cap: float) -> Level:
        """Where a viewer of `level` belongs: the rung of its name, else the best that is not dearer, else the last."""
        tops = [self.at(layers[0], cap) for layers in self._rungs.values()]
        named = next((top for top in tops if top.name == level.name), None)
        return named or next((top for top in tops if top.bitrate <= level.bitrate), tops[-1])

    def is_top(self, level: Level) -> bool:
        """Whether `level` has all the frames of its rung."""
        return level.layer >= self._rungs[level.rung][-1].layer if level.rung in self._rungs else False

    def below(self, level: Level) -> Level | None:
        """The same rung with fewer frames."""
        layers = self.layers_below(level)
        return layers[0] if layers else None

    def above(self, level: Level) -> Level | None:
        """The same rung with more frames."""
        return next((layer for layer in self._rungs[level.rung] if layer.layer > level.layer), None)

    def layers_below(self, level: Level) -> list[Level]:
        """All of the same rung with fewer frames, most frames first."""
        return [layer for layer in reversed(self._rungs[level.rung]) if layer.layer < level.layer]

    def cheaper_rungs(self, level: Level, cap: float) -> list[Level]:
        """Every worse rung under `cap`, best first."""
        return [self.at(layers[0], cap) for rung, layers in self._rungs.items() if rung > level.rung]

    def better_rungs(self, level: Level, cap: float) -> list[Level]:
        """Every better rung under `cap`, the next one first."""
        return [self.at(layers[0], cap) for rung, layers in reversed(self._rungs.items()) if rung < level.rung]
