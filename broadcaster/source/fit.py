"""Fit: any decoded frame as yuv420p of one size, upright, with black bars where its shape differs."""

from __future__ import annotations

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from broadcaster.source.canvas import BLACK, Canvas, plane


def upright_size(frame: av.VideoFrame, pixel_aspect: float) -> tuple[int, int]:
    """Width and height at which `frame` is to be shown: square pixels, turned upright, even."""
    width, height = max(2, round(frame.width * pixel_aspect) & ~1), max(2, frame.height & ~1)
    return (height, width) if _quarter_turns(frame) % 2 else (width, height)


class Fitter:
    """Fits the frames of one input into `width` x `height` (even)."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self._reformatter = VideoReformatter()

    def fit(self, frame: av.VideoFrame, pixel_aspect: float = 1.0) -> av.VideoFrame:
        """`frame` itself when it fits already, else a new frame."""
        shown_width, shown_height = upright_size(frame, pixel_aspect)
        turns = _quarter_turns(frame)
        scale = min(self.width / shown_width, self.height / shown_height)
        inner_width = min(self.width, max(2, round(shown_width * scale / 2) * 2))
        inner_height = min(self.height, max(2, round(shown_height * scale / 2) * 2))
        flat = (inner_height, inner_width) if turns % 2 else (inner_width, inner_height)
        if (frame.width, frame.height) != flat or frame.format.name != "yuv420p":
            frame = self._reformatter.reformat(
                frame,
                width=flat[0],
                height=flat[1],
                format="yuv420p",
                interpolation=Interpolation.BILINEAR,
                dst_color_range=ColorRange.MPEG,
            )
        if turns or (inner_width, inner_height) != (self.width, self.height):
            frame = self._placed(frame, inner_width, inner_height, turns)
        frame.pict_type = PictureType.NONE
        return frame

    def _placed(self, frame: av.VideoFrame, width: int, height: int, turns: int) -> av.VideoFrame:
        canvas = Canvas(self.width, self.height, BLACK)
        left, top = (self.width - width) // 2 & ~1, (self.height - height) // 2 & ~1
        for index, target in enumerate((canvas.y, canvas.u, canvas.v)):
            share = 1 if index == 0 else 2
            x, y = left // share, top // share
            target[y : y + height // share, x : x + width // share] = np.rot90(plane(frame, index), turns)
        return canvas.frame()


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Counter-clockwise quarter turns that set the frame upright (its display matrix)."""
    return round(frame.rotation / 90) % 4
