"""Level: (rung, highest temporal layer), the unit of adaptation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Level:
    """What a viewer can be sent.

    `rung` is the index of the rung (0 is the best), `layer` the highest temporal layer, `name` the rung's name;
    `width` and `height` in pixels, `fps` frames per second and `bitrate` bits per second of all layers up to `layer`.
    """

    rung: int
    layer: int
    name: str
    width: int
    height: int
    fps: float
    bitrate: int
