"""The stream of the simulation: the default ladder of 1280x720 at 30 pictures a second, encoded once for all."""

from __future__ import annotations

import math
import random

from broadcaster.adaptation.levels import Level
from broadcaster.ladder import derive_rungs
from broadcaster.ladder.layers import layer_pattern
from broadcaster.stream import LAYER_SHARES, EncodedFrame, Rung, StreamDescription

FPS = 30.0
DESCRIPTION = StreamDescription("main", 1, derive_rungs(1280, 720, FPS))
LEVELS = tuple(sorted(DESCRIPTION.levels(), key=lambda level: level.bitrate))
TOP = LEVELS[-1]
START = next(level for level in LEVELS if level.name == "360p" and level.fps == FPS)

_SPREAD = 0.22
"""Of the logarithm of the sizes of frames."""

_KEYFRAME = 3.0
"""A keyframe is so many pictures' share of the bitrate (EncoderConfig.max_keyframe), or
_LEAST octets for each pixel where that is more."""

_LEAST = 0.02
_PAYBACK = 0.12
"""The share of what a keyframe took too much that each following frame gives back, as a constant bitrate asks."""

_KEYFRAME_PAUSE = 0.5
"""Seconds between two keyframes of a rung (broadcaster.ladder.keyframes)."""


class _Encoding:
    def __init__(self, index: int, rung: Rung, seed: int) -> None:
        self.index = index
        self._rung = rung
        self._pattern = layer_pattern(rung.layers)
        self._random = random.Random(seed)
        self._since = 0
        self._number = -1
        self._debt = 0.0
        self._asked = True
        self._keyframe_at = -math.inf
        shares = LAYER_SHARES[rung.layers]
        alone = [share - before for share, before in zip(shares, (0.0, *shares), strict=False)]
        period = self._pattern.layers
        self._means = [
            rung.bitrate / 8 / FPS * alone[layer] * len(period) / period.count(layer) for layer in range(rung.layers)
        ]

    def ask(self) -> None:
        self._asked = True

    def encode(self, now: float, timestamp: int) -> tuple[EncodedFrame, int]:
        self._number += 1
        keyframe = self._asked and now - self._keyframe_at >= _KEYFRAME_PAUSE
        noise = math.exp(self._random.gauss(-_SPREAD * _SPREAD / 2, _SPREAD))
        if keyframe:
            self._asked, self._since, self._keyframe_at = False, 0, now
            mean = self._rung.bitrate / 8 / FPS
            size = max(_KEYFRAME * mean, _LEAST * self._rung.width * self._rung.height) * noise
            self._debt += size - self._means[0]
            layer, sync = 0, False
        else:
            self._since += 1
            layer, sync = self._pattern.layer(self._since), self._pattern.is_sync(self._since)
            size = self._means[layer] * noise
            back = min(_PAYBACK * self._debt, 0.6 * size)
            self._debt -= back
            size -= back
        frame = EncodedFrame(self.index, self._number, timestamp & 0xFFFFFFFF, keyframe, layer, sync, b"")
        return frame, max(60, int(size))


class Source:
    """All rungs of one broadcast."""

    def __init__(self, seed: int) -> None:
        self._encodings = [_Encoding(index, rung, seed + index) for index, rung in enumerate(DESCRIPTION.rungs)]
        self._pictures = 0

    def ask(self, rung: int) -> None:
        """A viewer needs a keyframe."""
        self._encodings[rung].ask()

    def picture(self, now: float) -> list[tuple[EncodedFrame, int]]:
        """The next picture in all rungs, each with its size in octets."""
        self._pictures += 1
        return [encoding.encode(now, self._pictures * 3000) for encoding in self._encodings]


def best_fitting(capacity: float, *, frames_capped: bool = False) -> Level | None:
    """The best level that a path of so many bit/s carries with all that the wire adds."""
    fitting = [
        level
        for level in LEVELS
        if level.bitrate * OVERHEAD <= capacity and not (frames_capped and level.fps > FPS / 2)
    ]
    return fitting[-1] if fitting else None


OVERHEAD = 1.06
"""Octets on the wire for each of media, as adapters count."""
