"""FrameSelector: which encoded frames one viewer gets. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from broadcaster.adaptation.levels import Level
from broadcaster.stream import RTP_CLOCK, EncodedFrame

_HALF = 1 << 31
_MASK = 0xFFFFFFFF

LAG_LIMIT = 75 * RTP_CLOCK // 1000
"""RTP ticks by which a better rung may lag behind the one on show when its keyframe comes (mediasoup allows 75 ms)."""


class FrameSelector:
    """Takes or leaves each frame so that what is taken can always be decoded.

    A rung changes at a keyframe only; a higher layer starts at a frame with `sync` (the Y bit of RFC 7741, which
    depends on the base layer alone) or at a keyframe; layers drop at once.

    The rungs of one picture arrive in any order. The cheaper rung encodes faster, so on the way up the keyframe comes
    after its own picture has been taken from the old rung, and waiting for one with a newer picture would wait for
    ever. It is taken, and sent one RTP tick after the last frame: `timestamp` says when, for the frame accepted
    last, and always grows. On the way down the keyframe comes first, and the old rung's picture is left out.
    """

    __slots__ = (
        "_by_place", "_ceiling", "_entry", "_late", "_layer", "_rung", "_want_layer", "_want_rung", "target",
        "timestamp", "waiting_for",
    )  # fmt: skip

    def __init__(self, levels: Sequence[Level], target: Level, entry: int | None = None) -> None:
        """`entry` is a rung that will do for the first picture, until the keyframe of the target's rung comes."""
        self._entry = entry
        self._by_place = {(level.rung, level.layer): level for level in levels}
        self._rung = -1
        self._layer = -1
        self._ceiling = -1
        self._late = False
        self.timestamp = 0
        """RTP timestamp to send the frame accepted last with."""
        self.target = target
        self.waiting_for: int | None = target.rung
        """The rung whose keyframe is needed, None when there is nothing to wait for."""
        self._want_rung = target.rung
        self._want_layer = target.layer

    def relevel(self, levels: Sequence[Level], target: Level, *, restart: bool) -> None:
        """The ladder changed: go on towards `target` by the new `levels`.

        `restart` says that the frames to come do not continue those before (another run of the broadcaster, other
        rungs): then everything waits for a keyframe of the target's rung.
        """
        self._by_place = {(level.rung, level.layer): level for level in levels}
        if restart:
            self._rung = self._layer = self._ceiling = -1
            self._late = False
            self._entry = None
        self.aim(target)

    def pause(self) -> None:
        """Take nothing more, until `aim` says where to go on: at a keyframe there."""
        self._rung = self._layer = self._ceiling = -1
        self._late = False
        self._entry = None
        self.waiting_for = None

    @property
    def paused(self) -> bool:
        """Whether no frame is taken, of any rung."""
        return self._rung < 0 and self.waiting_for is None

    @property
    def current(self) -> Level | None:
        """What the viewer gets now; None before the first keyframe."""
        return self._by_place.get((self._rung, self._layer))

    @property
    def entry(self) -> int | None:
        """The rung beside `waiting_for` whose keyframe is a start; None after the first keyframe."""
        return None if self._rung >= 0 or self._entry == self.waiting_for else self._entry

    @property
    def steady(self) -> int | None:
        """The layer up to which `accepts` would take every frame of the current rung, and nothing else, until the
        next `aim` or `relevel`; None while it has to be asked.

        Who sends those frames unasked sets `timestamp` to the last one's before `accepts` is called again.
        """
        waits = self.waiting_for is not None or self._late or self._layer != self._ceiling
        return None if waits or self._rung < 0 else self._layer

    def aim(self, target: Level) -> None:
        """Go to `target`: at once to fewer layers, at the next chance to more, at the next keyframe to another rung.

        Until that keyframe the old rung goes on, with no more frames per second than `target` has.
        """
        self.target = target
        self._want_rung, self._want_layer = target.rung, target.layer
        self.waiting_for = None if target.rung == self._rung else target.rung
        if self._rung < 0:
            return
        if self.waiting_for is None:
            self._ceiling = target.layer
        else:
            self._ceiling = min(self._layer, self._affordable(self._rung))
        self._layer = min(self._layer, self._ceiling)

    def _affordable(self, rung: int) -> int:
        """The highest layer of `rung` with no more frames per second than the target."""
        layers = (layer for (other, layer), level in self._by_place.items() if other == rung)
        return max((layer for layer in layers if self._by_place[rung, layer].fps <= self.target.fps), default=0)

    def accepts(self, frame: EncodedFrame) -> bool:
        """Whether the viewer gets `frame`. Call it once for every frame of the current rung, of the one waited for and
        of the `entry`.
        """
        if frame.rung == self._rung:
            layer = frame.layer
            if frame.keyframe:
                self._layer = self._ceiling
            elif layer > self._layer:
                if not frame.sync or layer > self._ceiling:
                    return False
                self._layer = layer
            if self._late:
                self._stamp(frame.timestamp)
            else:
                self.timestamp = frame.timestamp
            return True
        if not frame.keyframe or frame.rung not in (self.waiting_for, self.entry):
            return False
        if self._rung >= 0:
            if (self.timestamp - frame.timestamp) & _MASK in range(LAG_LIMIT + 1, _HALF):
                return False
            self._stamp(frame.timestamp)
        else:
            self.timestamp = frame.timestamp
        if frame.rung == self.waiting_for:
            self._layer = self._ceiling = self._want_layer
            self.waiting_for = None
        else:
            self._layer = self._ceiling = self._affordable(frame.rung)
        self._rung = frame.rung
        return True

    def _stamp(self, timestamp: int) -> None:
        self._late = (timestamp - self.timestamp - 1) & _MASK >= _HALF
        self.timestamp = (self.timestamp + 1) & _MASK if self._late else timestamp
