"""Opening: the frames since a rung's last keyframe, with which somebody who comes later can start. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from broadcaster.stream import EncodedFrame


@dataclass(frozen=True, slots=True)
class OpeningSettings:
    """Ages in seconds of the keyframe, sizes in octets of all that would be sent.

    Up to `age` and `octets` a start is worth its price on any rung: a new keyframe would hardly come sooner. A small
    one is worth it up to `late_age`: so long the smallest rung (200 kbit/s) stays below `late_octets`, and when its
    keyframe is older than that, a new one costs its viewers less than 3 % (KeyframeConfig.patient_interval).
    """

    age: float = 0.6
    octets: int = 256_000
    late_age: float = 3.5
    late_octets: int = 48_000


class Opening:
    """What one rung has had since its last keyframe, as far as it is needed and worth sending.

    Frames of higher layers are needed only since the newest frame of layer 0: from there on all layers can be decoded,
    where the first frame of each is marked `sync`. Of three layers that leaves two fifths of the octets.
    """

    __slots__ = ("_frames", "_layer", "_octets", "_settings", "_since")

    def __init__(self, settings: OpeningSettings = OpeningSettings()) -> None:
        self._settings = settings
        self._frames: list[EncodedFrame] = []
        self._octets = 0
        self._layer = 0
        self._since = 0.0

    def add(self, frame: EncodedFrame, now: float) -> None:
        """Take the rung's next frame, at `now` seconds."""
        if frame.keyframe:
            self._frames.clear()
            self._octets, self._since = 0, now
        elif not self._frames:
            return
        if frame.layer == 0:
            self._frames = [older for older in self._frames if older.layer == 0]
            self._octets = sum(len(older.payload) for older in self._frames)
            self._layer = 0
        elif frame.layer > self._layer:
            if not frame.sync:
                self._frames.clear()
                return
            self._layer = frame.layer
        self._frames.append(frame)
        self._octets += len(frame.payload)
        self._expire(now)

    def frames(self, now: float) -> list[EncodedFrame]:
        """The frames, the keyframe first, dated as if all were captured with the newest; none where there is no start.

        They leave together. A player that saw the time of their capture between them would take the stream for as late
        as the oldest, and keep that delay.
        """
        self._expire(now)
        newest = len(self._frames) - 1
        return [
            replace(frame, timestamp=(self._frames[-1].timestamp - newest + place) & 0xFFFFFFFF)
            for place, frame in enumerate(self._frames)
        ]

    def _expire(self, now: float) -> None:
        settings, age = self._settings, now - self._since
        young = age <= settings.age and self._octets <= settings.octets
        small = age <= settings.late_age and self._octets <= settings.late_octets
        if not young and not small:
            self._frames.clear()
