"""CPU per packet of sending one encoded stream to many viewers: the kernel, its twin in Python, and aiortc.

All send the same encoded frames, 1100 octets for each packet, AES-128-GCM, over UDP to loopback, and are measured by
turns in one run, by process time, which has the network stack's part in it. On loopback this is the receiver's part,
too: cutting segments apart and dropping them makes up about two fifths of the floor.

- native and twin: NativeFanout and PythonFanout, from the encoded frame to the socket;
- stock: aiortc's RTCRtpSender over what aiortc and aioice do for each packet and no more: protect in RTCDtlsTransport,
  four coroutines, and the asyncio transport of a socket per connection;
- floor: the same datagrams by the same system calls (sendmmsg, UDP_SEGMENT) and nothing else;
- AES: AES-128-GCM of a packet at the rate at which long texts are encrypted.

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
from cffi import FFI
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from pylibsrtp import Policy, Session

from broadcaster.clock import WallClock
from broadcaster.stream import EncodedFrame
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
from workers.forward.state import socket_address
from workers.sdp import ABS_SEND_TIME, MID

VIEWERS = (1, 10, 100, 500, 1000)
PACKETS = (1, 4, 25)
OCTETS = 1100
"""Of a frame for each of its packets."""

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
        self._packet.pts = 0
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
            self._packet.pts += 3000
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
            Path(sender, address),
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


MESSAGES = 64
"""In one sendmmsg, as the kernel has it."""

ARENA = 192 * 1024
"""Octets in one sendmmsg, likewise."""


class Floor:
    """Datagrams of the same sizes through the same system calls, and nothing else."""

    def __init__(self, viewers: int, packets: int, overhead: int, sender: socket.socket, address: Any) -> None:
        ffi = FFI()
        ffi.cdef(
            """struct iovec { void *base; size_t size; };
            struct msghdr { void *name; uint32_t name_size; struct iovec *vectors; size_t count; void *control;
                            size_t control_size; int flags; };
            struct mmsghdr { struct msghdr header; unsigned size; };
            int sendmmsg(int, struct mmsghdr *, unsigned, int);"""
        )
        self._sendmmsg = ffi.dlopen(None).sendmmsg
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


async def cell(viewers: int, packets: int, sender: socket.socket, address: Any) -> dict[str, float]:
    """One row: medians over the rounds, in µs per packet."""
    clock = WallClock.anchored()
    outlets = audience(viewers, sender, address, clock)
    prefix, tag = outlets[0].shape
    native = Sending(NativeFanout(clock), outlets, packets)
    twin = Sending(PythonFanout(clock), outlets, packets)
    floor = Floor(viewers, packets, prefix + tag, sender, address)
    stock = Stock(viewers, packets, address)
    await stock.open()
    work = viewers * packets

    def measured(play: Callable[[int], float], least: int) -> float:
        return play(max(1, least // work)) / work * 1e6

    rounds = []
    for _ in range(ROUNDS if work <= 4000 else 3):
        kernel, bottom = measured(native.play, FAST), measured(floor.play, FAST)
        cipher = aes(OCTETS + prefix) * 1e6
        python = measured(twin.play, TWIN)
        old = await stock.play(max(1, STOCK // work)) / work * 1e6
        rounds.append((kernel, python, old, bottom, cipher, old / kernel, old / python, kernel / (bottom + cipher)))
    await stock.close()
    names = ("native", "twin", "stock", "floor", "aes", "stock_by_native", "stock_by_twin", "native_by_floor")
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    return {"viewers": viewers, "packets": packets, **dict(zip(names, medians, strict=True))}


def run() -> dict[str, Any]:
    """Measure everything by turns; medians in µs per packet."""
    load = os.getloadavg()
    rows: list[dict[str, float]] = []
    print("CPU, µs per packet of 1100 octets")
    print(
        f"{'viewers':>8} {'packets':>8} {'native':>7} {'twin':>7} {'stock':>7} {'floor':>7} {'AES':>6}"
        f" {'stock/native':>13} {'stock/twin':>11} {'native/(floor+AES)':>19}"
    )
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sink.bind(("127.0.0.1", 0))
        for packets in PACKETS:
            for viewers in VIEWERS:
                row = asyncio.run(cell(viewers, packets, sender, sink.getsockname()))
                rows.append(row)
                print(
                    f"{viewers:>8} {packets:>8} {row['native']:>7.2f} {row['twin']:>7.2f} {row['stock']:>7.2f}"
                    f" {row['floor']:>7.2f} {row['aes']:>6.2f} {row['stock_by_native']:>12.1f}x"
                    f" {row['stock_by_twin']:>10.1f}x {row['native_by_floor']:>18.2f}x"
                )
    judged = [row for row in rows if row["viewers"] >= AUDIENCE and row["packets"] >= FRAME]
    bars = {
        "stock": all(row["stock_by_native"] >= STOCK_BAR for row in judged),
        "floor": all(row["native_by_floor"] <= FLOOR_BAR for row in judged),
    }
    where = f"from {AUDIENCE} viewers and {FRAME} packets on"
    print(f"{where}: {STOCK_BAR:g}x less than stock {'holds' if bars['stock'] else 'MISSED'},", end=" ")
    print(f"at most {FLOOR_BAR:g}x the floor {'holds' if bars['floor'] else 'MISSED'}; load {load[0]:.1f}")
    return {"stock_bar": STOCK_BAR, "floor_bar": FLOOR_BAR, "holds": bars, "load": load, "rows": rows}
