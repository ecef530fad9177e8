"""Plan: which bitrate each rung should have for the viewers there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from broadcaster.adaptation.audience import Histogram, bitrate_of


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """`lowest_share` of its own bitrate is the least that a rung gets, in steps of `step`; a rung has at least `apart`
    times the bitrate of the next worse one. A plan is worth it where the audience gains `gain` of its mean quality; a
    rung moves by `least_change` or not at all. `overhead`: octets on the wire for each of media, with a little room.

    Quality is a model, after the rule that a picture's rating grows with the logarithm of its bitrate until its size is
    served (the rate-quality curves of per-title encoding are such): at its own bitrate a rung of `reference` lines is
    worth 1, `per_size` less for each halving of the lines and `per_bitrate` less for each halving of the bitrate.
    Fewer frames than the source has leave the share `frames` of it for each halving.
    """

    lowest_share: float = 0.3
    step: float = 1.12
    apart: float = 1.3
    gain: float = 0.03
    least_change: float = 0.1
    overhead: float = 1.09
    reference: int = 720
    per_size: float = 0.16
    per_bitrate: float = 0.12
    frames: float = 0.9


@dataclass(frozen=True, slots=True)
class PlannedRung:
    """A rung as far as plans go: its own bitrate in bit/s, lines, and the shares of bitrate and frames of its layers up
    to each."""

    bitrate: int
    lines: int
    shares: tuple[float, ...]
    frames: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Bit/s by rung, and the audience's mean quality (0 to about 1) before and with it."""

    bitrates: tuple[int, ...]
    before: float
    after: float


@dataclass(slots=True)
class Planner:
    """Moves the bitrates of rungs towards what their audience can carry. Pure."""

    rungs: Sequence[PlannedRung]
    settings: PlanSettings = field(default_factory=PlanSettings)

    def quality(self, bitrates: Sequence[int], audience: Histogram) -> float:
        """The mean over all viewers, each at the best level that its path carries; nothing that fits is worth 0."""
        levels = sorted(self.levels(bitrates))
        total = found = 0.0
        for number, count in audience.items():
            carried = bitrate_of(number)
            best = 0.0
            for need, quality in levels:
                if need > carried:
                    break
                best = max(best, quality)
            total += count
            found += count * best
        return found / total if total else 0.0

    def plan(self, current: Sequence[int], audience: Histogram, active: Mapping[int, bool]) -> Plan | None:
        """The bitrates to go to from `current`, or None where staying is as good. Rungs that are not `active` get their
        own bitrate again, which costs nothing.
        """
        if not audience:
            return None
        before = self.quality(current, audience)
        best = [current[rung] if active.get(rung) else self.rungs[rung].bitrate for rung in range(len(self.rungs))]
        reached = self.quality(best, audience)
        improved = True
        while improved:
            improved = False
            for rung in range(len(best)):
                for bitrate in self._candidates(rung):
                    tried = [*best[:rung], bitrate, *best[rung + 1 :]]
                    if self._is_apart(tried) and (quality := self.quality(tried, audience)) > reached + 1e-6:
                        best, reached, improved = tried, quality, True
        settled = [
            new if abs(new - old) > self.settings.least_change * old else old
            for old, new in zip(current, best, strict=True)
        ]
        after = self.quality(settled, audience)
        if settled == list(current) or after < before * (1.0 + self.settings.gain):
            return None
        return Plan(tuple(settled), before, after)

    def levels(self, bitrates: Sequence[int]) -> list[tuple[float, float]]:
        """What each level needs on the wire in bit/s, and its quality, at these bitrates of the rungs."""
        settings = self.settings
        levels = []
        for rung, bitrate in zip(self.rungs, bitrates, strict=True):
            picture = 1.0 - settings.per_size * math.log2(settings.reference / rung.lines)
            picture += settings.per_bitrate * math.log2(bitrate / rung.bitrate)
            for share, frames in zip(rung.shares, rung.frames, strict=True):
                worth = max(0.01, picture) * settings.frames ** -math.log2(frames)
                levels.append((settings.overhead * share * bitrate, worth))
        return levels

    def _candidates(self, rung: int) -> list[int]:
        own = self.rungs[rung].bitrate
        count = int(math.log(1.0 / self.settings.lowest_share) / math.log(self.settings.step)) + 1
        return [int(own / self.settings.step**number) for number in range(count)]

    def _is_apart(self, bitrates: Sequence[int]) -> bool:
        return all(better >= self.settings.apart * worse for better, worse in pairwise(bitrates))
