"""The ladder: every rung encodes the same pictures in a thread of its own, as far as somebody watches it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import Interpolation, VideoReformatter

from broadcaster.errors import EncoderError
from broadcaster.ladder.encoder import Encoded, EncoderConfig, RungEncoder
from broadcaster.ladder.keyframes import KeyframeConfig, KeyframeGate
from broadcaster.source.canvas import plane
from broadcaster.source.picture import Picture
from broadcaster.stream import EncodedFrame, Rung, timestamp_at

_log = logging.getLogger(__name__)

OnFrame = Callable[[EncodedFrame], None]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class LadderSettings:
    """`retarget_interval`: seconds between two changes of a rung's bitrate. `retarget_step`: changes below this share
    of the bitrate are not worth a keyframe. `lowest_share`: a rung never goes below this share of its own bitrate.
    `latest_age`: seconds for which the newest picture is good enough to start a rung with. `retry`: seconds until an
    encoder that failed is opened again. `bitrate_window`: seconds over which the bitrate is measured."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    keyframes: KeyframeConfig = field(default_factory=KeyframeConfig)
    retarget_interval: float = 10.0
    retarget_step: float = 0.1
    lowest_share: float = 0.3
    latest_age: float = 1.0
    retry: float = 1.0
    bitrate_window: float = 2.0


@dataclass(frozen=True, slots=True)
class RungStatistics:
    """Counters of one rung since the start: pictures `encoded`, `dropped` because the encoder was late, `keyframes`,
    keyframe `requests`, `failures` of the encoder; `encode_seconds` spent scaling and encoding; the `bitrate` of the
    last seconds and the `target_bitrate` that the encoder is set to, both in bit/s."""

    name: str
    active: bool
    encoded: int
    dropped: int
    keyframes: int
    requests: int
    failures: int
    encode_seconds: float
    bitrate: int
    target_bitrate: int


class Ladder:
    """Encodes what push() brings, once per active rung. Rungs start inactive; see set_demand()."""

    def __init__(
        self,
        rungs: Sequence[Rung],
        on_frame: OnFrame,
        *,
        clock: Clock = time.monotonic,
        settings: LadderSettings | None = None,
    ) -> None:
        """`on_frame` is called from the rungs' threads. Raises EncoderError when a rung cannot be encoded."""
        settings = settings or LadderSettings()
        for rung in rungs:
            RungEncoder(rung, settings.encoder)
        self._clock = clock
        self._latest_age = settings.latest_age
        self._latest: tuple[Picture, float] | None = None
        self._encodings = [_Encoding(index, rung, on_frame, clock, settings) for index, rung in enumerate(rungs)]
        for encoding in self._encodings:
            encoding.start()

    def push(self, picture: Picture) -> None:
        """Offer a picture to all rungs. Never blocks: a rung that is busy loses the picture that was waiting."""
        self._latest = (picture, self._clock())
        for encoding in self._encodings:
            encoding.offer(picture)

    def request_keyframe(self, rung: int, patient: bool = False) -> None:
        """Make the next picture of `rung` a keyframe, unless one was forced a moment ago: then when that is over.

        A `patient` request waits until keyframes made for such alone are rare (KeyframeConfig).
        """
        self._encodings[rung].request_keyframe(patient)

    def set_demand(self, rung: int, active: bool, bitrate: int | None = None) -> None:
        """Encode `rung` or not, at `bitrate` bit/s (None: its own, which is also the most that it gets).

        A rung that becomes active starts with a keyframe, from the newest picture when that is fresh. A running rung
        changes its bitrate at most every `retarget_interval` seconds, with a keyframe.
        """
        latest = self._latest
        fresh = latest[0] if latest and self._clock() - latest[1] <= self._latest_age else None
        self._encodings[rung].set_demand(active, bitrate, fresh)

    def statistics(self) -> list[RungStatistics]:
        """One entry per rung, in their order."""
        return [encoding.statistics() for encoding in self._encodings]

    def close(self) -> None:
        """Stop all rungs and wait for their threads; no frame comes afterwards."""
        for encoding in self._encodings:
            encoding.stop()
        for encoding in self._encodings:
            encoding.join()


class _Encoding(threading.Thread):
    """One rung: a one-slot mailbox and the thread that empties it. What `_wake` guards is marked so."""

    def __init__(self, index: int, rung: Rung, on_frame: OnFrame, clock: Clock, settings: LadderSettings) -> None:
        super().__init__(name=f"encoder-{rung.name}", daemon=True)
        self._index = index
        self._rung = rung
        self._on_frame = on_frame
        self._clock = clock
        self._settings = settings
        self._scaler = _Scaler(rung.width, rung.height)
        self._encoder: RungEncoder | None = None
        self._retargeted_at = 0.0
        self._retry_at = float("-inf")
        self._last_captured = float("-inf")

        self._wake = threading.Condition()
        # Guarded by _wake:
        self._mail: Picture | None = None
        self._active = False
        self._stopping = False
        self._start_anew = False
        self._wanted_bitrate = self._target_bitrate = rung.bitrate
        self._gate = KeyframeGate(settings.keyframes)
        self._encoded = self._dropped = self._keyframes = self._failures = 0
        self._encode_seconds = 0.0
        self._sizes: deque[tuple[float, int]] = deque()

    def offer(self, picture: Picture) -> None:
        with self._wake:
            if self._active:
                self._dropped += self._mail is not None
                self._mail = picture
                self._wake.notify()

    def request_keyframe(self, patient: bool) -> None:
        with self._wake:
            self._gate.request(patient=patient)

    def set_demand(self, active: bool, bitrate: int | None, fresh: Picture | None) -> None:
        own = self._rung.bitrate
        with self._wake:
            self._wanted_bitrate = min(
                own, max(int(own * self._settings.lowest_share), own if bitrate is None else bitrate)
            )
            if active and not self._active:
                self._mail = fresh
                self._start_anew = True
            elif not active:
                self._mail = None
            self._active = active
            self._wake.notify()

    def stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def statistics(self) -> RungStatistics:
        now = self._clock()
        with self._wake:
            self._forget_sizes(now)
            return RungStatistics(
                name=self._rung.name,
                active=self._active,
                encoded=self._encoded,
                dropped=self._dropped,
                keyframes=self._keyframes,
                requests=self._gate.requests,
                failures=self._failures,
                encode_seconds=self._encode_seconds,
                bitrate=int(sum(size for _, size in self._sizes) * 8 / self._settings.bitrate_window),
                target_bitrate=self._target_bitrate,
            )

    def run(self) -> None:
        while True:
            with self._wake:
                while self._mail is None and not self._stopping:
                    if not self._active:
                        self._encoder = None
                    self._wake.wait()
                if self._stopping:
                    return
                if self._start_anew:
                    self._encoder, self._start_anew = None, False
                picture, self._mail, target = self._mail, None, self._wanted_bitrate
            if picture is not None and picture.captured > self._last_captured and self._clock() >= self._retry_at:
                self._encode(picture, target)

    def _encode(self, picture: Picture, target: int) -> None:
        started = self._clock()
        try:
            encoder = self._prepared(target, started)
            with self._wake:
                forced = self._gate.due(started)
            encoded = encoder.encode(self._scaler.scale(picture.frame), picture.captured, keyframe=forced)
        except (EncoderError, FFmpegError, ValueError) as error:
            _log.error("%s: %s; trying again in %g s", self._rung.name, error, self._settings.retry)
            self._encoder = None
            self._retry_at = started + self._settings.retry
            with self._wake:
                self._failures += 1
            return
        self._last_captured = picture.captured
        number = self._count(encoded, encoder.bitrate, started)
        if number is None:
            return
        try:
            self._on_frame(
                EncodedFrame(
                    rung=self._index,
                    index=number,
                    timestamp=timestamp_at(picture.captured),
                    keyframe=encoded.keyframe,
                    layer=encoded.layer,
                    sync=encoded.sync,
                    payload=encoded.payload,
                )
            )
        except Exception:
            _log.exception("a frame of %s was not taken", self._rung.name)

    def _prepared(self, target: int, now: float) -> RungEncoder:
        """The encoder, opened or reopened as the demand wants it."""
        if self._encoder is None:
            self._encoder = RungEncoder(self._rung, self._settings.encoder, bitrate=target)
            self._retargeted_at = now
        elif (
            abs(target - self._encoder.bitrate) > self._settings.retarget_step * self._encoder.bitrate
            and now - self._retargeted_at >= self._settings.retarget_interval
        ):
            self._encoder.retarget(target)
            self._retargeted_at = now
        return self._encoder

    def _count(self, encoded: Encoded, target: int, started: float) -> int | None:
        """Book a frame and return its number, or None when the ladder was closed meanwhile."""
        now = self._clock()
        with self._wake:
            if self._stopping:
                return None
            if encoded.keyframe:
                self._keyframes += 1
                self._target_bitrate = target
                self._gate.made(started)
            self._encode_seconds += now - started
            self._sizes.append((now, len(encoded.payload)))
            self._forget_sizes(now)
            self._encoded += 1
            return self._encoded - 1

    def _forget_sizes(self, now: float) -> None:
        while self._sizes and self._sizes[0][0] < now - self._settings.bitrate_window:
            self._sizes.popleft()


class _Scaler:
    """Brings shared pictures to one size, always as a frame that the encoder may mark."""

    def __init__(self, width: int, height: int) -> None:
        self._width = width
        self._height = height
        self._reformatter = VideoReformatter()
        self._own = av.VideoFrame(width, height, "yuv420p")

    def scale(self, frame: av.VideoFrame) -> av.VideoFrame:
        if (frame.width, frame.height) != (self._width, self._height):
            return self._reformatter.reformat(
                frame,
                width=self._width,
                height=self._height,
                format="yuv420p",
                interpolation=Interpolation.BILINEAR,
                threads=1,
            )
        self._own.make_writable()
        for index in range(3):
            np.copyto(plane(self._own, index), plane(frame, index))
        return self._own
