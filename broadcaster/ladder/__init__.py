"""The ladder: rungs, temporal layers, encoders, keyframes on demand."""

from broadcaster.ladder.keyframes import KeyframeConfig, KeyframeGate
from broadcaster.ladder.ladder import Ladder, LadderSettings, RungStatistics
from broadcaster.ladder.rungs import LadderConfig, derive_rungs, parse_rungs

__all__ = [
    "KeyframeConfig",
    "KeyframeGate",
    "Ladder",
    "LadderConfig",
    "LadderSettings",
    "RungStatistics",
    "derive_rungs",
    "parse_rungs",
]
