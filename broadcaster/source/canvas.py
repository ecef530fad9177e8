"""Canvas: a yuv420p picture that numpy draws on, and the frames that are copied from it."""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt

from broadcaster.source.glyphs import Coverage

Plane = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Colour:
    """A colour in limited-range YUV (BT.601), 8 bits each."""

    y: int
    u: int = 128
    v: int = 128


BLACK = Colour(16)
WHITE = Colour(235)


class Canvas:
    """`y`, shape (height, width), and `u` and `v`, half of that each way, are views of one buffer."""

    def __init__(self, width: int, height: int, colour: Colour = BLACK) -> None:
        self.width = width
        self.height = height
        self._buffer = np.empty((height * 3 // 2, width), np.uint8)
        flat, luma, chroma = self._buffer.reshape(-1), width * height, width * height // 4
        self.y: Plane = flat[:luma].reshape(height, width)
        self.u: Plane = flat[luma : luma + chroma].reshape(height // 2, width // 2)
        self.v: Plane = flat[luma + chroma :].reshape(height // 2, width // 2)
        self.fill(0, 0, width, height, colour)

    def copy(self) -> Canvas:
        """A canvas of its own with the same picture."""
        twin = Canvas(self.width, self.height)
        np.copyto(twin._buffer, self._buffer)
        return twin

    def frame(self) -> av.VideoFrame:
        """The picture as it is now, as a frame that later drawing does not change."""
        return av.VideoFrame.from_numpy_buffer(self._buffer.copy(), format="yuv420p")

    def fill(self, left: int, top: int, width: int, height: int, colour: Colour) -> None:
        """Fill a rectangle; its corners are rounded down to even pixels."""
        right, bottom = left + width, top + height
        self.y[top:bottom, left:right] = colour.y
        self.u[top // 2 : bottom // 2, left // 2 : right // 2] = colour.u
        self.v[top // 2 : bottom // 2, left // 2 : right // 2] = colour.v

    def restore(self, source: Canvas, left: int, top: int, width: int, height: int) -> None:
        """Copy a rectangle from the same place of `source`, a canvas of the same size."""
        right, bottom = left + width, top + height
        self.y[top:bottom, left:right] = source.y[top:bottom, left:right]
        half = np.s_[top // 2 : (bottom + 1) // 2, left // 2 : (right + 1) // 2]
        self.u[half] = source.u[half]
        self.v[half] = source.v[half]

    def blend(self, coverage: Coverage, left: int, top: int, colour: Colour) -> None:
        """Paint `colour` through `coverage` (0 to 1, shape (height, width)) at an even place, cut at the edges."""
        coverage = np.pad(coverage, [(0, side % 2) for side in coverage.shape])
        height = min(coverage.shape[0], self.height - top) & ~1
        width = min(coverage.shape[1], self.width - left) & ~1
        if height <= 0 or width <= 0:
            return
        part = coverage[:height, :width]
        _mix(self.y[top : top + height, left : left + width], part, colour.y)
        half = part.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
        place = np.s_[top // 2 : (top + height) // 2, left // 2 : (left + width) // 2]
        _mix(self.u[place], half, colour.u)
        _mix(self.v[place], half, colour.v)


def plane(frame: av.VideoFrame, index: int) -> Plane:
    """Plane `index` (Y, U, V) of a yuv420p frame as an array, shape (height, width), without copying."""
    source = frame.planes[index]
    return np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)[: source.height, : source.width]


def _mix(plane: Plane, coverage: Coverage, value: int) -> None:
    plane[...] = (plane + (value - plane.astype(np.float32)) * coverage + 0.5).astype(np.uint8)
