"""The viewer's side: what can be shown when, what is asked for again, what is reported. After Chromium (FACTS)."""

from __future__ import annotations

from dataclasses import dataclass, field

from broadcaster.adaptation.levels import Level
from broadcaster.adaptation.trendline import Trendline

NACK_AGAIN = 0.1
"""Seconds after which what did not come is asked for again: what libwebrtc takes for the round-trip time until told,
and who only receives never does."""

NACKS = 10
"""Times that a packet is asked for at most."""

GIVE_UP = 1.0
"""Seconds after which a frame that is not complete is left behind."""

PLI_AFTER = 3.0
"""Seconds without a decodable frame after which Chromium asks for a keyframe."""

PLI_PAUSE = 0.5
FREEZE_FACTOR, FREEZE_MORE = 3.0, 0.15
"""A freeze is an interval between shown pictures above max(3 x average, average + 150 ms): W3C webrtc-stats."""


@dataclass(slots=True)
class Frame:
    """A frame on its way: which numbers its packets have, and which of them are still missing."""

    rung: int
    layer: int
    keyframe: bool
    level: Level
    sent: float
    missing: set[int]
    complete: float | None = None


@dataclass(slots=True)
class Player:
    """Takes packets in the order in which they arrive; times are passed in."""

    frames: list[Frame] = field(default_factory=list)
    shown: list[tuple[float, Level, float]] = field(default_factory=list)
    """When, which level, and how long after it was sent."""

    freezes: list[tuple[float, float]] = field(default_factory=list)
    _owner: dict[int, Frame] = field(default_factory=dict)
    _highest: int = -1
    _lost: dict[int, tuple[int, float]] = field(default_factory=dict)
    _average: float = 1 / 30
    _chain: int | None = None
    _broken: bool = True
    _decoded_at: float = 0.0
    _pli_at: float = -1.0
    plis: int = 0

    def expect(self, frame: Frame) -> None:
        """A frame was sent (or what of it left)."""
        self.frames.append(frame)
        for number in frame.missing:
            self._owner[number] = frame

    def packet(self, now: float, number: int) -> None:
        """Media packet `number` came, the first time or again."""
        self._lost.pop(number, None)
        for gap in range(self._highest + 1, number):
            self._lost[gap] = (0, now)
        self._highest = max(self._highest, number)
        frame = self._owner.pop(number, None)
        if frame is None:
            return
        frame.missing.discard(number)
        if not frame.missing:
            frame.complete = now
        self._show(now)

    @property
    def highest(self) -> int:
        """The highest packet number that came."""
        return self._highest

    def nacks(self, now: float) -> list[int]:
        """What is to be asked for again now."""
        asked = []
        for number, (times, at) in list(self._lost.items()):
            if times >= NACKS:
                del self._lost[number]
                continue
            if times == 0 or now - at >= NACK_AGAIN:
                self._lost[number] = (times + 1, now)
                asked.append(number)
        return asked

    def wants_keyframe(self, now: float) -> bool:
        """PLI: nothing could be decoded for a while."""
        self._give_up(now)
        if not self._broken or now - self._decoded_at < PLI_AFTER or now - self._pli_at < PLI_PAUSE:
            return False
        self._pli_at = now
        self.plis += 1
        return True

    def finish(self, now: float) -> None:
        """The end: what is not shown now is a freeze if it lasts."""
        if self.shown:
            self._count_freeze(now)

    def _show(self, now: float) -> None:
        while self.frames:
            frame = self.frames[0]
            if frame.complete is None:
                if self._is_lost(frame):
                    self._drop(frame)
                    continue
                return
            self.frames.pop(0)
            if frame.keyframe:
                self._broken, self._chain = False, frame.rung
            if self._broken or frame.rung != self._chain:
                continue
            self._decoded_at = now
            if self.shown:
                self._count_freeze(now)
            self.shown.append((now, frame.level, now - frame.sent))

    def _is_lost(self, frame: Frame) -> bool:
        """Whether nobody will bring what is missing: it was given up, and later frames are there."""
        return not any(number in self._lost or number > self._highest for number in frame.missing)

    def _drop(self, frame: Frame) -> None:
        self.frames.pop(0)
        for number in frame.missing:
            self._owner.pop(number, None)
        if frame.layer == 0:
            self._broken = True

    def _give_up(self, now: float) -> None:
        """A keyframe that is complete makes everything before it worthless."""
        later = next((place for place, frame in enumerate(self.frames) if frame.keyframe and frame.complete), None)
        if later:
            for frame in self.frames[:later]:
                for number in frame.missing:
                    self._owner.pop(number, None)
                    self._lost.pop(number, None)
            del self.frames[:later]
        if self.frames:
            self._show(now)
        while self.frames and self.frames[0].complete is None and now - self.frames[0].sent > GIVE_UP:
            self._drop(self.frames[0])
            self._show(now)

    def _count_freeze(self, now: float) -> None:
        interval = now - self.shown[-1][0]
        if len(self.shown) > 5 and interval > max(FREEZE_FACTOR * self._average, self._average + FREEZE_MORE):
            self.freezes.append((self.shown[-1][0], interval))
        self._average += (interval - self._average) / min(30, len(self.shown) + 1)


class Remb:
    """The estimate of a receiver without transport-wide feedback (draft-ietf-rmcat-gcc-02 at the receiver)."""

    GROWTH, BACK_OFF, PLATEAU = 1.08, 0.85, 1.6

    def __init__(self) -> None:
        self.value = 300_000.0
        self._trend = Trendline()
        self._updated = 0.0
        self._sent = -1.0
        self._over = False
        self._recent: list[tuple[float, int]] = []
        self._held = -1.0

    def packet(self, sent: float, arrived: float, octets: int) -> None:
        self._recent.append((arrived, octets))
        if sent - self._sent > 0.005:
            self._over = self._over or self._trend.update(arrived, arrived - sent) == "over"
            self._sent = sent

    def update(self, now: float) -> float:
        """Every 0.3 s."""
        self._recent = [one for one in self._recent if now - one[0] <= 1.0]
        arriving = 8.0 * sum(octets for _, octets in self._recent)
        if self._over and now - self._held > 0.3:
            self.value, self._held = min(self.value, self.BACK_OFF * arriving), now
        elif now - self._held > 0.5:
            self.value = max(
                self.value, min(self.value * self.GROWTH ** (now - self._updated), self.PLATEAU * arriving)
            )
        self._over, self._updated = False, now
        self.value = max(30_000.0, self.value)
        return self.value
