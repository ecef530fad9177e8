"""Inbox: what a viewer says over UDP, reduced by the kernel to one record, for Python to read when it wants to."""

from __future__ import annotations

from typing import Any

from workers.forward.rtcp import MAX_ARRIVALS, ReportBlock
from workers.forward.srtp import SrtpSession
from workers.forward.state import address_of, ffi

_ARRIVALS = ffi.new("bc_arrival[]", MAX_ARRIVALS)
"""Room for those of one datagram at a time: they go on to the path at once."""

_TAG = 10
"""Octets of the shortest authentication tag of SRTCP, whose tags are never cut to 32 bits (RFC 5764 section 4.1.2)."""


class Inbox:
    """A bc_inbox (receive.h) and what it points to. Keep it for as long as a receiver knows it.

    `rate` is how many RTCP datagrams are read in a second. `path` is the bc_path that is told of arrivals, where
    transport-wide feedback was negotiated.
    """

    def __init__(self, session: SrtpSession, ssrc: int, *, rate: float, path: Any = None) -> None:
        self._session = session
        self._path = path
        self.state = ffi.new("bc_inbox *", {"rate": rate, "allowance": rate})
        if session.control is not None:
            self.state.control = session.control
        else:
            self.state.srtp = address_of(session.incoming)
        self.state.shortest = 8 + 4 + max(_TAG, session.tag_size)
        self.consent = ffi.addressof(self.state, "consent")
        """A bc_consent: which checks are answered by the kernel."""
        feedback = self.feedback = self.state.feedback
        feedback.ssrc = ssrc
        if path is not None:
            feedback.path, feedback.arrivals, feedback.capacity = path, _ARRIVALS, MAX_ARRIVALS

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
