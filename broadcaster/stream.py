"""What a stream is: its rungs, their temporal layers, its sound, and one encoded frame of either.

Plain values that cross every border of the house: the ladder makes frames, the frame link carries them, the
workers forward them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from broadcaster.adaptation.levels import Level
from broadcaster.errors import ConfigurationError

RTP_CLOCK = 90_000
"""Ticks per second of every video RTP timestamp (RFC 7741 section 4.1)."""

SOUND_CLOCK = 48_000
"""Ticks per second of every RTP timestamp of sound, whatever was encoded (RFC 7587 section 4.1)."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

LAYER_SHARES: dict[int, tuple[float, ...]] = {1: (1.0,), 2: (0.6, 1.0), 3: (0.4, 0.6, 1.0)}
"""Cumulated share of a rung's bitrate that temporal layers 0..n carry, by number of layers (libvpx's defaults)."""


def stream_name(text: str) -> str:
    """Return `text` when it can name a stream, else raise ConfigurationError.

    A name is 1 to 63 characters of a-z, 0-9, dot, dash and underscore, and starts with a letter or a digit: it
    stands in URLs, in Redis keys and in file names.
    """
    if not _NAME.fullmatch(text):
        raise ConfigurationError(
            f"{text!r} cannot name a stream: use 1 to 63 of a-z, 0-9, '.', '-' and '_', starting with a letter or digit"
        )
    return text


@dataclass(frozen=True, slots=True)
class Rung:
    """One encoding of a stream: `name` ("720p"), size in pixels, `fps` at its highest layer, `bitrate` in bit/s."""

    name: str
    width: int
    height: int
    fps: float
    bitrate: int
    layers: int

    def layer_fps(self, layer: int) -> float:
        """Frames per second of layers 0..`layer`: each layer doubles the rate."""
        return self.fps / float(2 ** (self.layers - 1 - layer))

    def layer_bitrate(self, layer: int) -> int:
        """Bits per second of layers 0..`layer`."""
        return int(self.bitrate * LAYER_SHARES[self.layers][layer])


@dataclass(frozen=True, slots=True)
class SoundFormat:
    """How a stream's sound is encoded: the names of SDP's rtpmap (RFC 7587 section 7), in lower case."""

    codec: str
    clock: int
    channels: int


OPUS = SoundFormat("opus", SOUND_CLOCK, 2)


@dataclass(frozen=True, slots=True)
class StreamDescription:
    """A stream as a worker sees it. `rungs` is ordered best first; `epoch` tells two runs of a broadcaster apart;
    `sound` is None where there is none."""

    name: str
    epoch: int
    rungs: tuple[Rung, ...]
    sound: SoundFormat | None = None
    _levels: tuple[Level, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_levels", _levels(self.rungs))

    def continues(self, before: StreamDescription) -> bool:
        """Whether frames described here follow those described by `before`: only rates and bitrates have changed."""
        return self.epoch == before.epoch and [(rung.name, rung.layers) for rung in self.rungs] == [
            (rung.name, rung.layers) for rung in before.rungs
        ]

    def levels(self) -> tuple[Level, ...]:
        """Every (rung, highest layer) that a viewer can be on, cheapest first. All viewers keep the same ones."""
        return self._levels


def _levels(rungs: tuple[Rung, ...]) -> tuple[Level, ...]:
    levels = [
        Level(
            rung=index,
            layer=layer,
            name=rung.name,
            width=rung.width,
            height=rung.height,
            fps=rung.layer_fps(layer),
            bitrate=rung.layer_bitrate(layer),
        )
        for index, rung in enumerate(rungs)
        for layer in range(rung.layers)
    ]
    return tuple(sorted(levels, key=lambda level: (level.bitrate, level.fps)))


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One encoded picture of one rung.

    `rung` indexes the description's rungs; `index` counts the frames of that rung; `timestamp` is the capture time
    in ticks of the wall clock (90 kHz, 32 bit), the same for all rungs of one picture; `layer` is its temporal layer;
    `sync` says that a viewer may climb to this layer here (the Y bit of RFC 7741).
    """

    rung: int
    index: int
    timestamp: int
    keyframe: bool
    layer: int
    sync: bool
    payload: bytes


@dataclass(frozen=True, slots=True)
class EncodedSound:
    """One packet of sound, 20 ms of it. `index` counts them; `timestamp` is the capture time in ticks of the wall clock
    (48 kHz, 32 bit), the same clock as that of the pictures."""

    index: int
    timestamp: int
    payload: bytes


def timestamp_at(wall: float) -> int:
    """The RTP timestamp of the wall-clock time `wall` (seconds since 1970).

    All rungs and all viewers share this one clock, so a switch of rungs keeps RTP time continuous without any
    bookkeeping, and a player can tell the age of a picture from its timestamp alone.
    """
    return int(wall * RTP_CLOCK) & 0xFFFFFFFF


def sound_timestamp_at(wall: float) -> int:
    """The same for sound: a player that knows both clocks' reading at one moment shows and plays them together."""
    return int(wall * SOUND_CLOCK) & 0xFFFFFFFF
