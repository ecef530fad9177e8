"""The barcode of the test pattern: which picture this is and when it was captured, readable by machines.

It survives VP8 at 320x180 and 200 kbit/s and any scaling of the whole picture, so a page can read the frame counter
and the age of a picture from a canvas. The geometry is in fractions of the picture's width and height:

    3 rows of 32 cells. Cell (row, column), both from 0, covers
        x from 0.02 + column * 0.03 to 0.02 + (column + 1) * 0.03 of the width,
        y from 0.83 + row * 0.05 to 0.83 + (row + 1) * 0.05 of the height.
    A white cell is 1, a black cell is 0; the leftmost cell of a group is its highest bit.

    row 0, columns  0-31   frame index, modulo 2**32
    row 1, columns  0-3    sync: 1 0 1 0
    row 1, columns  4-15   check, 12 bits
    row 1, columns 16-31   capture time in whole milliseconds since 1970, bits 47-32
    row 2, columns  0-31   capture time, bits 31-0

    check: c = 2748; for each 16-bit word w of (index >> 16, index & 65535, time bits 47-32, 31-16, 15-0):
        c = (c * 31 + w) % 4093

To read a picture, take the mean luma of the middle half (in x and y) of every cell; the threshold is halfway between
the darkest and the brightest cell. When these differ by less than 60 of 255, the sync cells are wrong, or the
check differs, there is no barcode.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ROWS = 3
COLUMNS = 32
LEFT = 0.02
TOP = 0.83
CELL_WIDTH = 0.03
CELL_HEIGHT = 0.05

_SYNC = 0b1010
_MIN_CONTRAST = 60
_BIT_VALUES = 1 << np.arange(COLUMNS - 1, -1, -1, dtype=np.int64)

Luma = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Barcode:
    """`index` is the frame index modulo 2**32; `captured_ms` the capture time in milliseconds since 1970."""

    index: int
    captured_ms: int


def cell_bits(barcode: Barcode) -> npt.NDArray[np.bool_]:
    """The cells of `barcode`, shape (3, 32); True is white."""
    index, captured = barcode.index & 0xFFFFFFFF, barcode.captured_ms & 0xFFFFFFFFFFFF
    rows = (index, _SYNC << 28 | _check(index, captured) << 16 | captured >> 32, captured & 0xFFFFFFFF)
    words: npt.NDArray[np.int64] = np.array(rows, dtype=np.int64)
    bits: npt.NDArray[np.bool_] = (words[:, None] & _BIT_VALUES) != 0
    return bits


def column_edges(width: int) -> list[int]:
    """The x of the 33 edges of the cells, in pixels."""
    return [round((LEFT + column * CELL_WIDTH) * width) for column in range(COLUMNS + 1)]


def row_edges(height: int) -> list[int]:
    """The y of the 4 edges of the cells, in pixels."""
    return [round((TOP + row * CELL_HEIGHT) * height) for row in range(ROWS + 1)]


def read_barcode(luma: Luma) -> Barcode | None:
    """Read the barcode from the luma plane of a picture, shape (height, width), or return None when there is none."""
    height, width = luma.shape
    means = np.empty((ROWS, COLUMNS))
    for row in range(ROWS):
        rows = _middle(TOP + row * CELL_HEIGHT, CELL_HEIGHT, height)
        for column in range(COLUMNS):
            means[row, column] = luma[rows, _middle(LEFT + column * CELL_WIDTH, CELL_WIDTH, width)].mean()
    darkest, brightest = means.min(), means.max()
    if brightest - darkest < _MIN_CONTRAST:
        return None
    index, middle, low = (int(value) for value in (means > (darkest + brightest) / 2) @ _BIT_VALUES)
    captured = (middle & 0xFFFF) << 32 | low
    if middle >> 28 != _SYNC or (middle >> 16) & 0xFFF != _check(index, captured):
        return None
    return Barcode(index, captured)


def _middle(start: float, length: float, size: int) -> slice:
    first = int((start + length / 4) * size)
    return slice(first, max(first + 1, int((start + length * 3 / 4) * size)))


def _check(index: int, captured: int) -> int:
    check = 2748
    for word in (index >> 16, index & 0xFFFF, captured >> 32, (captured >> 16) & 0xFFFF, captured & 0xFFFF):
        check = (check * 31 + word) % 4093
    return check
