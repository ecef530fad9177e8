"""A source of one picture that counts who reads it."""

from __future__ import annotations

from dataclasses import dataclass

import av
from av.video.frame import PictureType


@dataclass
class Shown:
    frame: av.VideoFrame


class FakeSource:
    def __init__(self, width: int = 64, height: int = 48) -> None:
        frame = av.VideoFrame(width, height, "yuv420p")
        frame.pict_type = PictureType.I
        self.picture: Shown | None = Shown(frame)
        self.readers = 0
        self.attached = 0

    def attach(self) -> None:
        self.readers += 1
        self.attached += 1

    def detach(self) -> None:
        self.readers -= 1

    def latest(self) -> Shown | None:
        return self.picture
