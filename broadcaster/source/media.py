"""Media: whatever PyAV opens (files, URLs, cameras), decoded in a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import ExitError, FFmpegError, InvalidDataError
from av.packet import Packet
from av.video.stream import VideoStream

from broadcaster.errors import SourceError
from broadcaster.source.fit import upright_size
from broadcaster.source.interleaving import sound_ahead
from broadcaster.source.soundtrack import Listener, Soundtrack

_log = logging.getLogger(__name__)

DEVICE_FORMATS = ("v4l2", "avfoundation", "dshow")
"""Kinds of camera: v4l2:/dev/video0 on Linux, avfoundation:0 on macOS, dshow:video=NAME on Windows."""

_SEGMENTED = ("hls", "dash")
"""Live formats that arrive in bursts of seconds and are paced by their timestamps, like a recording."""

_LIVE_OPTIONS = {
    "fflags": "nobuffer",
    "flags": "low_delay",
    "rtsp_transport": "tcp",
    "analyzeduration": "1000000",
}


@dataclass(frozen=True, slots=True)
class MediaConfig:
    """`open_timeout`, `read_timeout`: seconds of silence after which an input counts as dead. `max_fps` caps the
    announced rate; `fallback_fps` stands for a rate that the input does not know or that makes no sense. `ahead`:
    pictures decoded before they are due. `broken_packets`: undecodable packets in a row that end an input."""

    open_timeout: float = 5.0
    read_timeout: float = 5.0
    max_fps: float = 60.0
    fallback_fps: float = 30.0
    ahead: int = 4
    broken_packets: int = 300


@dataclass(frozen=True, slots=True)
class Location:
    """Where an input is: `address` for FFmpeg, its `format` when the address does not tell; `local` for files."""

    address: str
    format: str | None = None
    local: bool = False

    @classmethod
    def parse(cls, spec: str) -> Location:
        """ "v4l2:/dev/video0", a URL, or the path of a file. Raises SourceError when there is no such file."""
        prefix, colon, rest = spec.partition(":")
        if colon and prefix in DEVICE_FORMATS:
            return cls(rest, format=prefix)
        if "://" in spec:
            return cls(spec)
        if not Path(spec).is_file():
            what = "that is a folder" if spec and Path(spec).is_dir() else "there is no such file"
            raise SourceError(f"cannot open {spec!r}: {what}; give the path of a file, a URL or 'pattern'")
        return cls(spec, local=True)


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What probing found: size of the upright picture, frames per second, and whether there is sound."""

    width: int
    height: int
    fps: float
    sound: bool


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded frame: `media_time` in seconds, growing across loops; `pixel_aspect` is width by height of a pixel;
    `paced` says that it is to be shown by its time and not at once."""

    frame: av.VideoFrame
    media_time: float
    pixel_aspect: float
    paced: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The input is over; `reason` is one sentence."""

    reason: str


def probe(location: Location, config: MediaConfig | None = None) -> MediaInfo:
    """Open an input and decode its first picture. Raises SourceError with one sentence when that fails."""
    config = config or MediaConfig()
    try:
        with _opened(location, config) as container:
            stream = _video_stream(container, location)
            sound = _sound_stream(container) is not None
            for frame in _frames(container.demux(stream), config):
                width, height = upright_size(frame, _pixel_aspect(stream))
                return MediaInfo(width, height, min(_rate(stream, config), config.max_fps), sound)
    except (FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"cannot open {location.address!r}: {_sentence(error)}") from error
    raise SourceError(f"cannot open {location.address!r}: it holds no picture that can be decoded")


@dataclass(eq=False)
class Reader:
    """Decodes an input ahead of time in its own thread, recordings in an endless loop without a gap.

    With `sound` its sound is in `soundtrack`, at the media times of the pictures that it belongs to.
    """

    location: Location
    config: MediaConfig = field(default_factory=MediaConfig)
    sound: bool = False

    def __post_init__(self) -> None:
        self.soundtrack = Soundtrack()
        self._queue: queue.Queue[Decoded | Ended] = queue.Queue(self.config.ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="source-decoder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it does at its next picture, or when its read times out."""
        self._stopped.set()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def take(self, timeout: float) -> Decoded | Ended | None:
        """The next picture in order, or None after `timeout` seconds without one."""
        try:
            return self._queue.get(timeout=max(0.001, timeout))
        except queue.Empty:
            return None

    def _work(self) -> None:
        try:
            for decoded in self._pictures():
                if not self._put(decoded):
                    return
            reason = "the input ended"
        except (FFmpegError, OSError, ValueError) as error:
            reason = _sentence(error)
        except SourceError as error:
            reason = error.detail
        except Exception as error:
            _log.exception("a decoder failed")
            reason = _sentence(error)
        self._put(Ended(reason))

    def _put(self, item: Decoded | Ended) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def _pictures(self) -> Iterator[Decoded]:
        container = _opened(self.location, self.config)
        try:
            looped, paced = _is_looped(container, self.location), _is_paced(container, self.location)
            pictures = self._once(container, 0.0, paced)
            first = next(pictures, None)
            start = first.frame.pts if first else None
            while first is not None:
                yield first
                end = first.media_time + _duration(first.frame, self.config)
                for decoded in pictures:
                    yield decoded
                    end = decoded.media_time + _duration(decoded.frame, self.config)
                if not looped:
                    return
                pictures = self._once(container, end, paced) if self._rewound(container) else iter(())
                first = next(pictures, None)
                if first is None or first.frame.pts is None or first.frame.pts != start:
                    # Seeking did not reach the first picture, as in formats without an index.
                    container.close()
                    container = _opened(self.location, self.config)
                    pictures = self._once(container, end, paced)
                    first = next(pictures, None)
            raise SourceError("it holds no picture that can be decoded")
        finally:
            container.close()

    def _once(self, container: InputContainer, offset: float, paced: bool) -> Iterator[Decoded]:
        stream = _video_stream(container, self.location)
        listener = Listener(self.soundtrack, offset)
        sound = _sound_stream(container) if self.sound else None
        packets = _packets(container, stream, sound, paced)
        pixel_aspect = _pixel_aspect(stream)
        interval = 1.0 / _rate(stream, self.config)
        first: float | None = None
        media_time = offset - interval
        for frame in _frames(listener.aside(packets), self.config):
            if frame.duration == 0 and frame.time_base:
                frame.duration = max(1, round(interval / frame.time_base))
            if frame.pts is None:
                media_time += interval
            else:
                first = frame.time if first is None else first
                media_time = offset + frame.time - first
            listener.began(first or 0.0)
            yield Decoded(frame, media_time, pixel_aspect, paced)

    def _rewound(self, container: InputContainer) -> bool:
        stream = _video_stream(container, self.location)
        try:
            container.seek(stream.start_time or 0, stream=stream)
        except (FFmpegError, OSError):
            return False
        return True


def _opened(location: Location, config: MediaConfig) -> InputContainer:
    timeout = None if location.local else (config.open_timeout, config.read_timeout)
    options = {} if location.local else dict(_LIVE_OPTIONS)
    container = av.open(location.address, mode="r", format=location.format, options=options, timeout=timeout)
    # Decoding several pictures at once is faster, but each thread adds a picture of delay.
    for stream in container.streams.video:
        stream.thread_type = "AUTO" if _is_paced(container, location) else "SLICE"
    return container


def _is_looped(container: InputContainer, location: Location) -> bool:
    return location.local or bool(container.duration)


def _is_paced(container: InputContainer, location: Location) -> bool:
    formats = container.format.name.split(",")
    return _is_looped(container, location) or any(name in _SEGMENTED for name in formats)


def _video_stream(container: InputContainer, location: Location) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise SourceError(f"cannot open {location.address!r}: it holds no video")
    return stream


def _sound_stream(container: InputContainer) -> AudioStream | None:
    """The stream of the input's sound; None where there is none, or none that can be decoded."""
    stream = container.streams.best("audio")
    known = isinstance(stream, AudioStream) and stream.codec_context is not None
    return stream if known and isinstance(stream, AudioStream) and stream.rate and stream.channels else None


def _packets(
    container: InputContainer, stream: VideoStream, sound: AudioStream | None, paced: bool
) -> Iterator[Packet[Any]]:
    if sound is None:
        return container.demux(stream)
    packets = container.demux(stream, sound)
    # What is shown as it comes waits for nothing.
    return sound_ahead(packets, sound.index) if paced else packets


def _frames(packets: Iterator[Packet[Any]], config: MediaConfig) -> Iterator[av.VideoFrame]:
    broken = 0
    for packet in packets:
        try:
            frames = packet.decode()
        except InvalidDataError:
            broken += 1
            if broken > config.broken_packets:
                raise
            continue
        broken = 0
        for frame in frames:
            if isinstance(frame, av.VideoFrame):
                yield frame


def _duration(frame: av.VideoFrame, config: MediaConfig) -> float:
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 1.0 / config.fallback_fps


def _rate(stream: VideoStream, config: MediaConfig) -> float:
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    return rate if 1.0 <= rate <= 240.0 else config.fallback_fps


def _pixel_aspect(stream: VideoStream) -> float:
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 0.25 <= aspect <= 4.0 else 1.0


def _sentence(error: Exception) -> str:
    if isinstance(error, ExitError):
        return "it does not answer"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{reason[:1].lower()}{reason[1:]}"
