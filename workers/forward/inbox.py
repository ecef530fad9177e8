"""Inbox: what a viewer says over UDP, reduced by the kernel to one record, for Python to read when it wants to."""

from __future__ import annotations

import struct

from workers.forward.rtcp import MAX_ARRIVALS, Arrival, ReportBlock
from workers.forward.srtp import SrtpSession
from workers.forward.state import address_of, ffi

_ARRIVAL = struct.Struct("=IHBx")

_TAG = 10
"""Octets of the shortest authentication tag of SRTCP, whose tags are never cut to 32 bits (RFC 5764 section 4.1.2)."""


class Inbox:
    """A bc_inbox (receive.h) and what it points to. Keep it for as long as a receiver knows it.

    `rate` is how many RTCP datagrams are read in a second. Arrivals are kept where `arrivals` says so.
    """

    def __init__(self, session: SrtpSession, ssrc: int, *, rate: float, arrivals: bool) -> None:
        self._session = session
        capacity = MAX_ARRIVALS if arrivals else 0
        self._arrivals = ffi.new("bc_arrival[]", capacity)
        self.state = ffi.new("bc_inbox *", {"rate": rate, "allowance": rate})
        self.state.srtp = address_of(session.incoming)
        self.state.shortest = 8 + 4 + max(_TAG, session.tag_size)
        feedback = self.feedback = self.state.feedback
        feedback.ssrc = ssrc
        feedback.arrivals, feedback.capacity = self._arrivals, capacity

    def take_failures(self) -> tuple[int, int]:
        """Datagrams that were forged or unreadable, and datagrams over the rate."""
        state = self.state
        counts = state.failures, state.dropped
        state.failures = state.dropped = 0
        return counts

    def take_report(self) -> tuple[ReportBlock, float] | None:
        """The last report block and when it came."""
        said = self.feedback
        if not said.reported:
            return None
        said.reported = 0
        block = ReportBlock(
            said.ssrc, said.fraction_lost, said.cumulative_lost, said.highest_sequence, said.jitter, said.lsr, said.dlsr
        )
        return block, said.reported_at

    def take_remb(self) -> tuple[int, float] | None:
        """The last REMB, in bit/s, and when it came."""
        said = self.feedback
        if not said.estimated:
            return None
        said.estimated = 0
        return said.remb, said.remb_at

    def take_pictures_lost(self) -> int:
        """How many packets said that a picture is lost."""
        said = self.feedback
        count: int = said.pictures_lost
        said.pictures_lost = 0
        return count

    def take_lost(self) -> list[int]:
        """Sequence numbers that NACKs ask for."""
        said = self.feedback
        lost = list(said.lost[0 : said.asked])
        said.asked = 0
        return lost

    def take_arrivals(self) -> list[Arrival]:
        said = self.feedback
        records = ffi.buffer(self._arrivals, said.arrived * _ARRIVAL.size)
        found = [
            Arrival(sequence, ticks if received else None)
            for ticks, sequence, received in _ARRIVAL.iter_unpack(bytes(records))
        ]
        said.arrived = 0
        return found
