"""AdaptiveStreamingServer on stock aiortc connections, over loopback, and on statistics that the test makes up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender
from aiortc.codecs.vpx import Vp8Encoder

from broadcaster.adaptation.decision import Decision
from broadcaster.aiortc_sender import ENCODER, EncoderGovernor, governor
from broadcaster.errors import ConnectionClosedError
from broadcaster.monitor import KEYS, QualityMonitor
from broadcaster.streaming import AdaptiveStreamingServer, StreamingSettings
from broadcaster.track import AdaptiveVideoTrack
from tests.still_source import FakeSource


@dataclass
class Call:
    """A sender and a viewer in one process; `frames` counts what the viewer decoded."""

    server: AdaptiveStreamingServer
    track: AdaptiveVideoTrack
    sender: RTCPeerConnection
    viewer: RTCPeerConnection
    received: asyncio.Semaphore

    async def frames(self, count: int) -> None:
        for _ in range(count):
            await self.received.acquire()


@pytest_asyncio.fixture(loop_scope="function")
async def call() -> AsyncIterator[Call]:
    server, track = AdaptiveStreamingServer(), AdaptiveVideoTrack(30, source=FakeSource(320, 240))
    sender, viewer = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    received = asyncio.Semaphore(0)
    readers = []

    async def read(track: Any) -> None:
        while True:
            await track.recv()
            received.release()

    viewer.on("track", lambda track: readers.append(asyncio.ensure_future(read(track))))
    await server.setup_connection(sender, track)
    await sender.setLocalDescription(await sender.createOffer())
    await viewer.setRemoteDescription(sender.localDescription)
    await viewer.setLocalDescription(await viewer.createAnswer())
    await sender.setRemoteDescription(viewer.localDescription)
    yield Call(server, track, sender, viewer, received)
    await asyncio.gather(sender.close(), viewer.close())
    await asyncio.gather(*readers, return_exceptions=True)


def encoder_of(connection: RTCPeerConnection) -> EncoderGovernor:
    found = governor(connection.getSenders()[0])
    assert found is not None
    return found


async def test_statistics_flow(call: Call) -> None:
    monitor = QualityMonitor(call.sender)
    async with asyncio.timeout(20):
        await call.frames(5)
        while (stats := await monitor.get_connection_stats())["rtt"] is None:
            await call.frames(5)
    assert tuple(stats) == KEYS
    assert stats["packet_loss"] is not None
    assert 0.0 <= stats["packet_loss"] <= 1.0
    assert 0.0 <= stats["rtt"] < 1.0
    assert stats["bytes_sent"] > 0
    assert stats["bitrate"] > 0
    assert stats["target_bitrate"] > 0
    assert stats["quality_word"] in ("good", "fair", "poor")


async def test_the_bitrate_is_the_running_encoders_and_lasts(call: Call) -> None:
    assert await call.server.adjust_bitrate(call.sender, increase=False) is None, "nothing encodes yet"
    async with asyncio.timeout(20):
        await call.frames(5)
    encoder = encoder_of(call.sender)
    before = encoder.target_bitrate
    lowered = await call.server.adjust_bitrate(call.sender, increase=False)
    assert lowered == encoder.target_bitrate < before
    inner = encoder._encoder
    assert isinstance(inner, Vp8Encoder)
    async with asyncio.timeout(20):
        while inner.codec is None or inner.codec.bit_rate != lowered:
            await call.frames(1)
    encoder.target_bitrate = 1_400_000  # as aiortc does with a REMB
    assert encoder.target_bitrate == lowered
    assert encoder.estimate == 1_400_000
    raised = await call.server.adjust_bitrate(call.sender, increase=True)
    assert raised is not None
    assert lowered < raised == encoder.target_bitrate


async def test_the_frame_rate_is_the_one_that_arrives(call: Call) -> None:
    loop = asyncio.get_running_loop()

    async def rate(count: int) -> float:
        await call.frames(3)
        start = loop.time()
        await call.frames(count)
        return count / (loop.time() - start)

    async with asyncio.timeout(30):
        await call.frames(10)
        assert 20 < await rate(45) < 40
        call.track.set_fps(8)
        await call.frames(8)
        assert 5 < await rate(12) < 11


async def test_the_loop_runs_until_the_connection_closes(call: Call) -> None:
    loop = asyncio.ensure_future(call.server.monitor_and_adapt(call.sender, call.track, 0.05))
    async with asyncio.timeout(20):
        await call.frames(10)
        assert not loop.done()
        call.track.stop()
        await asyncio.sleep(0.2)
        assert not loop.done(), "a track that ended does not end the loop"
        await call.sender.close()
        await loop
        await call.server.monitor_and_adapt(call.sender, call.track, 0.05)


async def test_the_loop_can_be_cancelled(call: Call) -> None:
    loop = asyncio.ensure_future(call.server.monitor_and_adapt(call.sender, call.track, 60.0))
    await asyncio.sleep(0.05)
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop
    assert not call.sender.listeners("connectionstatechange")


async def test_setting_up_twice_adds_once_and_a_closed_connection_takes_nothing() -> None:
    server, track = AdaptiveStreamingServer(), AdaptiveVideoTrack(source=FakeSource())
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    await server.setup_connection(peer, track)
    await server.setup_connection(peer, track)
    assert [sender.track for sender in peer.getSenders()] == [track]
    await peer.close()
    with pytest.raises(ConnectionClosedError):
        await server.setup_connection(peer, track)
    with pytest.raises(ConnectionClosedError):
        await server.adjust_bitrate(peer, increase=True)


@pytest.mark.parametrize("interval", [0, -1.0, float("nan"), float("inf"), "2", None, True])
async def test_intervals_that_make_no_sense(interval: Any) -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    with pytest.raises(ValueError, match="is not an interval"):
        await AdaptiveStreamingServer().monitor_and_adapt(peer, AdaptiveVideoTrack(), interval)
    await peer.close()


def test_the_frame_rate_halves_to_a_floor_and_comes_back_to_where_it_was() -> None:
    server, track = AdaptiveStreamingServer(), AdaptiveVideoTrack(30, source=FakeSource())
    assert server.adjust_frame_rate(track, increase=True) == 30
    assert [server.adjust_frame_rate(track, increase=False) for _ in range(4)] == [15, 7.5, 5, 5]
    assert [server.adjust_frame_rate(track, increase=True) for _ in range(4)] == [10, 20, 30, 30]
    track.set_fps(3)
    assert server.adjust_frame_rate(track, increase=False) == 3


class Encoder:
    """An encoder's bitrate, clamped as aiortc's VP8 is."""

    def __init__(self, bitrate: int) -> None:
        self._bitrate = bitrate

    @property
    def target_bitrate(self) -> int:
        return self._bitrate

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        self._bitrate = max(250_000, min(1_500_000, bitrate))


class Sender:
    kind = "video"

    def __init__(self, track: AdaptiveVideoTrack) -> None:
        self.track = track
        setattr(self, ENCODER, Encoder(800_000))


class Connection:
    def __init__(self, track: AdaptiveVideoTrack) -> None:
        self.connectionState = "connected"
        self.sender = Sender(track)

    def getSenders(self) -> list[Sender]:
        return [self.sender]


async def adapted(stats: dict[str, Any], may_increase: bool = True, lowered: bool = False) -> list[Decision]:
    server, track = AdaptiveStreamingServer(), AdaptiveVideoTrack(30, source=FakeSource())
    if lowered:
        server.adjust_frame_rate(track, increase=False)
    full = {"target_bitrate": 800_000, **stats}
    connection: Any = Connection(track)
    return await server._adapt(connection, track, full, may_increase)


@pytest.mark.parametrize(
    ("stats", "lowered", "rules", "fps", "bitrate"),
    [
        ({"packet_loss": 0.06, "rtt": 0.02}, False, ["loss-high"], 15, 600_000),
        ({"packet_loss": 0.0, "rtt": 0.9}, False, ["rtt-high"], 30, 600_000),
        ({"packet_loss": 0.015, "rtt": 0.02}, True, ["loss-low"], 30, 800_000),
        ({"packet_loss": 0.0, "rtt": 0.02}, False, ["headroom"], 30, 1_000_000),
        ({"packet_loss": 0.0, "rtt": 0.02}, True, ["loss-low", "headroom"], 30, 1_000_000),
        ({"packet_loss": 0.03, "rtt": 0.02}, True, [], None, None),
        ({}, True, [], None, None),
    ],
)
async def test_each_rule(stats: Any, lowered: bool, rules: list[str], fps: float | None, bitrate: int | None) -> None:
    decisions = await adapted(stats, lowered=lowered)
    assert [decision.rule for decision in decisions] == rules
    if decisions:
        assert (decisions[-1].after.fps, decisions[-1].after.bitrate) == (fps, bitrate)
        assert decisions[-1].inputs["packet_loss"] == stats["packet_loss"]


async def test_no_increase_during_the_cool_down() -> None:
    assert await adapted({"packet_loss": 0.0, "rtt": 0.02}, may_increase=False) == []


async def test_the_bitrate_stays_within_its_bounds_and_below_the_estimate() -> None:
    server, track = AdaptiveStreamingServer(settings=StreamingSettings(max_bitrate=1_200_000)), AdaptiveVideoTrack()
    connection: Any = Connection(track)
    up = [await server.adjust_bitrate(connection, increase=True) for _ in range(4)]
    assert up == [1_000_000, 1_200_000, None, None]
    down = [await server.adjust_bitrate(connection, increase=False) for _ in range(8)]
    assert down[-1] is None
    assert min(rate for rate in down if rate) == 250_000
    encoder = governor(connection.sender)
    assert encoder is not None
    encoder.target_bitrate = 280_000
    assert await server.adjust_bitrate(connection, increase=True) == 280_000
    assert await server.adjust_bitrate(connection, increase=True) is None


async def test_an_encoder_left_alone_follows_remb_as_aiortc_does() -> None:
    encoder = EncoderGovernor(Encoder(500_000))
    for remb in (300_000, 1_000_000, 600_000):
        encoder.target_bitrate = remb
        assert (encoder.target_bitrate, encoder.estimate) == (remb, remb)


async def test_contract_aiortc_keeps_its_encoder_where_we_look_for_it() -> None:
    transport: Any = type("Transport", (), {"state": "new"})()
    sender = RTCRtpSender("video", transport)
    assert ENCODER in vars(sender), f"aiortc's RTCRtpSender has no {ENCODER} any more: see broadcaster/aiortc_sender.py"
    assert governor(sender) is None
    setattr(sender, ENCODER, Vp8Encoder())
    found = governor(sender)
    assert found is not None
    assert governor(sender) is found
    assert found.limit(400_000) == 400_000
