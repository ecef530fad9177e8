"""Rungs: which encodings a source gets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import sqrt

from broadcaster.errors import ConfigurationError
from broadcaster.stream import Rung


@dataclass(frozen=True, slots=True)
class LadderConfig:
    """`steps`: (short side in pixels, bit/s at 16:9 and 30 fps), best first. `layers` are the temporal layers of a
    rung, `top_layers` those of the best one: layers cost quality, most where the picture is large. A rung that would
    be more than `crowded` of the rung above is left out. Rungs keep within `floor` and `ceiling` bit/s."""

    steps: tuple[tuple[int, int], ...] = ((1080, 4_500_000), (720, 2_500_000), (360, 800_000), (180, 200_000))
    max_rungs: int = 4
    layers: int = 3
    top_layers: int = 2
    crowded: float = 0.75
    floor: int = 100_000
    ceiling: int = 8_000_000


_STEP = re.compile(r"(\d+)x(\d+)@(\d+(?:\.\d+)?)([kKmM]?)")
_FACTORS = {"": 1, "k": 1_000, "m": 1_000_000}
_SMALLEST_SIDE = 64


def derive_rungs(width: int, height: int, fps: float, config: LadderConfig | None = None) -> tuple[Rung, ...]:
    """The rungs of a source of `width` x `height` pixels at `fps`, best first, never larger than the source.

    The best rung has the source's own size, or the largest step when the source is larger still; the others are the
    steps below it. Every rung keeps the source's shape and rate.
    """
    config = config or LadderConfig()
    short, long = min(width, height), max(width, height)
    best = min(short, config.steps[0][0])
    sides = [best, *(side for side, _ in config.steps if side <= best * config.crowded)]
    if len(sides) > config.max_rungs:
        sides = [*sides[: config.max_rungs - 1], sides[-1]]
    rungs = []
    for index, side in enumerate(sides):
        other = _even(side * long / short)
        size = (other, _even(side)) if width >= height else (_even(side), other)
        layers = config.top_layers if index == 0 and len(sides) > 1 else config.layers
        rungs.append(Rung(f"{side}p", *size, fps, _bitrate(*size, fps, config), layers))
    return tuple(rungs)


def parse_rungs(text: str, width: int, height: int, fps: float, config: LadderConfig | None = None) -> tuple[Rung, ...]:
    """A ladder as a user writes it: "1280x720@2500k,640x360@800k", for a source of `width` x `height` at `fps`.

    Rungs that are larger than the source are refused, as is anything else that cannot be meant: ConfigurationError.
    """
    config = config or LadderConfig()
    steps = []
    for part in text.split(","):
        match = _STEP.fullmatch(part.strip())
        if match is None:
            raise ConfigurationError(f"{part.strip()!r} is no rung: write WIDTHxHEIGHT@BITRATE, like 640x360@800k")
        rung_width, rung_height = int(match[1]), int(match[2])
        bitrate = int(float(match[3]) * _FACTORS[match[4].lower()])
        if rung_width % 2 or rung_height % 2 or min(rung_width, rung_height) < _SMALLEST_SIDE:
            raise ConfigurationError(f"{part.strip()!r}: the sides must be even and at least {_SMALLEST_SIDE} pixels")
        if rung_width > width or rung_height > height:
            raise ConfigurationError(f"{part.strip()!r} is larger than the source, which is {width}x{height}")
        if not config.floor <= bitrate <= config.ceiling:
            raise ConfigurationError(
                f"{part.strip()!r}: the bitrate must be from {config.floor // 1000}k to {config.ceiling // 1000}k"
            )
        steps.append((bitrate, rung_width, rung_height))
    if len({bitrate for bitrate, *_ in steps}) < len(steps):
        raise ConfigurationError(f"{text!r}: no two rungs may have the same bitrate")
    steps.sort(reverse=True)
    names = [f"{min(step[1:])}p" for step in steps]
    return tuple(
        Rung(
            name if names.count(name) == 1 else f"{name}-{bitrate // 1000}k",
            rung_width,
            rung_height,
            fps,
            bitrate,
            config.top_layers if index == 0 and len(steps) > 1 else config.layers,
        )
        for index, (name, (bitrate, rung_width, rung_height)) in enumerate(zip(names, steps, strict=True))
    )


def _even(value: float) -> int:
    return max(2, round(value / 2) * 2)


def _bitrate(width: int, height: int, fps: float, config: LadderConfig) -> int:
    """Interpolated between the steps by pixels; the rate counts by its square root, as pictures that are closer in
    time differ less."""
    pixels = width * height
    points = [(side * side * 16 / 9, bitrate) for side, bitrate in reversed(config.steps)]
    low, high = points[0], points[-1]
    if pixels <= low[0]:
        at_30 = low[1] * pixels / low[0]
    elif pixels >= high[0]:
        at_30 = high[1] * pixels / high[0]
    else:
        high = next(point for point in points if point[0] >= pixels)
        low = points[points.index(high) - 1]
        at_30 = low[1] + (high[1] - low[1]) * (pixels - low[0]) / (high[0] - low[0])
    bitrate = at_30 * sqrt(fps / 30.0)
    return min(config.ceiling, max(config.floor, round(bitrate / 10_000) * 10_000))
