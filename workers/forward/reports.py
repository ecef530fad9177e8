"""SenderReports: what a viewer is told of a stream that it is sent, so that it can measure and sync (RFC 3550)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broadcaster.clock import WallClock
from workers.forward import rtcp


class SenderReports:
    """Of the stream whose packets `state` counts, a bc_outlet or a bc_sound (kernel.h). `timestamp_at` gives the RTP
    timestamp of a moment in seconds since 1970."""

    __slots__ = ("_description", "_reported", "_state", "_timestamp_at")

    def __init__(self, state: Any, cname: str, timestamp_at: Callable[[float], int]) -> None:
        self._state = state
        self._description = rtcp.source_description(state.ssrc, cname)
        self._timestamp_at = timestamp_at
        self._reported = (0, 0)

    def due(self, now: float, clock: WallClock) -> bytes | None:
        """The report that is due at the monotonic time `now`; None when nothing has left since the one before the last
        (RFC 3550 section 6.4). The moment that it dates is told alike for pictures and sound, which is what players
        sync both by.
        """
        state, packets = self._state, self._state.packets
        if packets == self._reported[0]:
            return None
        self._reported = (self._reported[1], packets)
        return rtcp.sender_report(
            state.ssrc,
            clock.ntp(now),
            self._timestamp_at(clock.wall(now)),
            packets=packets,
            octets=state.octets,
            description=self._description,
        )
