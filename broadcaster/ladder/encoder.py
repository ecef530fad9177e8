"""RungEncoder: VP8 with temporal layers, through PyAV and libvpx."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from broadcaster.errors import EncoderError
from broadcaster.ladder.layers import layer_pattern
from broadcaster.stream import RTP_CLOCK, Rung


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """libvpx's options. `cpu_used`: speed, -4 (better) to -16 (faster). `buffer_seconds`: how much of the bitrate may
    come at once. `max_keyframe`: size limit of a keyframe, in percent of a picture's share of the bitrate.
    `keyframe_interval`: pictures between two keyframes when nobody asks for one. `smoothing`: weight of the newest
    distance of two pictures in their average, where one beyond `longest_distance` seconds counts as that much."""

    cpu_used: int = -6
    buffer_seconds: float = 1.0
    undershoot: int = 100
    overshoot: int = 15
    static_threshold: int = 1
    max_keyframe: int = 300
    keyframe_interval: int = 3000
    smoothing: float = 0.1
    longest_distance: float = 0.5


@dataclass(frozen=True, slots=True)
class Encoded:
    """One encoded picture; `layer` and `sync` as in EncodedFrame."""

    payload: bytes
    keyframe: bool
    layer: int
    sync: bool


class RungEncoder:
    """Encodes the pictures of one rung. Not thread-safe.

    The first picture is a keyframe, and so is the first after each change of the bitrate: libvpx's binding ignores a
    new bitrate while it runs, so the encoder is opened anew. Raises EncoderError when it refuses settings or a picture.
    """

    def __init__(self, rung: Rung, config: EncoderConfig | None = None, *, bitrate: int | None = None) -> None:
        """`bitrate` in bit/s stands for the rung's own."""
        self.rung = rung
        self.bitrate = bitrate or rung.bitrate
        self._config = config or EncoderConfig()
        self._pattern = layer_pattern(rung.layers)
        self._codec = self._opened()
        self._since_keyframe = 0
        self._captured: float | None = None
        self._interval = 1.0 / rung.fps
        self._time = 0.0

    def retarget(self, bitrate: int) -> None:
        """Encode at `bitrate` bit/s from the next picture on, which becomes a keyframe."""
        self.bitrate = bitrate
        self._codec = self._opened()

    def encode(self, frame: av.VideoFrame, captured: float, *, keyframe: bool = False) -> Encoded:
        """Encode `frame` (yuv420p, the rung's size), captured at the wall time `captured` in seconds.

        The frame's attributes are overwritten, so it must be the caller's own.
        """
        if (frame.width, frame.height) != (self.rung.width, self.rung.height):
            raise EncoderError(
                f"the encoder of {self.rung.name} takes {self.rung.width}x{self.rung.height}, "
                f"not {frame.width}x{frame.height}"
            )
        frame.pts = self._steady_time(captured)
        frame.time_base = self._codec.time_base
        frame.duration = max(1, round(RTP_CLOCK / self.rung.fps))
        frame.pict_type = PictureType.I if keyframe else PictureType.NONE
        try:
            packets = self._codec.encode(frame)
        except (FFmpegError, OSError, ValueError) as error:
            raise EncoderError(f"the encoder of {self.rung.name} refused a picture: {error}") from error
        if len(packets) != 1:
            raise EncoderError(f"the encoder of {self.rung.name} made {len(packets)} frames of one picture")
        packet = packets[0]
        self._since_keyframe = 0 if packet.is_keyframe else self._since_keyframe + 1
        return Encoded(
            payload=bytes(packet),
            keyframe=packet.is_keyframe,
            layer=self._pattern.layer(self._since_keyframe),
            sync=self._pattern.is_sync(self._since_keyframe),
        )

    def _steady_time(self, captured: float) -> int:
        """The encoder's own time, in ticks: it runs as fast as the pictures come on average.

        libvpx takes each distance of two timestamps for the frame rate. Given the true times, one lost picture in
        twenty made it exceed the bitrate by 40 %.
        """
        if self._captured is not None:
            distance = min(max(captured - self._captured, 0.0), self._config.longest_distance)
            self._interval += (distance - self._interval) * self._config.smoothing
            self._time += max(self._interval, 2.0 / RTP_CLOCK)
        self._captured = captured
        return round(self._time * RTP_CLOCK)

    def _opened(self) -> VideoCodecContext:
        rung, config, bitrate = self.rung, self._config, self.bitrate
        try:
            codec = av.CodecContext.create("libvpx", "w")
            assert isinstance(codec, VideoCodecContext)
            codec.width, codec.height, codec.pix_fmt = rung.width, rung.height, "yuv420p"
            codec.time_base = Fraction(1, RTP_CLOCK)
            codec.framerate = Fraction(rung.fps).limit_denominator(1001)
            codec.bit_rate = bitrate
            codec.gop_size = config.keyframe_interval
            codec.thread_count = 1
            codec.options = self._options(bitrate)
            codec.open()
        except (FFmpegError, OSError, ValueError, OverflowError) as error:
            raise EncoderError(
                f"VP8 at {rung.width}x{rung.height}, {bitrate} bit/s cannot be opened: {error}"
            ) from error
        return codec

    def _options(self, bitrate: int) -> dict[str, str]:
        config = self._config
        options = {
            "deadline": "realtime",
            "cpu-used": str(config.cpu_used),
            "lag-in-frames": "0",
            "minrate": str(bitrate),
            "maxrate": str(bitrate),
            "bufsize": str(int(bitrate * config.buffer_seconds)),
            "undershoot-pct": str(config.undershoot),
            "overshoot-pct": str(config.overshoot),
            "static-thresh": str(config.static_threshold),
            "max-intra-rate": str(config.max_keyframe),
            # Without it, the entropy state of a dropped frame is missed by those that follow.
            "error-resilient": "1",
        }
        if self._pattern.count > 1:
            options["ts-parameters"] = self._pattern.parameters(bitrate)
        return options
