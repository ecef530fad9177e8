"""The wall clock that never steps: what capture times, sender reports and round-trip times are told by."""

from __future__ import annotations

import time
from dataclasses import dataclass

NTP_EPOCH = 2_208_988_800
"""Seconds from 1900, where NTP counts from, to 1970 (RFC 5905 section 6)."""


@dataclass(frozen=True, slots=True)
class WallClock:
    """Wall time read through the monotonic clock, so that setting the machine's clock cannot make an RTT negative.

    `offset` is wall time minus monotonic time, in seconds. Every `now` is monotonic seconds, the time scale of the
    event loop.
    """

    offset: float

    @classmethod
    def anchored(cls) -> WallClock:
        """A clock that agrees with the machine's wall clock at this moment."""
        return cls(time.time() - time.monotonic())

    def now(self) -> float:
        """Seconds since 1970."""
        return time.monotonic() + self.offset

    def wall(self, now: float) -> float:
        """Seconds since 1970 at the monotonic time `now`."""
        return now + self.offset

    def ntp(self, now: float) -> int:
        """The 64-bit NTP timestamp (32.32 fixed point, seconds since 1900) at `now`."""
        return int((now + self.offset + NTP_EPOCH) * 4_294_967_296) & 0xFFFFFFFFFFFFFFFF

    def ntp_middle(self, now: float) -> int:
        """The middle 32 bits of the NTP timestamp (16.16 fixed point), as LSR and DLSR use them (RFC 3550 6.4.1)."""
        return (self.ntp(now) >> 16) & 0xFFFFFFFF
