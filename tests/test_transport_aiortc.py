"""A stock aiortc connection as the viewer, with an answer written by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from aiortc import (
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.sdp import SessionDescription

from tests.handmade_viewer import Served, session
from tests.lossy_relay import Impairment, LossyRelay, through
from workers.transport import Candidate, Endpoint

SSRC = 0x1234


@pytest_asyncio.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    one = await Endpoint.open(range(1))
    yield one
    await one.close()


def answer(served: Served, candidates: list[Candidate], fingerprint: str) -> str:
    lines = [
        "v=0",
        "o=- 1 1 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=ice-lite",
        "a=group:BUNDLE 0",
        "m=video 9 UDP/TLS/RTP/SAVPF 97",
        "c=IN IP4 0.0.0.0",
        *(f"a={candidate}" for candidate in candidates),
        "a=end-of-candidates",
        f"a=ice-ufrag:{served.peer.ufrag}",
        f"a=ice-pwd:{served.peer.password}",
        f"a=fingerprint:sha-256 {fingerprint}",
        "a=setup:passive",
        "a=mid:0",
        "a=sendonly",
        "a=rtcp-mux",
        "a=rtpmap:97 VP8/90000",
        f"a=ssrc:{SSRC} cname:beamcast",
    ]
    return "\r\n".join(lines) + "\r\n"


async def join(endpoint: Endpoint, relay: int | None = None) -> tuple[Served, RTCPeerConnection, RTCRtpTransceiver]:
    viewer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transceiver = viewer.addTransceiver("video", direction="recvonly")
    await viewer.setLocalDescription(await viewer.createOffer())
    dtls = SessionDescription.parse(viewer.localDescription.sdp).media[0].dtls
    assert dtls is not None
    announced = next(one for one in dtls.fingerprints if one.algorithm == "sha-256")
    served = Served()
    served.peer = endpoint.accept(
        remote_fingerprint=(announced.algorithm, announced.value),
        on_connected=served.connected,
        on_rtcp=served.received,
        on_closed=served.closed,
    )
    text = answer(served, await endpoint.candidates(), endpoint.fingerprint)
    text = through(text, relay) if relay is not None else text
    await viewer.setRemoteDescription(RTCSessionDescription(sdp=text, type="answer"))
    await served.until(lambda: served.keys)
    return served, viewer, transceiver


async def test_a_stock_connection_joins_reports_and_leaves(endpoint: Endpoint) -> None:
    served, viewer, transceiver = await join(endpoint)
    keys = served.keys[0]
    path = served.peer.path
    assert path is not None
    srtp = session(keys.profile, keys.tx_key, outbound=True)
    for sequence in range(1, 30):
        head = b"\x80\x61" + sequence.to_bytes(2, "big") + bytes(4) + SSRC.to_bytes(4, "big")
        assert path.send(srtp.protect(head + b"\x10\x00 not really a picture"))
    await served.until(lambda: served.rtcp)
    report = session(keys.profile, keys.rx_key, outbound=False).unprotect_rtcp(served.rtcp[0])
    assert report[1] == 201
    assert int.from_bytes(report[8:12], "big") == SSRC
    statistics = await transceiver.receiver.getStats()
    assert [one.packetsReceived for one in statistics.values() if one.type == "inbound-rtp"] == [29]
    await viewer.close()
    await served.until(lambda: served.reasons)
    assert served.reasons == ["closed"]


async def test_a_stock_connection_joins_through_a_bad_network(endpoint: Endpoint) -> None:
    bad = Impairment(loss_down=0.08, loss_up=0.08, delay=0.02, jitter=0.01, reorder=0.02)
    async with LossyRelay(("127.0.0.1", endpoint.port), seed=3, impairment=bad) as relay:
        served, viewer, _ = await asyncio.wait_for(join(endpoint, relay.port), 20)
        assert served.peer.path is not None
        assert relay.clients >= 1
        assert relay.up.sent > 0
        await viewer.close()


async def test_we_leave_and_a_stock_connection_notices(endpoint: Endpoint) -> None:
    served, viewer, _ = await join(endpoint)
    closed = asyncio.Event()

    def changed() -> None:
        if viewer.connectionState == "closed":
            closed.set()

    viewer.on("connectionstatechange", changed)
    served.peer.close()
    await asyncio.wait_for(closed.wait(), 5)
    await viewer.close()
