"""The test pattern: a clock, a frame counter, the stream's name, things that move, and a barcode for machines.

Drawn in YUV. What stands still is drawn once; for each picture only what moved is painted over.
"""

from __future__ import annotations

import time
from itertools import pairwise

import av
import numpy as np
import numpy.typing as npt

from broadcaster.source import barcode, glyphs
from broadcaster.source.barcode import Barcode
from broadcaster.source.canvas import BLACK, WHITE, Canvas, Colour

_NIGHT = Colour(30, 140, 122)
_PANEL = Colour(22, 134, 126)
_QUIET = Colour(150, 134, 122)
_ORANGE = Colour(170, 60, 175)

_BALL_SECONDS = (3.1, 1.3)
"""Seconds that the ball takes from wall to wall, across and down."""

_SWEEP_SECONDS = 4.0
_STRIP_SECONDS = 8.0


class TestPattern:
    """Draws the pictures of one stream."""

    __test__ = False

    def __init__(self, name: str, width: int, height: int, fps: float) -> None:
        self.width = width
        self.height = height
        self._still = _background(name, width, height, fps)
        self._now = self._still.copy()
        self._clock = _Readout(self._now, "00:00:00.00", WHITE, centre=0.5, top=0.235, width=0.88, height=0.18)
        self._date = _Readout(self._now, "0000-00-00", _QUIET, centre=0.27, top=0.46, width=0.42, height=0.06)
        self._counter = _Readout(self._now, "FRAME 00000000", _QUIET, centre=0.73, top=0.46, width=0.42, height=0.06)
        self._strip = _Strip(width, height)
        self._radar = _Radar(width, height)
        self._ball = _Ball(width, height)
        self._columns = np.diff(barcode.column_edges(width))
        self._second = -1
        self._texts = ("", "")

    def draw(self, index: int, captured: float) -> av.VideoFrame:
        """The picture with this frame index, captured at the wall-clock time `captured` (seconds since 1970)."""
        milliseconds = int(captured * 1000)
        if milliseconds // 1000 != self._second:
            self._second = milliseconds // 1000
            local = time.localtime(self._second)
            self._texts = (time.strftime("%H:%M:%S", local), time.strftime("%Y-%m-%d", local))
        self._clock.show(f"{self._texts[0]}.{milliseconds % 1000 // 10:02d}")
        self._date.show(self._texts[1])
        self._counter.show(f"FRAME {index % 100_000_000:08d}")
        self._strip.paint(self._now, captured)
        self._radar.paint(self._now, captured)
        self._ball.paint(self._now, self._still, captured)
        self._paint_barcode(Barcode(index & 0xFFFFFFFF, milliseconds))
        return self._now.frame()

    def _paint_barcode(self, content: Barcode) -> None:
        left, *_ = barcode.column_edges(self.width)
        edges = barcode.row_edges(self.height)
        cells = np.where(barcode.cell_bits(content), np.uint8(WHITE.y), np.uint8(BLACK.y))
        for row, (top, bottom) in enumerate(pairwise(edges)):
            pixels = np.repeat(cells[row], self._columns)
            self._now.y[top:bottom, left : left + pixels.size] = pixels


def _even(value: float) -> int:
    return int(value) & ~1


def _background(name: str, width: int, height: int, fps: float) -> Canvas:
    canvas = Canvas(width, height, _NIGHT)
    down, across = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    glow = 58 - 30 * np.clip(down**2 * 0.7 + across**2 * 0.5, 0, 1)
    dither = np.random.default_rng(0).random((height, width))
    canvas.y[...] = (glow + dither).astype(np.uint8)
    step = max(8, _even(height / 18))
    canvas.y[::step] += 5
    canvas.y[:, ::step] += 5
    title_height, title_width = _even(height * 0.09), _even(width * 0.60)
    title = name[:24]
    scale = glyphs.fitting_scale(title, title_width, title_height)
    canvas.blend(glyphs.line(title, scale), _even(width * 0.03), _even(height * 0.07), WHITE)
    facts = f"{width}x{height}  {fps:.4g} FPS"
    scale = glyphs.fitting_scale(facts, _even(width * 0.30), _even(height * 0.05))
    left = max(0, _even(width * 0.97 - glyphs.text_width(facts, scale)))
    canvas.blend(glyphs.line(facts, scale), left, _even(height * 0.09), _QUIET)
    quiet_zone = _even(height * 0.815)
    canvas.fill(0, quiet_zone, width, height - quiet_zone, BLACK)
    return canvas


class _Readout:
    """A line of text on a panel; letters that did not change are not painted again."""

    def __init__(
        self,
        canvas: Canvas,
        sample: str,
        colour: Colour,
        *,
        centre: float,
        top: float,
        width: float,
        height: float,
    ) -> None:
        room_x, room_y = _even(canvas.width * width), _even(canvas.height * height)
        self._scale = glyphs.fitting_scale(sample, _even(room_x * 0.95), _even(room_y * 0.8))
        text_x, text_y = glyphs.text_width(sample, self._scale), glyphs.ROWS * self._scale
        left, top_pixel = _even(canvas.width * centre - text_x / 2), _even(canvas.height * top)
        margin = _even(self._scale * 2 * 0.7) + 2
        canvas.fill(max(0, left - margin), max(0, top_pixel - margin), text_x + 2 * margin, text_y + 2 * margin, _PANEL)
        self._ink = (_PANEL.y, colour.y)
        self._place = canvas.y[top_pixel : top_pixel + text_y, left : left + text_x]
        self._cells: dict[str, npt.NDArray[np.uint8]] = {}
        self._shown = ""

    def show(self, text: str) -> None:
        advance, width = glyphs.ADVANCE * self._scale, glyphs.COLUMNS * self._scale
        for position, letter in enumerate(text):
            if self._shown[position : position + 1] != letter:
                self._place[:, position * advance : position * advance + width] = self._cell(letter)
        self._shown = text

    def _cell(self, letter: str) -> npt.NDArray[np.uint8]:
        cell = self._cells.get(letter)
        if cell is None:
            paper, ink = self._ink
            cell = (paper + (ink - paper) * glyphs.glyph(letter, self._scale) + 0.5).astype(np.uint8)
            self._cells[letter] = cell
        return cell


class _Strip:
    """A rainbow that runs along the upper edge."""

    def __init__(self, width: int, height: int) -> None:
        self._half = width // 2
        self._rows = max(1, _even(height * 0.03) // 2)
        turn = np.arange(width) / self._half * 2 * np.pi
        self._u = (128 + 84 * np.cos(turn)).astype(np.uint8)
        self._v = (128 + 84 * np.sin(turn)).astype(np.uint8)

    def paint(self, canvas: Canvas, captured: float) -> None:
        start = int(captured % _STRIP_SECONDS / _STRIP_SECONDS * self._half)
        canvas.y[: 2 * self._rows] = 150
        canvas.u[: self._rows] = self._u[start : start + self._half]
        canvas.v[: self._rows] = self._v[start : start + self._half]


class _Radar:
    """A disc with a hand that leaves a fading trail: a repeated or lost picture shows as a stutter."""

    def __init__(self, width: int, height: int) -> None:
        size = max(16, _even(min(height * 0.24, width * 0.24)))
        self._left, self._top, self._size = _even(width * 0.95 - size), _even(height * 0.56), size
        axis = np.arange(size) - (size - 1) / 2
        radius = np.hypot(axis[:, None], axis[None, :]) / (size / 2)
        angle = np.arctan2(axis[:, None], axis[None, :]) / (2 * np.pi) * 255
        self._angles = angle.astype(np.int16).astype(np.uint8)
        self._angles[radius > 1] = 0
        fade = 40 + 170 * np.linspace(0, 1, 256) ** 3
        self._trail = np.concatenate([fade, fade]).astype(np.uint8)
        self._disc = radius <= 1
        self._tint = radius[::2, ::2] <= 1

    def paint(self, canvas: Canvas, captured: float) -> None:
        hand = int(captured % _SWEEP_SECONDS / _SWEEP_SECONDS * 256)
        rows, columns = slice(self._top, self._top + self._size), slice(self._left, self._left + self._size)
        table = self._trail[255 - hand : 511 - hand]
        np.copyto(canvas.y[rows, columns], table[self._angles], where=self._disc)
        half = np.s_[self._top // 2 : (self._top + self._size) // 2, self._left // 2 : (self._left + self._size) // 2]
        np.copyto(canvas.u[half], np.uint8(110), where=self._tint)
        np.copyto(canvas.v[half], np.uint8(80), where=self._tint)


class _Ball:
    """A ball between the readouts and the barcode, bouncing from wall to wall."""

    def __init__(self, width: int, height: int) -> None:
        self._size = max(8, _even(height * 0.10))
        self._left, self._top = _even(width * 0.04), _even(height * 0.555)
        self._room_x = max(2, _even(width * 0.66) - self._size)
        self._room_y = max(2, _even(height * 0.25) - self._size)
        axis = (np.arange(self._size) - (self._size - 1) / 2) / (self._size / 2)
        radius = np.hypot(axis[:, None], axis[None, :])
        self._coverage = np.clip((1 - radius) * self._size / 4, 0, 1).astype(np.float32)
        shine = np.hypot(axis[:, None] + 0.35, axis[None, :] + 0.35)
        self._shine = np.clip(0.8 - shine * 1.6, 0, 1).astype(np.float32)
        self._last = (self._left, self._top)

    def paint(self, canvas: Canvas, still: Canvas, captured: float) -> None:
        canvas.restore(still, *self._last, self._size, self._size)
        across, down = (captured / seconds % 2 for seconds in _BALL_SECONDS)
        left = self._left + _even(abs(1 - across) * self._room_x)
        top = self._top + _even((1 - (1 - abs(1 - down)) ** 2) * self._room_y)
        canvas.blend(self._coverage, left, top, _ORANGE)
        canvas.blend(self._shine, left, top, WHITE)
        self._last = (left, top)
