"""Cheap viewers for the benchmarks: to a worker they are browsers, to this machine they cost next to nothing.

They join by WHEP, check, shake hands and report at the pace of browsers (measured with Chromium 156): a check every
2.65 s, receiver report and REMB each second. Media is counted by its headers and neither decrypted nor decoded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aioice import stun
from aiortc import RTCCertificate
from OpenSSL import SSL
from pylibsrtp import Policy, Session

from tests.topology import Topology

CHECK_INTERVAL = 2.65
REPORT_INTERVAL = 1.0
REMB = 2_000_000
_GCM_KEY, _GCM_SALT = 16, 12
_OFFER = Path(__file__).parent.parent / "tests" / "data" / "chromium156_offer.sdp"
_MANTISSA = 18


class Audience:
    """Viewers of the first gateway; all share a certificate and a TLS context."""

    def __init__(self, beamcast: Topology, make: Callable[[SSL.Context, str], Viewer] | None = None) -> None:
        """`make` is what makes a viewer of the TLS context and an answer, where it shall be another than `Viewer`."""
        self._make = make or Viewer
        self._http = beamcast.http
        self._endpoint = f"{beamcast.url}/whep/{beamcast.stream}"
        certificate = RTCCertificate.generateCertificate()
        self.context = SSL.Context(SSL.DTLS_METHOD)
        self.context.use_certificate(certificate._cert)
        self.context.use_privatekey(certificate._key)
        self.context.set_tlsext_use_srtp(b"SRTP_AEAD_AES_128_GCM")
        value = next(one.value for one in certificate.getFingerprints() if one.algorithm == "sha-256")
        self._offer = re.sub(r"(a=fingerprint:sha-256 )\S+", rf"\g<1>{value}", _OFFER.read_text())
        self.viewers: list[Viewer] = []

    async def join(self, count: int, *, at_once: int = 4) -> None:
        """`count` more viewers, connected when it returns; `at_once` of them join at a time."""
        gate = asyncio.Semaphore(at_once)

        async def one() -> None:
            async with gate:
                self.viewers.append(await self.join_one())

        await asyncio.gather(*(one() for _ in range(count)))

    async def join_one(self) -> Viewer:
        """A viewer that is nobody's but the caller's, connected."""
        headers = {"Content-Type": "application/sdp"}
        async with self._http.post(self._endpoint, data=self._offer, headers=headers) as response:
            answer = await response.text()
            assert response.status == 201, f"{response.status}: {answer}"
        viewer = self._make(self.context, answer)
        async with asyncio.timeout(10):
            await viewer.connected
        return viewer

    def leave(self, count: int) -> None:
        """The last `count` viewers say goodbye."""
        for _ in range(count):
            self.viewers.pop().close()

    @property
    def packets(self) -> int:
        """Media packets that arrived, of all viewers here now."""
        for viewer in self.viewers:
            viewer.read()
        return sum(viewer.packets for viewer in self.viewers)


class Viewer:
    """One of the audience. Reads its socket while it connects, and from then on only when it has something to send."""

    def __init__(self, context: SSL.Context, answer: str) -> None:
        self.packets = 0
        self._highest = -1
        self._ssrc = int(_found(r"a=ssrc:(\d+) cname", answer))
        self._credentials = _found(r"a=ice-ufrag:(\S+)", answer), _found(r"a=ice-pwd:(\S+)", answer)
        port = int(_found(r"a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 (\d+)", answer))
        self._loop = asyncio.get_running_loop()
        self.connected: asyncio.Future[None] = self._loop.create_future()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.connect(("127.0.0.1", port))
        self._loop.add_reader(self._socket.fileno(), self.read)
        self._ssl = SSL.Connection(context, None)
        self._ssl.set_connect_state()
        self._session: Session | None = None
        self._timers: dict[Any, asyncio.TimerHandle] = {}
        self._again(self._check, 0.0, CHECK_INTERVAL)

    def read(self) -> None:
        """Take everything that arrived."""
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                self._take(self._socket.recv(2048))

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        with contextlib.suppress(SSL.Error):
            self._ssl.shutdown()
        self._flush()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _take(self, data: bytes) -> None:
        if data[0] < 4:
            if self._session is None and self._ssl.get_state_string() != b"SSL negotiation finished successfully":
                self._shake_hands()
        elif data[0] < 64:
            self._ssl.bio_write(data)
            if self._session is None:
                self._shake_hands()
        elif not 192 <= data[1] <= 223 and int.from_bytes(data[8:12], "big") == self._ssrc:
            self.packets += 1
            number = int.from_bytes(data[2:4], "big")
            if self._highest < 0:
                self._highest = number
            else:
                self._highest += (number - self._highest + 0x8000 & 0xFFFF) - 0x8000

    def _shake_hands(self) -> None:
        try:
            self._ssl.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return
        self._flush()
        keys = self._ssl.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (_GCM_KEY + _GCM_SALT))
        key = keys[:_GCM_KEY] + keys[2 * _GCM_KEY : 2 * _GCM_KEY + _GCM_SALT]
        profile = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
        self.media_key = keys[_GCM_KEY : 2 * _GCM_KEY] + keys[2 * _GCM_KEY + _GCM_SALT :]
        self._session = Session(Policy(key=key, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile))
        self._loop.remove_reader(self._socket.fileno())
        self._again(self._report, random.random() * REPORT_INTERVAL, REPORT_INTERVAL)
        self.connected.set_result(None)

    def _flush(self) -> None:
        with contextlib.suppress(SSL.Error, OSError):
            self._socket.send(self._ssl.bio_read(1500))

    def _again(self, body: Any, delay: float, interval: float) -> None:
        def fire() -> None:
            body()
            self._timers[body] = self._loop.call_later(interval * random.uniform(0.95, 1.05), fire)

        self._timers[body] = self._loop.call_later(delay, fire)

    def _check(self) -> None:
        ufrag, password = self._credentials
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, transaction_id=os.urandom(12))
        request.attributes["USERNAME"] = f"{ufrag}:viewer"
        request.attributes["PRIORITY"] = 1845501695
        request.attributes["ICE-CONTROLLING"] = 1234567
        request.attributes["USE-CANDIDATE"] = None
        request.add_message_integrity(password.encode())
        self._send(bytes(request))

    def _report(self) -> None:
        self.read()
        assert self._session is not None
        highest = max(0, self._highest)
        blocks = struct.pack("!IIIIII", self._ssrc, 0, highest & 0xFFFFFFFF, 20, 0, 0) if self._highest >= 0 else b""
        report = struct.pack("!BBHI", 0x80 | len(blocks) // 24, 201, 1 + len(blocks) // 4, 1) + blocks
        exponent = max(0, REMB.bit_length() - _MANTISSA)
        estimate = 1 << 24 | exponent << _MANTISSA | REMB >> exponent
        report += struct.pack("!BBHII4sII", 0x8F, 206, 5, 1, 0, b"REMB", estimate, self._ssrc)
        self._send(self._session.protect_rtcp(report))

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._socket.send(data)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, f"the answer has no {pattern}"
    return match[1]
