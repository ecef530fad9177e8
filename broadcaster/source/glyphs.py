"""Letters drawn with numpy: a 5x7 bitmap alphabet, enlarged with smooth edges."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

COLUMNS = 5
ROWS = 7
ADVANCE = 6
"""Bitmap columns from one letter to the next."""

Coverage = npt.NDArray[np.float32]

_BITMAPS = {
    "0": "0e 11 13 15 19 11 0e", "1": "04 0c 04 04 04 04 0e", "2": "0e 11 01 02 04 08 1f", "3": "1f 02 04 02 01 11 0e",
    "4": "02 06 0a 12 1f 02 02", "5": "1f 10 1e 01 01 11 0e", "6": "06 08 10 1e 11 11 0e", "7": "1f 01 02 04 08 08 08",
    "8": "0e 11 11 0e 11 11 0e", "9": "0e 11 11 0f 01 02 0c", "A": "0e 11 11 1f 11 11 11", "B": "1e 11 11 1e 11 11 1e",
    "C": "0e 11 10 10 10 11 0e", "D": "1c 12 11 11 11 12 1c", "E": "1f 10 10 1e 10 10 1f", "F": "1f 10 10 1e 10 10 10",
    "G": "0e 11 10 17 11 11 0f", "H": "11 11 11 1f 11 11 11", "I": "0e 04 04 04 04 04 0e", "J": "07 02 02 02 02 12 0c",
    "K": "11 12 14 18 14 12 11", "L": "10 10 10 10 10 10 1f", "M": "11 1b 15 15 11 11 11", "N": "11 11 19 15 13 11 11",
    "O": "0e 11 11 11 11 11 0e", "P": "1e 11 11 1e 10 10 10", "Q": "0e 11 11 11 15 12 0d", "R": "1e 11 11 1e 14 12 11",
    "S": "0f 10 10 0e 01 01 1e", "T": "1f 04 04 04 04 04 04", "U": "11 11 11 11 11 11 0e", "V": "11 11 11 11 11 0a 04",
    "W": "11 11 11 15 15 15 0a", "X": "11 11 0a 04 0a 11 11", "Y": "11 11 11 0a 04 04 04", "Z": "1f 01 02 04 08 10 1f",
    ":": "00 0c 0c 00 0c 0c 00", ".": "00 00 00 00 00 0c 0c", "-": "00 00 00 1f 00 00 00", "_": "00 00 00 00 00 00 1f",
    "/": "00 01 02 04 08 10 00", " ": "00 00 00 00 00 00 00",
}  # fmt: skip


def text_width(text: str, scale: int) -> int:
    """Pixels that `text` takes when one bitmap dot is `scale` pixels wide."""
    return max(0, len(text) * ADVANCE - 1) * scale


def fitting_scale(text: str, width: int, height: int) -> int:
    """The largest scale at which `text` fits into `width` x `height` pixels, at least 1."""
    return max(1, min(width // max(1, len(text) * ADVANCE - 1), height // ROWS))


@lru_cache(maxsize=512)
def glyph(letter: str, scale: int) -> Coverage:
    """Coverage (0 to 1) of `letter`, shape (7 * scale, 5 * scale). Lower case is shown as upper case."""
    rows = _BITMAPS.get(letter.upper(), _BITMAPS["-"]).split()
    dots: Coverage = np.array(
        [[int(row, 16) >> bit & 1 for bit in range(COLUMNS - 1, -1, -1)] for row in rows], np.float32
    )
    if scale == 1:
        return dots
    padded = np.pad(dots, 1)
    spread = _interpolation(ROWS, scale) @ padded @ _interpolation(COLUMNS, scale).T
    sharpness = np.float32(min(scale, 6) * 0.75)
    coverage: Coverage = np.clip((spread - np.float32(0.42)) * sharpness + np.float32(0.5), 0, 1)
    return coverage


def _interpolation(dots: int, scale: int) -> Coverage:
    """Weights, shape (dots * scale, dots + 2), that turn padded dots into pixels by linear interpolation."""
    positions = (np.arange(dots * scale) + 0.5) / scale + 0.5
    distance = np.abs(positions[:, None] - np.arange(dots + 2)[None, :])
    weights: Coverage = np.clip(1 - distance, 0, 1).astype(np.float32)
    return weights


def line(text: str, scale: int) -> Coverage:
    """Coverage of a whole line, shape (7 * scale, text_width(text, scale))."""
    canvas = np.zeros((ROWS * scale, text_width(text, scale)), np.float32)
    for position, letter in enumerate(text):
        left = position * ADVANCE * scale
        canvas[:, left : left + COLUMNS * scale] = glyph(letter, scale)
    return canvas
