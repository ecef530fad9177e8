"""A picture as JPEG, for thumbnails."""

from __future__ import annotations

from fractions import Fraction

import av
from av.video.reformatter import ColorRange

from broadcaster.source.picture import Picture

_QUALITY = 5
"""The quantiser, 2 (best) to 31: 5 makes about 10 kB of a 320x180 picture."""


def jpeg(picture: Picture, width: int = 320) -> bytes:
    """`picture` as JPEG, at most `width` pixels wide and never enlarged."""
    frame = picture.frame
    width = max(2, min(width, frame.width) & ~1)
    height = max(2, round(frame.height * width / frame.width / 2) * 2)
    full_range = frame.reformat(width=width, height=height, format="yuvj420p", dst_color_range=ColorRange.JPEG)
    full_range.pts = 0
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.color_range = ColorRange.JPEG
    encoder.options = {"qmin": str(_QUALITY), "qmax": str(_QUALITY)}
    packets = [*encoder.encode(full_range), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
