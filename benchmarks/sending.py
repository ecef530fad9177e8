"""CPU per packet of sending one encoded stream to many viewers: the kernel, its twin in Python, and aiortc.

All send the same encoded frames, 1100 octets for each packet, AES-128-GCM, over UDP to loopback, and are measured by
turns in one run, by process time, which has the network stack's part in it. On loopback this is the receiver's part,
too. Nobody reads the one socket to which everything goes, so that it drops what comes. There are two kinds of it, and
in each row all contestants send to the same:

- single: a plain socket, for which the system cuts apart what was sent as one (UDP_SEGMENT), at the sender's cost;
- joined: it takes such packets in one piece (UDP_GRO). A network card with UDP segmentation offload takes them so, and
  cuts them itself.

- native and twin: NativeFanout and PythonFanout, from the encoded frame to the socket;
- stock: aiortc's RTCRtpSender over what aiortc and aioice do for each packet and no more: protect in RTCDtlsTransport,
  four coroutines, and the asyncio transport of a socket per connection;
- floor: the same datagrams by the same system calls (sendmmsg, UDP_SEGMENT) and nothing else;
- AES: AES-128-GCM of a packet at the rate at which long texts are encrypted;
- srtp: libsrtp's srtp_protect of a packet alone, which is AES and what libsrtp and OpenSSL do around it.

The stock sender cuts frames into larger packets. The figures are CPU per frame and viewer by the number of packets that
the fan-out makes of it, so that everybody is paid for the same work.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import struct
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import repeat
from typing import Any, cast

import av
from aiortc import MediaStreamTrack, RTCRtpSender
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.rtcrtpparameters import (
    RTCRtcpParameters,
    RTCRtpCodecParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpSendParameters,
)
from aiortc.rtp import is_rtcp
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from pylibsrtp import Policy, Session
from pylibsrtp._binding import ffi as srtp_ffi

from benchmarks.floor import ARENA, MESSAGES, ffi, libc
from benchmarks.judgement import verdict
from broadcaster.clock import WallClock
from broadcaster.stream import EncodedFrame
from tests.rtp_viewer import DatagramPath
from workers.forward import (
    Audience,
    ExtensionIds,
    Fanout,
    NativeFanout,
    Outlet,
    OutletParameters,
    PythonFanout,
)
from workers.forward.fanout import UDP_SEGMENT
from workers.forward.packets import CHUNK_SIZE
from workers.forward.srtp import SrtpSession, protect
from workers.forward.state import socket_address
from workers.sdp import ABS_SEND_TIME, MID

VIEWERS = (1, 10, 100, 500, 1000)
PACKETS = (1, 4, 25)
OCTETS = 1100
"""Of a frame for each of its packets."""

SINKS = ("single", "joined")

UDP_GRO = 104
"""Linux's socket option to take in one piece what was sent as one (udp(7))."""

ROUNDS = 5
FAST, TWIN, STOCK = 24_000, 6_000, 3_000
"""Packets in a round, at least one frame to everybody."""

STOCK_BAR = 20.0
"""How many times less CPU than the stock sender the kernel must take."""

FLOOR_BAR = 1.6
"""How many times the floor and AES together it may take."""

AUDIENCE, FRAME = 100, 4
"""The bars hold from so many viewers and packets on: below, what a call costs is shared by few packets."""

PROFILE = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
KEY = bytes(28)
TAG = 16


class Keys:
    """An SrtpKeys."""

    profile = PROFILE
    tx_key = KEY
    rx_key = KEY


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


class StockTransport:
    """What RTCRtpSender needs of an RTCDtlsTransport, and the way out that aiortc's RTCIceTransport and aioice's
    Connection and StunProtocol take."""

    state = "connected"
    _stats_id = "transport"

    def __init__(self, address: Any, tally: Tally) -> None:
        self._address = address
        self._tally = tally
        policy = Policy(key=KEY, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=PROFILE)
        policy.allow_repeat_tx = True
        policy.window_size = 1024
        self._session = Session(policy)

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._endpoint, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))

    def close(self) -> None:
        self._endpoint.close()

    def _register_rtp_sender(self, *arguments: Any) -> None: ...

    def _unregister_rtp_sender(self, *arguments: Any) -> None: ...

    async def _send_rtp(self, data: bytes) -> None:
        if is_rtcp(data):
            await self._send(self._session.protect_rtcp(data))
            return
        await self._send(self._session.protect(data))
        self._tally.add()

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


class Stock:
    """RTCRtpSender, one for each viewer."""

    def __init__(self, viewers: int, packets: int, address: Any) -> None:
        self._tally = Tally()
        self._transports = [StockTransport(address, self._tally) for _ in range(viewers)]
        self._tracks = [EncodedTrack() for _ in range(viewers)]
        self._packet: av.Packet[Any] = av.Packet(bytes(OCTETS * packets))
        self._packet.time_base = Fraction(1, 90_000)
        self._packet.pts = self._pts = 0
        self._due = viewers * len(Vp8Encoder().pack(self._packet)[0])

    async def open(self) -> None:
        for transport in self._transports:
            await transport.open()
        self._senders = [
            RTCRtpSender(track, cast(Any, transport))
            for track, transport in zip(self._tracks, self._transports, strict=True)
        ]
        parameters = RTCRtpSendParameters(
            codecs=[RTCRtpCodecParameters(mimeType="video/VP8", clockRate=90_000, payloadType=96)],
            headerExtensions=[
                RTCRtpHeaderExtensionParameters(id=2, uri=ABS_SEND_TIME),
                RTCRtpHeaderExtensionParameters(id=9, uri=MID),
            ],
            muxId="0",
            rtcp=RTCRtcpParameters(cname="c", ssrc=1),
        )
        for sender in self._senders:
            await sender.send(parameters)
        await self.play(1)

    async def play(self, frames: int) -> float:
        """Seconds of CPU for each frame."""
        before = time.process_time()
        for _ in range(frames):
            self._pts += 3000
            self._packet.pts = self._pts
            for track in self._tracks:
                track.feed(self._packet)
            await self._tally.wait(self._due)
        return (time.process_time() - before) / frames

    async def close(self) -> None:
        for sender in self._senders:
            await sender.stop()
        for transport in self._transports:
            transport.close()


def audience(viewers: int, sender: socket.socket, address: Any, clock: WallClock) -> Audience:
    """Outlets with all that browsers negotiate."""
    return Audience.of(
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
            DatagramPath(sender, address),
            clock,
        )
        for number in range(viewers)
    )


class Sending:
    """A fan-out and its audience."""

    def __init__(self, fanout: Fanout, outlets: Audience, packets: int) -> None:
        self._fanout = fanout
        self._outlets = outlets
        self._packets = packets
        self._payload = bytes(OCTETS * packets)
        self._index = 0
        self.play(2)

    def play(self, frames: int) -> float:
        """Seconds of CPU for each frame."""
        numbers = range(self._index, self._index + frames)
        self._index += frames
        encoded = [EncodedFrame(0, number, number * 3000, False, 0, False, self._payload) for number in numbers]
        before = time.process_time()
        sent = sum(self._fanout.send(frame, self._outlets) for frame in encoded)
        used = time.process_time() - before
        assert sent == frames * len(self._outlets) * self._packets, "the fan-out dropped packets"
        return used / frames


class Floor:
    """Datagrams of the same sizes through the same system calls, and nothing else."""

    def __init__(self, viewers: int, packets: int, overhead: int, sender: socket.socket, address: Any) -> None:
        self._sendmmsg = libc.sendmmsg
        self._socket = sender.fileno()
        stride = CHUNK_SIZE + overhead
        size = packets * (OCTETS + overhead)
        self._count = count = min(viewers, MESSAGES, ARENA // size)
        self._viewers = viewers
        segments = struct.pack("@QiiH6x", 18, socket.IPPROTO_UDP, UDP_SEGMENT, stride)
        self._alive = [ffi.new("char[]", part) for part in (size * count, segments, socket_address(address))]
        data, control, name = self._alive
        self._vectors = ffi.new("struct iovec[]", count)
        self._messages = ffi.new("struct mmsghdr[]", count)
        for number in range(count):
            self._vectors[number].base, self._vectors[number].size = data + number * size, size
            header = self._messages[number].header
            header.name, header.name_size = name, len(name) - 1
            header.vectors, header.count = self._vectors + number, 1
            if packets > 1:
                header.control, header.control_size = control, len(control) - 1
        self.play(2)

    def play(self, frames: int) -> float:
        """Seconds of CPU for each frame."""
        before = time.process_time()
        for _ in range(frames):
            for start in range(0, self._viewers, self._count):
                count = min(self._count, self._viewers - start)
                assert self._sendmmsg(self._socket, self._messages, count, 0) == count
        return (time.process_time() - before) / frames


def aes(octets: int) -> float:
    """Seconds of CPU to encrypt so many octets among many."""
    encryptor = Cipher(AES(bytes(16)), GCM(bytes(12))).encryptor()
    text, secret = bytes(65_536), bytearray(65_536 + TAG)
    before = time.process_time()
    for _ in range(400):
        encryptor.update_into(text, secret)
    return (time.process_time() - before) / 400 / len(text) * octets


class Protection:
    """srtp_protect of many packets, less what it takes to call a function from Python."""

    BATCH = 48

    def __init__(self, size: int) -> None:
        self._session = SrtpSession(Keys())
        self._size = size
        self._memory = srtp_ffi.new("char[]", self.BATCH * (size + 256))
        self._packets = [self._memory + number * (size + 256) for number in range(self.BATCH)]
        self._lengths = srtp_ffi.new("int[]", self.BATCH)
        self._pointers = [self._lengths + number for number in range(self.BATCH)]
        self._sequence = 0

    def play(self, rounds: int) -> float:
        """Seconds of CPU for each packet."""
        used = 0.0
        for _ in range(rounds):
            for number, packet in enumerate(self._packets):
                header = struct.pack("!BBHII", 0x80, 96, self._sequence + number & 0xFFFF, 1, 1)
                srtp_ffi.memmove(packet, header, len(header))
            self._sequence += self.BATCH
            used += self._call(self._size, 0) - self._call(0, 2)
        return used / (rounds * self.BATCH)

    def _call(self, size: int, result: int) -> float:
        """An empty packet is refused (srtp_err_status_bad_param, 2) before anything is done."""
        self._lengths[0 : self.BATCH] = [size] * self.BATCH
        before = time.process_time()
        results = set(map(protect, repeat(self._session.context, self.BATCH), self._packets, self._pointers))
        used = time.process_time() - before
        assert results == {result}, f"srtp_protect said {results}"
        return used


async def cell(viewers: int, packets: int, sender: socket.socket, address: Any) -> dict[str, Any]:
    """One row: medians over the rounds, in µs per packet."""
    clock = WallClock.anchored()
    outlets = audience(viewers, sender, address, clock)
    prefix, tag = outlets[0].pictures.shape
    native = Sending(NativeFanout(clock), outlets, packets)
    twin = Sending(PythonFanout(clock), outlets, packets)
    floor = Floor(viewers, packets, prefix + tag, sender, address)
    stock = Stock(viewers, packets, address)
    srtp = Protection(OCTETS + prefix)
    await stock.open()
    work = viewers * packets

    def measured(play: Callable[[int], float], least: int) -> float:
        return play(max(1, least // work)) / work * 1e6

    rounds = []
    for _ in range(ROUNDS if work <= 4000 else 3):
        kernel, bottom = measured(native.play, FAST), measured(floor.play, FAST)
        cipher, protection = aes(OCTETS + prefix) * 1e6, srtp.play(60) * 1e6
        python = measured(twin.play, TWIN)
        old = await stock.play(max(1, STOCK // work)) / work * 1e6
        ratios = old / kernel, old / python, kernel / (bottom + cipher), kernel / (bottom + protection)
        rounds.append((kernel, python, old, bottom, cipher, protection, *ratios))
    await stock.close()
    costs = ("native", "twin", "stock", "floor", "aes", "srtp")
    names = (*costs, "stock_by_native", "stock_by_twin", "native_by_floor", "native_by_floor_and_srtp")
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    return {"viewers": viewers, "packets": packets, **dict(zip(names, medians, strict=True))}


def run() -> dict[str, Any]:
    """Measure everything by turns; medians in µs per packet."""
    load = os.getloadavg()
    rows: list[dict[str, Any]] = []
    print("CPU, µs per packet of 1100 octets")
    names = ("native", "twin", "stock", "floor", "AES", "srtp", "stock/native", "stock/twin", "native/(floor+AES)")
    print("  sink   viewers packets" + "".join(f"{name:>{max(7, len(name) + 1)}}" for name in names))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for kind in SINKS:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
                sink.bind(("127.0.0.1", 0))
                if kind == "joined":
                    sink.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
                for packets in PACKETS:
                    for viewers in VIEWERS:
                        row = asyncio.run(cell(viewers, packets, sender, sink.getsockname()))
                        rows.append({"sink": kind, **row})
                        _show(kind, row)
    holds: dict[str, bool] = {}
    for kind in SINKS:
        judged = [row for row in rows if row["sink"] == kind and row["viewers"] >= AUDIENCE and row["packets"] >= FRAME]
        holds[f"stock, {kind}"] = all(row["stock_by_native"] >= STOCK_BAR for row in judged)
        holds[f"floor, {kind}"] = all(row["native_by_floor"] <= FLOOR_BAR for row in judged)
    print(f"from {AUDIENCE} viewers and {FRAME} packets on, {STOCK_BAR:g}x less than stock, {FLOOR_BAR:g}x the floor:")
    print(", ".join(f"{name} {verdict(held)}" for name, held in holds.items()), f"load {load[0]:.1f}")
    return {"stock_bar": STOCK_BAR, "floor_bar": FLOOR_BAR, "holds": holds, "load": load, "rows": rows}


def _show(sink: str, row: dict[str, Any]) -> None:
    print(
        f"{sink:>7} {row['viewers']:>8} {row['packets']:>7} {row['native']:>6.2f} {row['twin']:>6.2f}"
        f" {row['stock']:>6.2f} {row['floor']:>6.2f} {row['aes']:>6.2f} {row['srtp']:>6.2f}"
        f" {row['stock_by_native']:>11.1f}x {row['stock_by_twin']:>9.1f}x {row['native_by_floor']:>17.2f}x",
        flush=True,
    )
