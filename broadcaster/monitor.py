"""QualityMonitor: what a peer connection's statistics say about its network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from broadcaster.adaptation import policy
from broadcaster.adaptation.policy import Thresholds
from broadcaster.adaptation.samples import Sample, health, known
from broadcaster.adaptation.smoothing import Floor
from broadcaster.aiortc_sender import governor
from broadcaster.errors import ConnectionClosedError

if TYPE_CHECKING:
    from aiortc import RTCPeerConnection, RTCRtpSender

_VIDEO_CLOCK = 90_000
_RTT_WINDOW = 300.0

KEYS = (
    "packet_loss",
    "rtt",
    "rtt_min",
    "jitter",
    "estimate",
    "bitrate",
    "target_bitrate",
    "bytes_sent",
    "packets_sent",
    "packets_lost",
    "quality",
    "quality_word",
)
"""The keys of `QualityMonitor.get_connection_stats()`."""


@dataclass(slots=True)
class _Totals:
    """Counters since the start of a connection. `lost` is None before the first receiver report; `expected` is what
    had been sent when the last one came."""

    bytes_sent: int = 0
    packets_sent: int = 0
    lost: int | None = None
    expected: int = 0
    fraction_lost: float | None = None
    rtt: float | None = None
    jitter: float | None = None


class QualityMonitor:
    """Reads the video that a peer connection sends: loss, RTT, jitter, bitrate, the estimate, and how healthy it is.

    Works with a stock aiortc connection and with whatever offers its `getStats()`, `getSenders()` and
    `connectionState`. `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        peer_connection: RTCPeerConnection,
        *,
        thresholds: Thresholds = policy.DEFAULT_THRESHOLDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = peer_connection
        self._thresholds = thresholds
        self._clock = clock
        self._rtt_min = Floor(_RTT_WINDOW)
        self._last: tuple[float, _Totals] | None = None
        self._reported: tuple[int, int] | None = None
        self._loss: float | None = None

    async def get_connection_stats(self) -> dict[str, Any]:
        """Measure. All keys of `KEYS` are present; what cannot be known yet is None.

        - `packet_loss`: fraction 0..1 of the packets sent between the receiver reports of this call and of the call
          before; at first, the fraction that the report itself gives (8 bit, RFC 3550 section 6.4.1).
        - `rtt`, `rtt_min`, `jitter`: seconds; `rtt_min` is the lowest of the last minutes.
        - `bitrate`: RTP payload bit/s since the last call; `bytes_sent`: RTP payload octets since the start.
        - `estimate`: the receiver's last REMB, bit/s; `target_bitrate`: what the video encoder aims at, bit/s. Both are
          known from the call after the first frame, where the connection's senders encode.
        - `packets_sent`, `packets_lost`: since the start.
        - `quality`: 0 (dead) to 1 (perfect), `quality_word`: "good", "fair" or "poor"; broadcaster.adaptation.samples
          has the formula.

        Raises ConnectionClosedError when the connection is closed.
        """
        if self._connection.connectionState == "closed":
            raise ConnectionClosedError("the peer connection is closed: there is nothing left to measure")
        totals = _totals(await self._connection.getStats())
        now = self._clock()
        bitrate = None
        if self._last is not None and now > self._last[0]:
            bitrate = max(0.0, 8 * (totals.bytes_sent - self._last[1].bytes_sent) / (now - self._last[0]))
        self._last = (now, totals)
        estimate, target = self._encoder()
        sample = Sample(
            packet_loss=self._interval_loss(totals),
            rtt=totals.rtt,
            jitter=totals.jitter,
            estimate=estimate,
            sent_bitrate=bitrate,
            rtt_min=self._rtt_min.update(now, totals.rtt),
        )
        verdict = health(sample)
        return {
            "packet_loss": sample.packet_loss,
            "rtt": sample.rtt,
            "rtt_min": sample.rtt_min,
            "jitter": sample.jitter,
            "estimate": sample.estimate,
            "bitrate": bitrate,
            "target_bitrate": target,
            "bytes_sent": totals.bytes_sent,
            "packets_sent": totals.packets_sent,
            "packets_lost": totals.lost,
            "quality": verdict.score if verdict else None,
            "quality_word": verdict.word if verdict else None,
        }

    def should_reduce_quality(self, stats: Mapping[str, Any]) -> bool:
        """Packet loss above 5 %, or a high RTT (see `Thresholds`). What `stats` lacks counts as unknown: False."""
        return policy.should_reduce(sample_of(stats), self._thresholds)

    def should_increase_quality(self, stats: Mapping[str, Any]) -> bool:
        """Minimal packet loss and a low RTT, both known (see `Thresholds`)."""
        return policy.should_increase(sample_of(stats), self._thresholds)

    def _interval_loss(self, totals: _Totals) -> float | None:
        """A report comes about once a second; until the next one its loss stands."""
        if totals.lost is None:
            return None
        lost, expected = self._reported or (0, 0)
        if self._reported is None:
            self._loss = totals.fraction_lost
        elif totals.expected > expected:
            # Duplicates make the receiver's count of lost packets shrink (RFC 3550 section 6.4.1).
            self._loss = min(1.0, max(0, totals.lost - lost) / (totals.expected - expected))
        self._reported = (totals.lost, totals.expected)
        return self._loss

    def _encoder(self) -> tuple[int | None, int | None]:
        governors = [found for sender in video_senders(self._connection) if (found := governor(sender)) is not None]
        if not governors:
            return None, None
        return governors[0].estimate, governors[0].target_bitrate


def video_senders(connection: RTCPeerConnection) -> list[RTCRtpSender]:
    """The connection's senders of video that have a track."""
    return [sender for sender in connection.getSenders() if sender.kind == "video" and sender.track is not None]


def sample_of(stats: Mapping[str, Any]) -> Sample:
    """The Sample in statistics as `get_connection_stats` returns them; whatever makes no sense is unknown."""
    return Sample(
        packet_loss=stats.get("packet_loss"),
        rtt=stats.get("rtt"),
        jitter=stats.get("jitter"),
        estimate=stats.get("estimate"),
        sent_bitrate=stats.get("bitrate"),
        rtt_min=stats.get("rtt_min"),
    )


def _totals(report: Mapping[str, Any]) -> _Totals:
    """Sum up the video of a stats report; the fraction is that of the worst stream."""
    totals = _Totals()
    for entry in report.values():
        if getattr(entry, "kind", None) != "video":
            continue
        if entry.type == "outbound-rtp":
            totals.bytes_sent += entry.bytesSent
            totals.packets_sent += entry.packetsSent
        elif entry.type == "remote-inbound-rtp":
            totals.lost = (totals.lost or 0) + entry.packetsLost
            totals.expected += entry.packetsReceived + entry.packetsLost
            totals.fraction_lost = _highest(totals.fraction_lost, known(entry.fractionLost), 256)
            totals.rtt = _highest(totals.rtt, known(entry.roundTripTime), 1)
            totals.jitter = _highest(totals.jitter, known(entry.jitter), _VIDEO_CLOCK)
    return totals


def _highest(current: float | None, value: float | None, unit: int) -> float | None:
    if value is None:
        return current
    return max(current or 0.0, value / unit)
