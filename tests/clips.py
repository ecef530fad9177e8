"""Clips of the test pattern."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from broadcaster.source.canvas import plane
from broadcaster.source.pattern import TestPattern

FRAMES = 25


def make_clip(
    path: Path,
    codec: str = "libx264",
    size: tuple[int, int] = (320, 180),
    frames: int = FRAMES,
    fps: int = 25,
    turns: int = 0,
    pix_fmt: str = "yuv420p",
    times: list[float] | None = None,
) -> Path:
    """A clip of the test pattern; `turns` quarter turns are recorded into its pictures."""
    pattern = TestPattern("clip", *size, fps)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size if turns % 2 == 0 else size[::-1]
        stream.pix_fmt = pix_fmt
        stream.bit_rate = 1_000_000
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "bf": "2", "g": "10"}
        stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, fps)
        for index in range(frames):
            picture = pattern.draw(index, 1_767_225_600.0)
            if turns:
                turned = [np.rot90(plane(picture, number), turns).ravel() for number in range(3)]
                joined = np.concatenate(turned).reshape(-1, stream.width)
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(joined), format="yuv420p")
            frame = picture.reformat(format=pix_fmt)
            frame.pts = int(times[index] * 1000) if times else index
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
