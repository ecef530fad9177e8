"""What a viewer was sent lately, and which lost packets are worth sending again.

The packets themselves are shared by all viewers of a rung; a viewer keeps one small record per frame, from which
any of its packets can be told by sequence number. What goes out again is bounded, because a viewer that loops its
NACKs must not turn a few kilobytes of requests into megabytes of media.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from workers.forward.packets import CONTINUATION, DESCRIPTOR_SIZE, PacketisedFrame

Record = tuple[int, float, int, PacketisedFrame, bytes]
"""Extended number of a frame's first packet, monotonic time sent, RTP timestamp, packets, and what was sent in front
of the first chunk, which ends with its VP8 descriptor."""

_CONTINUES = (CONTINUATION >> 8).to_bytes(1, "big")


@dataclass(frozen=True, slots=True)
class HistoryLimits:
    """How far retransmission goes.

    `frames` (each costs a viewer 0.2 kB) and `age` (seconds) bound what is remembered: later than a second no player
    waits for a packet.
    `resends` of one packet and `unknown_rtt` (seconds between them while the round-trip time is not known) are
    LiveKit's; `shortest` is the least time between two resends of a packet. `share` is the part of the media octets
    sent that may be sent again, `burst` the octets on top, about one keyframe.
    """

    frames: int = 40
    age: float = 1.0
    resends: int = 3
    shortest: float = 0.02
    unknown_rtt: float = 0.1
    share: float = 1.0
    burst: int = 100_000


class LostPacket(NamedTuple):
    """A packet to send again: its bytes behind the header are exactly those that were sent first."""

    sequence: int
    timestamp: int
    marker: bool
    descriptor: bytes
    chunk: bytes


class History:
    """The records of one viewer. Sequence numbers are extended: they count on beyond 16 bits."""

    __slots__ = ("_budget", "_earned", "_limits", "_records", "_resent", "ignored", "record")

    def __init__(self, limits: HistoryLimits) -> None:
        self._limits = limits
        self._records: deque[Record] = deque(maxlen=limits.frames)
        self._resent: dict[int, tuple[int, float]] = {}
        self._budget = float(limits.burst)
        self._earned = 0
        self.record = self._records.append
        self.ignored = 0

    def choose(
        self, lost: Iterable[int], *, following: int, octets: int, now: float, rtt: float | None
    ) -> list[LostPacket]:
        """Return those of the 16-bit sequence numbers `lost` that may go out again now, and count them as sent.

        `following` is the extended number of the next new packet, `octets` the payload sent to the viewer since the
        start, `now` monotonic seconds, `rtt` seconds. What is not sent again is counted in `ignored`.
        """
        limits = self._limits
        self._budget = min(limits.burst, self._budget + limits.share * (octets - self._earned))
        self._earned = octets
        pause = limits.unknown_rtt if rtt is None else max(rtt, limits.shortest)
        chosen = []
        for short in lost:
            number = following - ((following - short) & 0xFFFF)
            times, last = self._resent.get(number, (0, -math.inf))
            packet = None if times >= limits.resends or now - last < pause else self._find(number, now)
            size = 0 if packet is None else len(packet.chunk) + DESCRIPTOR_SIZE
            if packet is None or size > self._budget:
                self.ignored += 1
                continue
            self._budget -= size
            self._resent[number] = (times + 1, now)
            chosen.append(packet)
        self._forget()
        return chosen

    def _find(self, number: int, now: float) -> LostPacket | None:
        records = self._records
        place = bisect_right(records, number, key=_first_number) - 1
        if place < 0:
            return None
        first, at, timestamp, packets, head = records[place]
        index = number - first
        if index >= len(packets.chunks) or now - at > self._limits.age:
            return None
        return LostPacket(
            number & 0xFFFF,
            timestamp,
            index == len(packets.chunks) - 1,
            head[-DESCRIPTOR_SIZE:] if index == 0 else _CONTINUES + head[1 - DESCRIPTOR_SIZE :],
            packets.chunks[index],
        )

    def _forget(self) -> None:
        if self._resent and self._records:
            oldest = self._records[0][0]
            for number in [number for number in self._resent if number < oldest]:
                del self._resent[number]


def _first_number(record: Record) -> int:
    return record[0]
