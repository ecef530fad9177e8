"""The slate: what viewers see while a source is away."""

from __future__ import annotations

import time

import av

from broadcaster.source import glyphs
from broadcaster.source.canvas import WHITE, Canvas, Colour

_GROUND = Colour(34, 138, 124)
_QUIET = Colour(140, 134, 124)
_DOT_ON = Colour(170, 60, 175)
_DOT_OFF = Colour(60, 138, 124)
_DOTS = 5
_STEPS_PER_SECOND = 5


class Slate:
    """Says that `name` is coming back. A frame is drawn only when what it shows changes, five times a second."""

    def __init__(self, name: str, width: int, height: int) -> None:
        self._ground = Canvas(width, height, _GROUND)
        self._line(name[:24], 0.30, 0.12, WHITE)
        self._line("IS COMING BACK", 0.46, 0.08, WHITE)
        self._step = -1
        self._frame: av.VideoFrame | None = None

    def draw(self, captured: float) -> av.VideoFrame:
        """The slate at the wall-clock time `captured` (seconds since 1970)."""
        step = int(captured * _STEPS_PER_SECOND)
        if self._frame is None or step != self._step:
            self._step = step
            self._frame = self._drawn(captured, step)
        return self._frame

    def _drawn(self, captured: float, step: int) -> av.VideoFrame:
        canvas = self._ground.copy()
        size = max(2, int(min(canvas.width, canvas.height) * 0.02) & ~1)
        left = (canvas.width - (2 * _DOTS - 1) * size) // 2 & ~1
        for dot in range(_DOTS):
            colour = _DOT_ON if dot == step % _DOTS else _DOT_OFF
            canvas.fill(left + dot * 2 * size, int(canvas.height * 0.62) & ~1, size, size, colour)
        self._line(time.strftime("%H:%M:%S", time.localtime(captured)), 0.72, 0.06, _QUIET, canvas)
        return canvas.frame()

    def _line(self, text: str, top: float, height: float, colour: Colour, canvas: Canvas | None = None) -> None:
        canvas = canvas or self._ground
        scale = glyphs.fitting_scale(text, int(canvas.width * 0.9), int(canvas.height * height))
        left = (canvas.width - glyphs.text_width(text, scale)) // 2 & ~1
        canvas.blend(glyphs.line(text, scale), max(0, left), int(canvas.height * top) & ~1, colour)
