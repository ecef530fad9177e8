"""CPU per packet of sending one encoded stream to many viewers: aiortc's RTCRtpSender against PythonFanout.

Both send the same already encoded frames of 4400 octets, 4 packets each, AES-128-GCM, over UDP to loopback, and are
measured by turns in one run, by process time. Under the stock sender lies what aiortc and aioice do for each packet
and no more: protect in RTCDtlsTransport, four coroutines, and the asyncio transport of a socket per connection. The row
"bare" leaves even that away: the stock sender calls protect and sendto directly.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from fractions import Fraction
from typing import Any, cast

import av
from aiortc import MediaStreamTrack, RTCRtpSender
from aiortc.rtcrtpparameters import (
    RTCRtcpParameters,
    RTCRtpCodecParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpSendParameters,
)
from aiortc.rtp import is_rtcp
from pylibsrtp import Policy, Session

from broadcaster.stream import EncodedFrame
from workers.forward import ExtensionIds, Outlet, OutletParameters, PythonFanout, WallClock
from workers.forward.packets import packetise
from workers.sdp import ABS_SEND_TIME, MID

VIEWERS = (1, 10, 100, 200)
ROUNDS = 5
PACKETS_PER_ROUND = 8_000
PACKETS_PER_FRAME = 4
FRAME_SIZE = 4400
BAR = 6.0
"""How many times less CPU than the stock sender the fan-out must take, for an audience of AUDIENCE and more."""

AUDIENCE = 100
"""Below it, what a frame costs once is shared by few packets."""

PROFILE = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
KEY = bytes(28)


class Keys:
    """An SrtpKeys."""

    profile = PROFILE
    tx_key = KEY
    rx_key = KEY


class Path:
    """A path over UDP."""

    is_tcp = False

    def __init__(self, sender: socket.socket, address: Any) -> None:
        self.socket = sender
        self.address = address

    def send(self, data: bytes) -> bool:
        return self.socket.sendto(data, self.address) == len(data)


class Tally:
    """Counts packets and says when so many have left."""

    def __init__(self) -> None:
        self.packets = 0
        self._due = 0
        self._reached = asyncio.Event()

    def add(self) -> None:
        self.packets += 1
        if self.packets == self._due:
            self._reached.set()

    async def wait(self, more: int) -> None:
        self._due = self.packets + more
        self._reached.clear()
        await self._reached.wait()


class BareTransport:
    """What RTCRtpSender needs of an RTCDtlsTransport, with the shortest way out."""

    state = "connected"
    _stats_id = "transport"

    def __init__(self, sender: socket.socket, address: Any, tally: Tally) -> None:
        self._sender = sender
        self._address = address
        self._tally = tally
        policy = Policy(key=KEY, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=PROFILE)
        policy.allow_repeat_tx = True
        policy.window_size = 1024
        self._session = Session(policy)

    def _register_rtp_sender(self, *arguments: Any) -> None: ...

    def _unregister_rtp_sender(self, *arguments: Any) -> None: ...

    async def _send_rtp(self, data: bytes) -> None:
        if is_rtcp(data):
            await self._send(self._session.protect_rtcp(data))
            return
        await self._send(self._session.protect(data))
        self._tally.add()

    async def _send(self, data: bytes) -> None:
        self._sender.sendto(data, self._address)


class StockTransport(BareTransport):
    """The way out that aiortc's RTCIceTransport and aioice's Connection and StunProtocol take."""

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._endpoint, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))

    def close(self) -> None:
        self._endpoint.close()

    async def _send(self, data: bytes) -> None:
        await self._send_on_component(data)

    async def _send_on_component(self, data: bytes) -> None:
        await self._send_to_pair(data, self._address)

    async def _send_to_pair(self, data: bytes, address: Any) -> None:
        self._endpoint.sendto(data, address)


class EncodedTrack(MediaStreamTrack):
    """Encoded packets, one for each call of `feed`."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self._encoded: asyncio.Queue[Any] = asyncio.Queue()
        self.feed = self._encoded.put_nowait

    async def recv(self) -> Any:
        return await self._encoded.get()


async def stock(kind: type[BareTransport], viewers: int, sender: socket.socket, address: Any) -> float:
    """Seconds of CPU per packet of RTCRtpSender over this kind of transport."""
    tally = Tally()
    transports = [kind(sender, address, tally) for _ in range(viewers)]
    tracks = [EncodedTrack() for _ in range(viewers)]
    for transport in transports:
        if isinstance(transport, StockTransport):
            await transport.open()
    senders = [RTCRtpSender(track, cast(Any, transport)) for track, transport in zip(tracks, transports, strict=True)]
    parameters = RTCRtpSendParameters(
        codecs=[RTCRtpCodecParameters(mimeType="video/VP8", clockRate=90_000, payloadType=96)],
        headerExtensions=[
            RTCRtpHeaderExtensionParameters(id=2, uri=ABS_SEND_TIME),
            RTCRtpHeaderExtensionParameters(id=9, uri=MID),
        ],
        muxId="0",
        rtcp=RTCRtcpParameters(cname="c", ssrc=1),
    )
    for one in senders:
        await one.send(parameters)
    frames = PACKETS_PER_ROUND // (viewers * PACKETS_PER_FRAME)
    packet: av.Packet[Any] = av.Packet(bytes(FRAME_SIZE))
    packet.time_base = Fraction(1, 90_000)

    async def play(count: int) -> None:
        for number in range(count):
            packet.pts = number * 3000
            for track in tracks:
                track.feed(packet)
            await tally.wait(viewers * PACKETS_PER_FRAME)

    await play(2)
    sent = tally.packets
    before = time.process_time()
    await play(frames)
    used = time.process_time() - before
    sent = tally.packets - sent
    assert sent == frames * viewers * PACKETS_PER_FRAME, "the stock sender sent something else"
    for one in senders:
        await one.stop()
    for transport in transports:
        if isinstance(transport, StockTransport):
            transport.close()
    return used / sent


def fanout(viewers: int, sender: socket.socket, address: Any) -> float:
    """Seconds of CPU per packet of PythonFanout, packetising included."""
    clock = WallClock.anchored()
    outlets = [
        Outlet(
            OutletParameters(
                ssrc=1000 + 2 * number,
                rtx_ssrc=1001 + 2 * number,
                payload_type=96,
                rtx_payload_type=97,
                extensions=ExtensionIds(abs_send_time=2, mid=9, playout_delay=5),
                mid="0",
                cname="c",
            ),
            Keys(),
            Path(sender, address),
            clock,
        )
        for number in range(viewers)
    ]
    send = PythonFanout(clock).send
    frames = PACKETS_PER_ROUND // (viewers * PACKETS_PER_FRAME)

    payload = bytes(FRAME_SIZE)
    encoded = [EncodedFrame(0, number, number * 3000, False, 0, False, payload) for number in range(frames + 2)]
    for frame in encoded[:2]:
        send(packetise(frame), outlets)
    before = time.process_time()
    sent = sum(send(packetise(frame), outlets) for frame in encoded[2:])
    used = time.process_time() - before
    assert sent == frames * viewers * PACKETS_PER_FRAME, "the fan-out dropped packets"
    return used / sent


def run() -> dict[str, Any]:
    """Measure both by turns; medians in µs per packet."""
    figures: list[dict[str, float]] = []
    print("CPU, µs per packet")
    print(f"{'viewers':>8} {'RTCRtpSender':>13} {'bare':>7} {'PythonFanout':>13} {'ratio':>6} {'bare':>6}")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sink.bind(("127.0.0.1", 0))
        address = sink.getsockname()
        for viewers in VIEWERS:
            rounds = []
            for _ in range(ROUNDS):
                old = asyncio.run(stock(StockTransport, viewers, sender, address)) * 1e6
                bare = asyncio.run(stock(BareTransport, viewers, sender, address)) * 1e6
                new = fanout(viewers, sender, address) * 1e6
                rounds.append((old, bare, new, old / new, bare / new))
            old, bare, new, ratio, bare_ratio = (statistics.median(column) for column in zip(*rounds, strict=True))
            figures.append(
                {
                    "viewers": viewers,
                    "stock": old,
                    "bare": bare,
                    "fanout": new,
                    "ratio": ratio,
                    "bare_ratio": bare_ratio,
                }
            )
            print(f"{viewers:>8} {old:>13.2f} {bare:>7.2f} {new:>13.2f} {ratio:>5.1f}x {bare_ratio:>5.1f}x")
    holds = all(row["ratio"] >= BAR for row in figures if row["viewers"] >= AUDIENCE)
    print(f"bar: {BAR:g}x from {AUDIENCE} viewers on: {'holds' if holds else 'MISSED'}")
    return {"bar": BAR, "audience": AUDIENCE, "holds": holds, "rows": figures}
