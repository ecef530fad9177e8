"""The test tone: a quiet hum, and a beep with each second of the clock on the test pattern.

The same moment always sounds the same, whoever draws it.
"""

from __future__ import annotations

import numpy as np

from broadcaster.source.sound import PIECE, Samples
from broadcaster.stream import SOUND_CLOCK

HUM = 220
BEEP = 1000
"""Hertz, whole, so that both repeat with every second."""

HUM_LEVEL = 0.02
BEEP_LEVEL = 0.2
"""Of full scale."""

BEEP_SECONDS = 0.1
_RAMP_SECONDS = 0.005
"""Of the beep's beginning and end, which would click without."""


class TestTone:
    """The sound of the test pattern."""

    __test__ = False

    def __init__(self) -> None:
        time = np.arange(SOUND_CLOCK) / SOUND_CLOCK
        envelope = np.clip(np.minimum(time, BEEP_SECONDS - time) / _RAMP_SECONDS, 0.0, 1.0)
        wave = HUM_LEVEL * np.sin(2 * np.pi * HUM * time) + BEEP_LEVEL * envelope * np.sin(2 * np.pi * BEEP * time)
        second = np.round(wave * np.iinfo(np.int16).max).astype(np.int16)
        self._second: Samples = np.stack([second, second], axis=1)

    def draw(self, first: int) -> Samples:
        """The piece whose first sample is number `first` since 1970 (48 000 a second); a multiple of 960."""
        start = first % SOUND_CLOCK
        return self._second[start : start + PIECE]
