"""OpusEncoder: a source's sound, encoded once for everybody, through PyAV and libopus (RFC 6716, RFC 7587)."""

from __future__ import annotations

import re
from fractions import Fraction

import av
from av.audio.codeccontext import AudioCodecContext
from av.error import FFmpegError

from broadcaster.errors import ConfigurationError, EncoderError
from broadcaster.source.sound import PIECE, Sound
from broadcaster.stream import SOUND_CLOCK, EncodedSound

BITRATE = 64_000
"""Bit/s of the sound unless something else is asked for: what RFC 7587 section 3.1.1 gives for music in stereo."""

LEAST_BITRATE, MOST_BITRATE = 6_000, 256_000
"""RFC 6716 section 2 begins at 6 kbit/s. Beyond 256, 20 ms would outgrow a packet of everybody's size."""

_TOLERANCE = 0.04
"""Seconds by which the capture clock may be off the count of samples before the count gives way."""

_BITRATE = re.compile(r"(\d{1,9})(k?)")


def sound_bitrate(text: str) -> int:
    """The bit/s of a user's "64k", 0 for "off". ConfigurationError for anything that cannot be meant."""
    if text == "off":
        return 0
    match = _BITRATE.fullmatch(text)
    bitrate = int(match[1]) * (1000 if match[2] else 1) if match else 0
    if not LEAST_BITRATE <= bitrate <= MOST_BITRATE:
        raise ConfigurationError(
            f"{text!r} is no bitrate for sound: use {LEAST_BITRATE // 1000}k to {MOST_BITRATE // 1000}k, or off"
        )
    return bitrate


class OpusEncoder:
    """Encodes pieces of 20 ms. Not thread-safe. Raises EncoderError when it refuses its bitrate or a piece.

    Timestamps count samples, so that a player finds no gap between two packets, and follow the capture clock only
    where the two differ by more than 40 ms: forward with a gap, back by leaving pieces out.
    """

    def __init__(self, bitrate: int = BITRATE) -> None:
        self._bitrate = bitrate
        self._codec = self._opened()
        self._count = 0
        self._base: int | None = None
        """The capture time, in ticks since 1970, at which the encoder's own time was 0."""

    def encode(self, sound: Sound) -> EncodedSound | None:
        """One packet for one piece; None for a piece that is to be left out."""
        captured, fed = round(sound.captured * SOUND_CLOCK), self._count * PIECE
        ahead = 0 if self._base is None else captured - (self._base + fed)
        if ahead < -_TOLERANCE * SOUND_CLOCK:
            return None
        if self._base is None or ahead > _TOLERANCE * SOUND_CLOCK:
            self._base = captured - fed
        frame = av.AudioFrame.from_ndarray(sound.samples.reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_CLOCK, fed, self._codec.time_base
        try:
            packets = self._codec.encode(frame)
        except (FFmpegError, OSError, ValueError) as error:
            raise EncoderError(f"the encoder of the sound refused a piece: {error}") from error
        if len(packets) != 1 or packets[0].pts is None:
            raise EncoderError(f"the encoder of the sound made {len(packets)} packets of one piece")
        # A packet decodes to what was fed some milliseconds before, and libopus dates it so.
        timestamp = (self._base + packets[0].pts) & 0xFFFFFFFF
        self._count += 1
        return EncodedSound(self._count - 1, timestamp, bytes(packets[0]))

    def _opened(self) -> AudioCodecContext:
        try:
            codec = av.CodecContext.create("libopus", "w")
            assert isinstance(codec, AudioCodecContext)
            codec.sample_rate, codec.layout, codec.format = SOUND_CLOCK, "stereo", "s16"
            codec.time_base = Fraction(1, SOUND_CLOCK)
            codec.bit_rate = self._bitrate
            codec.options = {"application": "audio", "frame_duration": "20", "vbr": "constrained"}
            codec.open()
        except (FFmpegError, OSError, ValueError, OverflowError) as error:
            raise EncoderError(f"Opus at {self._bitrate} bit/s cannot be opened: {error}") from error
        return codec
