"""QualityMonitor: reports as aiortc gives them become fractions and seconds."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.stats import RTCOutboundRtpStreamStats, RTCRemoteInboundRtpStreamStats, RTCStatsReport
from hypothesis import given
from hypothesis import strategies as st

from broadcaster.errors import ConnectionClosedError
from broadcaster.monitor import KEYS, QualityMonitor

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Connection:
    """What the monitor reads of a connection."""

    def __init__(self) -> None:
        self.connectionState = "connected"
        self.report = RTCStatsReport()

    def getSenders(self) -> list[Any]:
        return []

    async def getStats(self) -> RTCStatsReport:
        return self.report

    def sent(self, packets: int, octets: int, kind: str = "video") -> None:
        self.report.add(
            RTCOutboundRtpStreamStats(
                timestamp=NOW, type="outbound-rtp", id=f"out-{kind}", ssrc=1, kind=kind, transportId="t",
                packetsSent=packets, bytesSent=octets, trackId="x",
            )
        )  # fmt: skip

    def received(self, packets: int, lost: int, rtt: Any = 0.05, fraction: int = 0, jitter: int = 900) -> None:
        self.report.add(
            RTCRemoteInboundRtpStreamStats(
                timestamp=NOW, type="remote-inbound-rtp", id="in", ssrc=1, kind="video", transportId="t",
                packetsReceived=packets, packetsLost=lost, jitter=jitter, roundTripTime=rtt, fractionLost=fraction,
            )
        )  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def monitored() -> tuple[Connection, Clock, QualityMonitor]:
    connection, clock = Connection(), Clock()
    return connection, clock, QualityMonitor(connection, clock=clock)  # type: ignore[arg-type]


async def test_a_fresh_connection_knows_nothing_and_decides_nothing() -> None:
    _, _, monitor = monitored()
    stats = await monitor.get_connection_stats()
    assert tuple(stats) == KEYS
    assert {key for key in KEYS if stats[key] is not None} == {"bytes_sent", "packets_sent"}
    assert not monitor.should_reduce_quality(stats)
    assert not monitor.should_increase_quality(stats)


async def test_units() -> None:
    connection, clock, monitor = monitored()
    connection.sent(100, 100_000)
    connection.sent(5000, 5_000_000, kind="audio")
    connection.received(90, 10, rtt=0.05, fraction=26, jitter=900)
    stats = await monitor.get_connection_stats()
    assert stats["packet_loss"] == pytest.approx(26 / 256)
    assert stats["rtt"] == pytest.approx(0.05)
    assert stats["jitter"] == pytest.approx(0.01)
    assert (stats["bytes_sent"], stats["packets_sent"], stats["packets_lost"]) == (100_000, 100, 10)
    assert stats["bitrate"] is None
    assert stats["quality_word"] == "poor"
    assert monitor.should_reduce_quality(stats)
    clock.now += 2.0
    connection.sent(300, 350_000)
    connection.received(284, 16, rtt=0.04, fraction=0)
    stats = await monitor.get_connection_stats()
    assert stats["packet_loss"] == pytest.approx(6 / 200)
    assert stats["bitrate"] == pytest.approx(1_000_000)
    assert stats["rtt_min"] == pytest.approx(0.04)
    assert not monitor.should_reduce_quality(stats)
    assert not monitor.should_increase_quality(stats)


async def test_the_loss_stands_until_the_next_report() -> None:
    connection, clock, monitor = monitored()
    connection.received(100, 0)
    await monitor.get_connection_stats()
    connection.received(190, 10)
    for sent in (300, 400, 500):
        clock.now += 0.3
        connection.sent(sent, sent * 1000)
        assert (await monitor.get_connection_stats())["packet_loss"] == pytest.approx(0.1)
    connection.received(290, 10)
    stats = await monitor.get_connection_stats()
    assert stats["packet_loss"] == 0.0
    assert monitor.should_increase_quality(stats)


async def test_duplicates_and_clock_steps_are_no_measurements() -> None:
    connection, _, monitor = monitored()
    connection.received(100, 5, rtt=-0.3)
    assert (await monitor.get_connection_stats())["rtt"] is None
    connection.received(250, 2, rtt=None)
    stats = await monitor.get_connection_stats()
    assert stats["packet_loss"] == 0.0
    assert stats["rtt"] is None


async def test_a_closed_connection_cannot_be_measured() -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    monitor = QualityMonitor(peer)
    assert (await monitor.get_connection_stats())["rtt"] is None
    await peer.close()
    with pytest.raises(ConnectionClosedError, match="closed"):
        await monitor.get_connection_stats()


@given(st.dictionaries(st.sampled_from(KEYS), st.one_of(st.none(), st.floats(), st.text(max_size=3), st.booleans())))
def test_any_stats_at_all_are_decided_on(stats: dict[str, Any]) -> None:
    monitor = QualityMonitor(Connection())  # type: ignore[arg-type]
    assert not (monitor.should_reduce_quality(stats) and monitor.should_increase_quality(stats))


def test_the_rules_of_the_interface() -> None:
    monitor = QualityMonitor(Connection())  # type: ignore[arg-type]
    assert monitor.should_reduce_quality({"packet_loss": 0.06, "rtt": 0.02})
    assert monitor.should_reduce_quality({"packet_loss": 0.0, "rtt": 0.8})
    assert monitor.should_increase_quality({"packet_loss": 0.0, "rtt": 0.02})
    assert not monitor.should_increase_quality({"packet_loss": math.nan, "rtt": 0.02})
    assert not monitor.should_reduce_quality({})
