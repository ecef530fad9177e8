"""Decision: one change of quality with everything that led to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from broadcaster.adaptation.levels import Level
from broadcaster.adaptation.probing import ProbeResult

Rule = Literal[
    "loss-high",
    "loss-low",
    "rtt-high",
    "estimate-low",
    "headroom",
    "silence",
    "pause",
    "resume",
    "overload",
    "relief",
    "fair-share",
]


@dataclass(frozen=True, slots=True)
class State:
    """Where a viewer is: frames per second (0: paused), the rung's name (None where there are no rungs), bit/s (None:
    unknown)."""

    fps: float
    rung: str | None
    bitrate: int | None

    @classmethod
    def of(cls, level: Level | None) -> State:
        """None: paused."""
        return cls(0.0, None, 0) if level is None else cls(level.fps, level.name, level.bitrate)


@dataclass(frozen=True, slots=True)
class Decision:
    """What changed, and why.

    `rule` is the name of the rule that fired; `inputs` are the measurements that it saw and `thresholds` the lines
    that decided, keyed as the input that they were held against. `estimate` is what the path was believed to carry, in
    bit/s, and `probe` what came of the last probe since the decision before.
    """

    rule: Rule
    before: State
    after: State
    inputs: Mapping[str, float | None]
    thresholds: Mapping[str, float]
    estimate: float | None = None
    probe: ProbeResult | None = None
