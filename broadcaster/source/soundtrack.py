"""Soundtrack: the sound of one input, between the thread that decodes it and the one that plays it."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.error import FFmpegError
from av.packet import Packet

from broadcaster.source.sound import PIECE_SECONDS, Cutter, Samples
from broadcaster.stream import SOUND_CLOCK


@dataclass(frozen=True, slots=True)
class SoundtrackConfig:
    """`ahead`: seconds of sound that may wait to be played, as between two pictures of a slide show; what comes while
    so much waits is lost. `early`: frames that are kept until the first picture tells what time it is."""

    ahead: float = 30.0
    early: int = 200


class Soundtrack:
    """Whatever was decoded, as pieces of 20 ms in stereo at 48 kHz. Never blocks who adds to it."""

    def __init__(self, config: SoundtrackConfig | None = None) -> None:
        self.config = config = config or SoundtrackConfig()
        self._pieces: queue.Queue[tuple[float, Samples]] = queue.Queue(int(config.ahead / PIECE_SECONDS))
        self._cutter = Cutter()
        self._resampler = _resampler()

    def begin(self) -> None:
        """What is added from now on does not continue what was added before: another round, another decoder."""
        self._resampler = _resampler()
        self._cutter.align()

    def add(self, frame: av.AudioFrame, media_time: float | None) -> None:
        """Take a decoded frame of any format whose first sample is at `media_time` seconds, None where it is not known.
        One that cannot be resampled is lost."""
        frame.pts = None
        try:
            resampled = self._resampler.resample(frame)
        except (FFmpegError, ValueError):
            # The format has changed, as at an advertisement.
            self._resampler = _resampler()
            return
        for part in resampled:
            samples = part.to_ndarray().reshape(-1, 2).astype(np.int16, copy=False)
            for piece in self._cutter.add(media_time, samples):
                try:
                    self._pieces.put_nowait(piece)
                except queue.Full:
                    return
            media_time = None

    def take(self, timeout: float) -> tuple[float, Samples] | None:
        """The next piece and the media time of its first sample, or None after `timeout` seconds without one."""
        try:
            return self._pieces.get(timeout=timeout)
        except queue.Empty:
            return None


class Listener:
    """Takes the packets of sound out of one round of an input, and what they say into a soundtrack."""

    def __init__(self, soundtrack: Soundtrack, offset: float) -> None:
        """`offset` is the media time of the round's first picture."""
        self._soundtrack = soundtrack
        self._offset = offset
        self._first: float | None = None
        self._early: list[av.AudioFrame] = []
        self._most_early = soundtrack.config.early
        soundtrack.begin()

    def aside(self, packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
        """The packets that are no sound."""
        for packet in packets:
            if isinstance(packet.stream, AudioStream):
                self._hear(cast("Packet[AudioStream]", packet))
            else:
                yield packet

    def began(self, first: float) -> None:
        """The first picture has this time, in seconds of the container."""
        if self._first is None:
            self._first = first
            for frame in self._early:
                self._add(frame, first)
            self._early.clear()

    def _hear(self, packet: Packet[AudioStream]) -> None:
        try:
            frames = packet.decode()
        except FFmpegError:
            return  # a gap in the sound, and no more
        for frame in frames:
            if self._first is None:
                self._early = [*self._early[-self._most_early :], frame]
            else:
                self._add(frame, self._first)

    def _add(self, frame: av.AudioFrame, first: float) -> None:
        media_time = None if frame.time is None else self._offset + frame.time - first
        self._soundtrack.add(frame, media_time)


def _resampler() -> AudioResampler:
    return AudioResampler(format="s16", layout="stereo", rate=SOUND_CLOCK)
