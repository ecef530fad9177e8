"""What waits for one worker: only rungs that it demands, bounded, and always whole frames from a keyframe on."""

from __future__ import annotations

from collections import deque
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from broadcaster.stream import EncodedFrame


@dataclass(frozen=True, slots=True)
class BacklogLimits:
    """`size` in bytes and `age` in seconds of what may wait; a single frame may wait whatever its size."""

    size: int = 2 * 1024 * 1024
    age: float = 1.0


BACKLOG_LIMITS = BacklogLimits()


class Backlog:
    """Decides for each frame whether it is sent, waits or is lost. Pure: the time is passed in, bytes are handed out.

    When more waits than the limits allow, all of it is lost: what is that late is of no use to a live viewer. A rung
    that lost a frame takes frames again from its next keyframe on.
    """

    def __init__(self, limits: BacklogLimits = BACKLOG_LIMITS) -> None:
        self._limits = limits
        self._waiting: deque[tuple[float, int, bytes]] = deque()
        self._size = 0
        self._demanded: AbstractSet[int] = frozenset()
        self._flowing: set[int] = set()
        self.dropped = 0
        """Frames of demanded rungs that the worker did not get."""

    def __len__(self) -> int:
        return len(self._waiting)

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

    def pop(self) -> bytes:
        """The message that has waited longest; IndexError when none waits."""
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
