"""Feedback: what a viewer reports of what it gets (feedback.c and rtcp.py read it)."""

from __future__ import annotations

from dataclasses import dataclass

from broadcaster.clock import WallClock
from broadcaster.stream import RTP_CLOCK
from workers.forward.rtcp import ReportBlock

_MAX_RTT = 10 * 65_536
_MAX_REMB = 10_000_000_000


@dataclass(slots=True)
class Feedback:
    """What the viewer reported last; None is not known yet.

    `loss` is the fraction (0 to 1) of the packets between the last two reports. `packets_lost` and `packets_expected`
    count since the start, so that anyone can take the loss over an interval of his own. `rtt` and `jitter` in
    seconds, `remb` in bit/s; `reported_at` and `remb_at` are the monotonic times of arrival. `highest` is the extended
    number of the last packet that it spoke of.
    """

    loss: float | None = None
    packets_lost: int | None = None
    packets_expected: int = 0
    rtt: float | None = None
    jitter: float | None = None
    reported_at: float | None = None
    remb: int | None = None
    remb_at: float | None = None
    goodbye: bool = False
    highest: int = -1

    def take_report(self, block: ReportBlock, now: float, clock: WallClock) -> None:
        """What a receiver report says of our stream (RFC 3550 section 6.4.1), where `clock` dated ours."""
        self.reported_at = now
        self.jitter = block.jitter / RTP_CLOCK
        if block.lsr:
            elapsed = (clock.ntp_middle(now) - block.lsr - block.dlsr) & 0xFFFFFFFF
            if elapsed < _MAX_RTT:
                self.rtt = elapsed / 65_536
        expected = block.highest_sequence - self.highest
        if 0 < expected <= 0xFFFF:
            self.loss = min(1.0, max(0.0, (block.cumulative_lost - (self.packets_lost or 0)) / expected))
            self.packets_lost = block.cumulative_lost
            self.packets_expected += expected
            self.highest = block.highest_sequence

    def take_remb(self, remb: int, now: float) -> None:
        """The viewer's own estimate of its path."""
        self.remb = min(remb, _MAX_REMB)
        self.remb_at = now
