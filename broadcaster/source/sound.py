"""Sound: 20 ms of what a source is heard to say, and the cutting of any decoded sound into such pieces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broadcaster.stream import SOUND_CLOCK

Samples = npt.NDArray[np.int16]
"""Interleaved stereo at 48 kHz, shape (samples, 2)."""

PIECE = 960
"""Samples of one piece: 20 ms, the usual length of an Opus frame (RFC 7587 section 4.2)."""

PIECE_SECONDS = PIECE / SOUND_CLOCK


@dataclass(frozen=True, slots=True)
class Sound:
    """One piece of a source's sound. `samples` has shape (960, 2) and is shared by every listener, so nobody writes to
    it. `captured` is the wall clock in seconds since 1970 at its first sample, the same clock as that of the pictures.
    """

    samples: Samples
    captured: float


@dataclass(frozen=True, slots=True)
class CutterConfig:
    """In seconds. Times that are off by up to `tolerance` are taken for rounding: containers count in milliseconds.
    A gap of up to `gap` is filled with silence, after a longer one the sound begins anew; so it does when time goes
    back by more than `back`.
    """

    tolerance: float = 0.04
    gap: float = 1.0
    back: float = 10.0


class Cutter:
    """Cuts decoded sound into pieces without a gap between them. Pure.

    Media times are seconds, as those of the pictures. What is said twice, as where a film's sound is longer than its
    pictures and the next round of the loop begins, is said once.
    """

    def __init__(self, config: CutterConfig | None = None) -> None:
        self._config = config or CutterConfig()
        self._start: float | None = None
        self._parts: list[Samples] = []
        self._kept = 0
        self._exact = False

    def align(self) -> None:
        """The next samples are to stand at their media time exactly: another round begins, and what is off there would
        add up."""
        self._exact = True

    def add(self, media_time: float | None, samples: Samples) -> list[tuple[float, Samples]]:
        """Take `samples` (any number) whose first is at `media_time`, or that follow the last ones where it is None;
        return the pieces that are complete, each with the media time of its first sample.
        """
        config = self._config
        if media_time is not None:
            late = 0.0 if self._start is None else media_time - (self._start + self._kept / SOUND_CLOCK)
            tolerance = 0.0 if self._exact else config.tolerance
            if self._start is None or late > config.gap or late < -config.back:
                self._start, self._parts, self._kept = media_time, [], 0
            elif late > tolerance:
                self._keep(np.zeros((round(late * SOUND_CLOCK), 2), np.int16))
            elif late < -tolerance:
                samples = samples[round(-late * SOUND_CLOCK) :]
            self._exact &= not len(samples)
        self._keep(samples)
        return self._cut()

    def _keep(self, samples: Samples) -> None:
        if len(samples):
            self._parts.append(samples)
            self._kept += len(samples)

    def _cut(self) -> list[tuple[float, Samples]]:
        if self._kept < PIECE:
            return []
        kept, start = np.concatenate(self._parts), self._start or 0.0
        whole = len(kept) // PIECE
        self._parts, self._kept = [kept[whole * PIECE :]], len(kept) - whole * PIECE
        self._start = start + whole * PIECE_SECONDS
        return [
            (start + number * PIECE_SECONDS, kept[number * PIECE : (number + 1) * PIECE]) for number in range(whole)
        ]
