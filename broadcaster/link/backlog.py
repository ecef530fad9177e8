"""What waits for one worker: only what it demands, bounded, sound first, and whole frames from a keyframe on."""

from __future__ import annotations

from collections import deque
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from broadcaster.stream import EncodedFrame


@dataclass(frozen=True, slots=True)
class BacklogLimits:
    """`size` in bytes and `age` in seconds of what may wait; a single frame may wait whatever its size. `sounds`:
    packets of sound that may wait, of 20 ms each."""

    size: int = 2 * 1024 * 1024
    age: float = 1.0
    sounds: int = 50


BACKLOG_LIMITS = BacklogLimits()


class Backlog:
    """Decides for each frame whether it is sent, waits or is lost. Pure: the time is passed in, bytes are handed out.

    When more waits than the limits allow, all of it is lost: what is that late is of no use to a live viewer. A rung
    that lost a frame takes frames again from its next keyframe on.

    Sound overtakes the pictures and is not lost with them: it is small, and nobody likes to miss a word. Of sound that
    is too much itself the oldest goes.
    """

    def __init__(self, limits: BacklogLimits = BACKLOG_LIMITS) -> None:
        self._limits = limits
        self._waiting: deque[tuple[float, int, bytes]] = deque()
        self._sounds: deque[bytes] = deque(maxlen=limits.sounds)
        self._size = 0
        self._demanded: AbstractSet[int] = frozenset()
        self._flowing: set[int] = set()
        self.dropped = 0
        """Frames of demanded rungs, and packets of sound, that the worker did not get."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sounds)

    @property
    def demanded(self) -> AbstractSet[int]:
        """The rungs whose frames are taken."""
        return self._demanded

    def demand(self, rungs: AbstractSet[int]) -> AbstractSet[int]:
        """Take frames of these rungs from now on; return those that were not taken before."""
        new = rungs - self._demanded
        self._demanded = rungs
        self._flowing &= rungs
        return new

    def starved(self) -> AbstractSet[int]:
        """The demanded rungs that wait for a keyframe."""
        return self._demanded - self._flowing

    def push(self, frame: EncodedFrame, message: bytes, now: float) -> None:
        """Let `message`, the bytes of `frame`, wait at `now` seconds, or lose it."""
        if frame.rung not in self._demanded:
            return
        if self._waiting and (
            self._size + len(message) > self._limits.size or now - self._waiting[0][0] > self._limits.age
        ):
            self._lose()
        if frame.rung not in self._flowing:
            if not frame.keyframe:
                self.dropped += 1
                return
            self._flowing.add(frame.rung)
        self._waiting.append((now, frame.rung, message))
        self._size += len(message)

    def push_sound(self, message: bytes) -> None:
        """Let the bytes of a packet of sound wait."""
        self.dropped += len(self._sounds) == self._limits.sounds
        self._sounds.append(message)

    def pop(self) -> bytes:
        """The sound, else the frame, that has waited longest; IndexError when nothing waits."""
        if self._sounds:
            return self._sounds.popleft()
        _, _, message = self._waiting.popleft()
        self._size -= len(message)
        return message

    def restart(self) -> None:
        """Forget what waits: every rung begins anew, at a keyframe."""
        self._lose()
        self._flowing.clear()

    def _lose(self) -> None:
        self.dropped += len(self._waiting)
        self._flowing.difference_update(rung for _, rung, _ in self._waiting)
        self._waiting.clear()
        self._size = 0
