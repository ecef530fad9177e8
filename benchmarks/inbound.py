"""CPU per RTCP datagram that viewers send: aiortc's parser, and a worker's receiving side in Python and in C.

All rows read the same kinds of datagrams from a UDP socket on loopback, decrypt them (AES-128-GCM) and take them to
where a viewer's numbers are known, measured by turns in one run, by process time. Sending is not measured. "aiortc" is
recvfrom, unprotect and RtcpPacket.parse and nothing of what aiortc does before and after; it takes transport-wide
feedback for a NACK, and refuses it where it is padded as Chromium pads it. For the native row each viewer is heard once
a second, as in a worker, and what is urgent at once.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import statistics
import struct
import time
from collections.abc import Callable
from typing import Any

from aiortc.rtp import RtcpPacket
from pylibsrtp import Policy, Session

from benchmarks.judgement import verdict
from benchmarks.sending import KEY, PROFILE, Keys
from broadcaster.clock import WallClock
from workers.forward import ExtensionIds, Outlet, OutletParameters, OutletSettings
from workers.transport.mux import Mux, TransportSettings
from workers.transport.path import UdpPath
from workers.transport.receive import NativeReceiver, PythonReceiver

VIEWERS = 100
PER_VIEWER = 15
"""Datagrams of each viewer in a round: what Chromium sends in a second."""
ROUNDS = 9
CHUNK = 60
"""Datagrams that wait in the socket when it is read."""

BAR = 5.0
"""How many times less than aiortc's parser a datagram of the mix must take natively."""

SSRC = 1000
_REPORT = struct.pack("!BBHIIIIIII", 0x81, 201, 7, 1, SSRC, 0, 70_000, 9, 5, 6)
_REMB = struct.pack("!BBHII4sII", 0x8F, 206, 5, 1, 0, b"REMB", 1 << 24 | 5 << 18 | 0x1FFFF, SSRC)
_NACK = struct.pack("!BBHIIHH", 0x81, 205, 3, 1, SSRC, 500, 0b101)
_ARRIVALS = struct.pack("!BBHIIHHIH", 0x8F, 205, 10, 1, SSRC, 7, 22, 5 << 8, 0x2016) + bytes([9] * 22)
KINDS = {"RR": _REPORT, "RR+REMB": _REPORT + _REMB, "NACK": _NACK, "transport-cc": _ARRIVALS}
MIX = "RR once, transport-cc 14 times"


class Crowd:
    """Viewers with a socket each, and the mux with an outlet for each."""

    def __init__(self, kind: type[PythonReceiver] | type[NativeReceiver], server: socket.socket) -> None:
        self.server = server
        self.mux = Mux(None, TransportSettings(receive_buffer=8 << 20))  # type: ignore[arg-type]
        self.mux.receiver = kind(self.mux)
        self.outlets: list[Outlet] = []
        self.senders: list[tuple[socket.socket, Session]] = []
        clock = WallClock.anchored()
        for _ in range(VIEWERS):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sender.bind(("127.0.0.1", 0))
            policy = Policy(key=KEY, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=PROFILE)
            self.senders.append((sender, Session(policy)))
            parameters = OutletParameters(
                ssrc=SSRC,
                rtx_ssrc=SSRC + 1,
                payload_type=96,
                rtx_payload_type=None,
                extensions=ExtensionIds(abs_send_time=2, transport_sequence=3),
                mid="0",
                cname="c",
            )
            path = UdpPath(server, sender.getsockname(), self.mux.statistics)
            outlet = Outlet(parameters, Keys(), path, clock, settings=OutletSettings(rtcp_rate=1e9))
            self.outlets.append(outlet)
            self._connect(outlet, sender.getsockname())

    def _connect(self, outlet: Outlet, address: tuple[str, int]) -> None:
        peer = self.mux.accept(
            ("sha-256", f"{address[1]}"),
            lambda keys: None,
            lambda data: outlet.receive_rtcp(data, time.monotonic()),
            lambda reason: None,
        )
        peer.state = "connected"
        peer.addresses[address] = None
        self.mux.own(address, peer)
        peer.listen(outlet.open_inbox, lambda: outlet.hear(time.monotonic()))

    def say(self, packets: list[bytes], read: Callable[[], Any]) -> float:
        """Seconds of CPU that `read` took for what all viewers say, a few datagrams at a time."""
        used = 0.0
        waiting = 0
        for packet in packets:
            for sender, session in self.senders:
                sender.sendto(session.protect_rtcp(packet), self.server.getsockname())
                waiting += 1
                if waiting == CHUNK:
                    before = time.process_time()
                    read()
                    used += time.process_time() - before
                    waiting = 0
        before = time.process_time()
        read()
        return used + time.process_time() - before

    def in_a_worker(self, packets: list[bytes]) -> float:
        """Seconds of CPU per datagram."""
        counted = self.mux.statistics.datagrams

        def read() -> None:
            while self.mux.receiver.drain(self.server):
                pass

        used = self.say(packets, read)
        before = time.process_time()
        now = time.monotonic()
        for outlet in self.outlets:
            outlet.hear(now)
        used += time.process_time() - before
        for outlet in self.outlets:
            assert not outlet.rtcp_failures, "a datagram was refused"
        assert self.mux.statistics.datagrams - counted == len(packets) * VIEWERS, "datagrams were lost"
        return used / (len(packets) * VIEWERS)

    def in_aiortc(self, packets: list[bytes]) -> float:
        """Seconds of CPU per datagram."""
        policy = Policy(key=KEY, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=PROFILE)
        sessions = {sender.getsockname(): Session(policy) for sender, _ in self.senders}
        seen = 0

        def read() -> None:
            nonlocal seen
            while True:
                try:
                    data, address = self.server.recvfrom(2048)
                except BlockingIOError:
                    return
                RtcpPacket.parse(sessions[address].unprotect_rtcp(data))
                seen += 1

        used = self.say(packets, read)
        assert seen == len(packets) * VIEWERS, "datagrams were lost"
        return used / seen

    def close(self) -> None:
        for sender, _ in self.senders:
            sender.close()


async def measure() -> list[dict[str, Any]]:
    mixes = {name: [packet] * PER_VIEWER for name, packet in KINDS.items()}
    mixes[MIX] = [KINDS["RR"], *[KINDS["transport-cc"]] * (PER_VIEWER - 1)]
    rows = []
    for name, packets in mixes.items():
        rounds = []
        for _ in range(ROUNDS):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
                server.bind(("127.0.0.1", 0))
                server.setblocking(False)
                figures: list[float] = []
                for kind in (PythonReceiver, PythonReceiver, NativeReceiver):
                    crowd = Crowd(kind, server)
                    run = crowd.in_aiortc if not figures else crowd.in_a_worker
                    gc.collect()
                    gc.freeze()  # what the collector walks is this benchmark's own
                    figures.append(run(packets) * 1e6)
                    gc.unfreeze()
                    crowd.close()
            rounds.append(figures)
        stock, python, native = (statistics.median(column) for column in zip(*rounds, strict=True))
        rows.append({"datagram": name, "aiortc": stock, "python": python, "native": native, "ratio": stock / native})
        print(f"{name:>32} {stock:>8.2f} {python:>8.2f} {native:>8.2f} {stock / native:>5.1f}x")
    return rows


def run() -> dict[str, Any]:
    """Measure all by turns; medians in µs per datagram."""
    print("CPU, µs per RTCP datagram")
    print(f"{'datagram':>32} {'aiortc':>8} {'Python':>8} {'native':>8} {'ratio':>6}")
    rows = asyncio.run(measure())
    holds = rows[-1]["ratio"] >= BAR
    print(f"bar: {BAR:g}x for {MIX}: {verdict(holds)}")
    return {"bar": BAR, "holds": holds, "viewers": VIEWERS, "rows": rows}
