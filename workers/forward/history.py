"""What a viewer was sent lately, and which lost packets are worth sending again.

The frames themselves are shared by all viewers of a rung; a viewer keeps one small record per frame, in the ring that
the fan-out writes, from which any of its packets can be told by sequence number. What goes out again is bounded,
because a viewer that loops its NACKs must not turn a few kilobytes of requests into megabytes of media.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from workers.forward.packets import CHUNK_SIZE, CONTINUATION, DESCRIPTOR_SIZE
from workers.forward.state import ffi

_CONTINUES = (CONTINUATION >> 8).to_bytes(1, "big")


@dataclass(frozen=True, slots=True)
class HistoryLimits:
    """How far retransmission goes.

    `frames` (each costs a viewer 40 octets) and `age` (seconds) bound what is remembered: later than a second no player
    waits for a packet.
    `resends`: of one packet, where LiveKit's three leave one of a thousand lost at 10 % loss, and libwebrtc asks ten
    times. `unknown_rtt` (seconds between them while the round-trip time is not known) is LiveKit's; `shortest` is the
    least time between two resends of a packet. `share` is the part of the media octets sent that may be sent again,
    `burst` the octets at once, about one keyframe; `tight_share` and `tight_burst` the same where the path has no room,
    for resends would only lengthen its queue, and after a keyframe there is at least `tight_burst`. Of more than `few`
    packets in one request none is sent more than once: chance seldom takes so many, and who has no room for them has
    none for copies.
    """

    frames: int = 40
    age: float = 1.0
    resends: int = 6
    shortest: float = 0.02
    unknown_rtt: float = 0.1
    share: float = 0.5
    burst: int = 60_000
    tight_share: float = 0.1
    tight_burst: int = 6_000
    few: int = 4


HISTORY_LIMITS = HistoryLimits()


class LostPacket(NamedTuple):
    """A packet to send again: the chunk number `place` of the frame that its fan-out knows as `serial`."""

    sequence: int
    timestamp: int
    marker: bool
    descriptor: bytes
    serial: int
    place: int

    @property
    def is_base(self) -> bool:
        """Whether its frame is of temporal layer 0, on which all others build."""
        return self.descriptor[-1] >> 6 == 0


class History:
    """The records of one viewer, read from its state. Sequence numbers are extended: they count on beyond 16 bits."""

    __slots__ = (
        "_budget",
        "_earned",
        "_key_index",
        "_limits",
        "_resent",
        "_state",
        "ignored",
        "repeats",
        "unaffordable",
    )

    def __init__(self, state: Any, limits: HistoryLimits) -> None:
        self._state = state
        self._limits = limits
        self._resent: dict[int, tuple[int, float]] = {}
        self._budget = float(limits.burst)
        self._earned = 0
        self._key_index = -1
        self.ignored = self.repeats = self.unaffordable = 0

    def choose(
        self, lost: Iterable[int], *, now: float, rtt: float | None, copies: int = 1, tight: bool = False
    ) -> list[LostPacket]:
        """Return those of the 16-bit sequence numbers `lost` that may go out again now, and count them as sent: each
        `copies` times where they are few, and as long as there is much left of what may be sent again. `tight` says
        that the path has no room.

        `now` is monotonic seconds, `rtt` seconds. What no picture waits for, because it is of a higher layer or a
        keyframe has left since, comes last, and on a tight path not at all. What is not sent again is counted in
        `ignored`, and what was sent again before in `repeats`. Packets that are missed for which nothing was left,
        which were sent again as often as they may be, or for which no player waits any more because they stood in a
        long queue, count in `unaffordable`: without them no picture can be decoded until a keyframe comes.
        """
        limits = self._limits
        self._earn(tight)
        pause = limits.unknown_rtt if rtt is None else max(rtt, limits.shortest)
        asked = []
        for short in dict.fromkeys(lost):
            number = self._state.sequence - ((self._state.sequence - short) & 0xFFFF)
            times, last = self._resent.get(number, (0, -math.inf))
            self.repeats += times > 0
            found = None if now - last < pause else self._find(number)
            if found is None:
                self.ignored += 1
            else:
                asked.append((self._is_missed(found[0]), number, times, *found))
        asked.sort(key=itemgetter(0), reverse=True)
        copies = copies if len(asked) <= limits.few else 1
        chosen = []
        for missed, number, times, packet, size, at in asked:
            spent = times >= limits.resends or now - at > limits.age or size > self._budget
            if spent or (tight and not missed):
                self.ignored += 1
                self.unaffordable += missed
                continue
            count = copies if self._budget - copies * size > limits.burst / 2 else 1
            self._budget -= count * size
            self._resent[number] = (times + 1, now)
            chosen += [packet] * count
        self._forget()
        return chosen

    def _earn(self, tight: bool) -> None:
        """What has left meanwhile raises what may be sent again, and so does a keyframe: all that follows needs it."""
        limits, state = self._limits, self._state
        share, burst = (limits.tight_share, limits.tight_burst) if tight else (limits.share, limits.burst)
        self._budget = min(burst, self._budget + share * (state.octets - self._earned))
        self._earned = state.octets
        if state.key_index != self._key_index:
            self._key_index = state.key_index
            self._budget = max(self._budget, float(min(burst, limits.tight_burst)))

    def recent(self, octets: int, *, now: float) -> list[LostPacket]:
        """The last packets sent, newest first, of about so many octets in all; again and again where they are few.

        They do not count as resends: nobody asked for them, and whoever asks for one all the same has not got it.
        """
        chosen: list[LostPacket] = []
        left, number = octets, self._state.sequence
        while left > 0:
            number -= 1
            found = self._find(number)
            if found is None or now - found[2] > self._limits.age:
                if not chosen:
                    break
                number = self._state.sequence
                continue
            chosen.append(found[0])
            left -= found[1]
        return chosen

    def _is_missed(self, packet: LostPacket) -> bool:
        """Whether what follows cannot be decoded without it."""
        since: int = self._state.key_index
        return packet.is_base and packet.descriptor[-1] & 0x1F == since

    def _find(self, number: int) -> tuple[LostPacket, int, float] | None:
        """The packet, its octets of RTP payload, and when it left."""
        state = self._state
        kept = range(self._oldest, state.recorded)
        place = bisect_right(kept, number, key=self._first) - 1
        if place < 0 or number >= state.sequence:
            return None
        record = state.records[kept[place] % state.capacity]
        index = number - record.first
        size = record.size - index * CHUNK_SIZE
        if size <= 0:
            return None
        descriptor = bytes(ffi.buffer(record.descriptor))
        packet = LostPacket(
            number & 0xFFFF,
            record.timestamp,
            size <= CHUNK_SIZE,
            descriptor if index == 0 else _CONTINUES + descriptor[1:],
            record.serial,
            index,
        )
        return packet, DESCRIPTOR_SIZE + min(size, CHUNK_SIZE), record.at

    @property
    def _oldest(self) -> int:
        """The number of the oldest record kept."""
        oldest: int = max(0, self._state.recorded - self._state.capacity)
        return oldest

    def _first(self, place: int) -> int:
        first: int = self._state.records[place % self._state.capacity].first
        return first

    def _forget(self) -> None:
        if self._resent and self._state.recorded:
            oldest = self._first(self._oldest)
            for number in [number for number in self._resent if number < oldest]:
                del self._resent[number]
