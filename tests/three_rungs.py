"""The ladder of a source of 1280x720 at 30 fps, written out."""

from __future__ import annotations

from broadcaster.adaptation.levels import Level
from broadcaster.stream import Rung, StreamDescription

LADDER = StreamDescription(
    name="main",
    epoch=1,
    rungs=(
        Rung("720p", 1280, 720, 30.0, 2_500_000, 2),
        Rung("360p", 640, 360, 30.0, 800_000, 3),
        Rung("180p", 320, 180, 30.0, 200_000, 3),
    ),
)
LEVELS = LADDER.levels()


def level(name: str, fps: float) -> Level:
    return next(level for level in LEVELS if level.name == name and level.fps == fps)


TOP = level("720p", 30.0)
