"""Figures: what is told of one viewer, to the API, to subscribers, and to who watches it as an RTCPeerConnection."""

from __future__ import annotations

import datetime
from typing import Any

from aiortc.stats import RTCOutboundRtpStreamStats, RTCRemoteInboundRtpStreamStats, RTCStatsReport

from broadcaster.adaptation.levels import Level
from broadcaster.bus.messages import Stats, ViewerStatus
from broadcaster.stream import RTP_CLOCK
from broadcaster.track import AdaptiveVideoTrack
from workers.forward import Outlet
from workers.gauge import Gauge


class Figures:
    """Reads what the gauge, the track and the outlet of a viewer have, and changes nothing. Its viewer asks."""

    def __init__(self, viewer: str, stream: str, worker: str, track: AdaptiveVideoTrack, gauge: Gauge) -> None:
        self._viewer = viewer
        self._stream = stream
        self._worker = worker
        self._track = track
        self._gauge = gauge

    def status(self, outlet: Outlet | None, state: str, since: float) -> ViewerStatus:
        """The viewer as the API shows it: in this connection state, since this time of the day."""
        level, gauge = self._level, self._gauge
        return ViewerStatus(
            id=self._viewer,
            worker=self._worker,
            stream=self._stream,
            state=state,
            level=f"{level.name}{level.fps:g}" if level else None,
            fps=level.fps if level else None,
            bitrate=gauge.bitrate,
            loss=gauge.loss,
            rtt=None if outlet is None else outlet.feedback.rtt,
            estimate=self._estimate,
            since=since,
        )

    def stats(self, outlet: Outlet) -> Stats:
        """What subscribers get each second."""
        level, gauge, feedback = self._level, self._gauge, outlet.feedback
        return Stats(
            fps=level.fps if level else None,
            rung=level.name if level else None,
            bitrate=gauge.bitrate,
            packet_loss=gauge.loss,
            rtt=feedback.rtt,
            jitter=feedback.jitter,
            estimate=self._estimate,
            bytes_sent=outlet.octets,
            packets_sent=outlet.packets,
            packets_lost=feedback.packets_lost,
            nacks=outlet.nacks,
            retransmissions=outlet.retransmissions,
            plis=outlet.plis,
        )

    def report(self, outlet: Outlet | None) -> RTCStatsReport:
        """`outbound-rtp` and `remote-inbound-rtp` as aiortc's own connections give them (W3C webrtc-stats)."""
        report = RTCStatsReport()
        if outlet is None:
            return report
        common: dict[str, Any] = {
            "timestamp": datetime.datetime.now(datetime.UTC),
            "ssrc": outlet.parameters.ssrc,
            "kind": "video",
            "transportId": self._viewer,
        }
        report.add(
            RTCOutboundRtpStreamStats(
                **common,
                type="outbound-rtp",
                id=f"outbound-rtp_{self._viewer}",
                packetsSent=outlet.packets,
                bytesSent=outlet.octets,
                trackId=self._track.id,
            )
        )
        feedback = outlet.feedback
        if feedback.packets_lost is not None and feedback.rtt is not None:
            report.add(
                RTCRemoteInboundRtpStreamStats(
                    **common,
                    type="remote-inbound-rtp",
                    id=f"remote-inbound-rtp_{self._viewer}",
                    packetsReceived=feedback.packets_expected - feedback.packets_lost,
                    packetsLost=feedback.packets_lost,
                    jitter=int((feedback.jitter or 0.0) * RTP_CLOCK),
                    roundTripTime=feedback.rtt,
                    fractionLost=min(255, int((feedback.loss or 0.0) * 256)),
                )
            )
        return report

    @property
    def _level(self) -> Level | None:
        """What the viewer gets now."""
        return self._track.selector.current if self._track.selector is not None else None

    @property
    def _estimate(self) -> int | None:
        estimate = self._gauge.path.estimate
        return None if estimate is None else int(estimate)
