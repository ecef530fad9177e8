"""A viewer made by hand, for tests of the transport: it does what it is told, well-behaved or not.

STUN comes from aioice and DTLS from aiortc, as clients, so neither is checked against the code under test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar, overload

from aioice import stun
from aiortc import RTCCertificate, RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport
from pylibsrtp import Policy, Session

from workers.transport import Endpoint, PeerTransport, SrtpKeys


def check(
    peer_ufrag: str, peer_password: str, *, use_candidate: bool = True, controlling: bool = True, **more: Any
) -> bytes:
    """An authentic STUN check as a browser sends it."""
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, transaction_id=os.urandom(12))
    request.attributes["USERNAME"] = f"{peer_ufrag}:viewer"
    request.attributes["PRIORITY"] = 1845501695
    request.attributes["ICE-CONTROLLING" if controlling else "ICE-CONTROLLED"] = 1234567
    if use_candidate:
        request.attributes["USE-CANDIDATE"] = None
    request.attributes.update(more)
    request.add_message_integrity(peer_password.encode())
    return bytes(request)


class Viewer:
    """One UDP socket (or TCP connection) towards a server. Use as an async context manager."""

    role = "controlling"  # this, _recv and _send are what RTCDtlsTransport asks of its transport

    def __init__(self, server: tuple[str, int], ufrag: str, password: str, *, tcp: bool = False) -> None:
        self.server = server
        self.ufrag = ufrag
        self.password = password
        self.answers: list[stun.Message] = []
        self.datagrams: list[bytes] = []
        """Everything that came in and was no STUN and no DTLS."""
        self._tcp = tcp
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._dtls_in: deque[bytes] = deque()
        self._lost = False
        self._streams: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._certificate = RTCCertificate.generateCertificate()
        self.fingerprint = (
            "sha-256",
            next(one.value for one in self._certificate.getFingerprints() if one.algorithm == "sha-256"),
        )
        self.dtls = RTCDtlsTransport(self, [self._certificate])  # type: ignore[arg-type]
        self.dtls.on("statechange", self._arrived.set)

    async def __aenter__(self) -> Viewer:
        await self.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:  # fmt: skip
        await self.dtls.stop()
        self.hang_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def open(self) -> None:
        """Take a new local port, as behind a NAT that has forgotten the old one."""
        if self._tcp:
            reader, writer = await asyncio.open_connection(*self.server)
            self._streams.append(writer)
            task = self._loop.create_task(self._read_frames(reader))
            self._tasks.add(task)
            self.address = writer.get_extra_info("sockname")
            return
        if hasattr(self, "socket"):
            self.hang_up()
        host = self.server[0]
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((host, 0))
        self.address = self.socket.getsockname()
        self._loop.add_reader(self.socket.fileno(), self._readable)

    def hang_up(self) -> None:
        """Be gone without a word."""
        if self._tcp:
            for stream in self._streams:
                stream.close()
        elif self.socket.fileno() >= 0:
            self._loop.remove_reader(self.socket.fileno())
            self.socket.close()

    def send(self, data: bytes) -> None:
        if self._tcp:
            self._streams[-1].write(len(data).to_bytes(2, "big") + data)
        else:
            self.socket.sendto(data, self.server)

    async def check(self, **how: Any) -> stun.Message:
        """Send a check and return the answer to it; TimeoutError after 2 s of silence."""
        count = len(self.answers)
        self.send(check(self.ufrag, self.password, **how))
        await self.until(lambda: len(self.answers) > count)
        return self.answers[-1]

    async def connect(self, server_fingerprint: str) -> None:
        """A check, then the handshake."""
        await self.check()
        await self.handshake(server_fingerprint)

    async def handshake(self, server_fingerprint: str) -> None:
        self.dtls._set_role("client")
        await self.dtls.start(RTCDtlsParameters([RTCDtlsFingerprint("sha-256", server_fingerprint)]))

    async def until(self, condition: Any, seconds: float = 2.0) -> None:
        """Wait until something that came in makes `condition()` true."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._arrived.clear()
                await self._arrived.wait()

    async def _recv(self) -> bytes:
        while not self._dtls_in:
            self._arrived.clear()
            await self._arrived.wait()
        return self._dtls_in.popleft()

    async def _send(self, data: bytes) -> None:
        self.send(data)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._take(self.socket.recv(65535))

    async def _read_frames(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                self._take(await reader.readexactly(size))
        self._lost = True
        self._arrived.set()

    @property
    def lost(self) -> bool:
        """Whether the server hung up the TCP connection."""
        return self._lost

    def _take(self, data: bytes) -> None:
        if data[0] < 4:
            answer = stun.parse_message(data)
            assert answer.check_message_integrity(self.password.encode())
            self.answers.append(answer)
        elif data[0] < 64:
            self._dtls_in.append(data)
        else:
            self.datagrams.append(data)
        self._arrived.set()


@dataclass
class Served:
    """A viewer's peer on the server, and everything that it reported."""

    peer: PeerTransport = field(init=False)
    keys: list[SrtpKeys] = field(default_factory=list)
    rtcp: list[bytes] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    happened: asyncio.Event = field(default_factory=asyncio.Event)

    def connected(self, keys: SrtpKeys) -> None:
        self.keys.append(keys)
        self.happened.set()

    def received(self, data: bytes) -> None:
        self.rtcp.append(data)
        self.happened.set()

    def closed(self, reason: str) -> None:
        self.reasons.append(reason)
        self.happened.set()

    async def until(self, condition: Any, seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self.happened.clear()
                await self.happened.wait()


AServed = TypeVar("AServed", bound=Served)


@overload
def serve(
    endpoint: Endpoint, host: str = "127.0.0.1", port: int = 0, *, tcp: bool = False
) -> tuple[Served, Viewer]: ...


@overload
def serve(
    endpoint: Endpoint, host: str = "127.0.0.1", port: int = 0, *, tcp: bool = False, kind: Callable[[], AServed]
) -> tuple[AServed, Viewer]: ...


def serve(
    endpoint: Endpoint,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    tcp: bool = False,
    kind: Callable[[], Served] = Served,
) -> tuple[Served, Viewer]:
    """A peer of `endpoint` and the viewer that belongs to it; `port` is the relay's, when there is one."""
    served = kind()
    viewer = Viewer((host, port or endpoint.port), "", "", tcp=tcp)
    served.peer = endpoint.accept(
        remote_fingerprint=viewer.fingerprint,
        on_connected=served.connected,
        on_rtcp=served.received,
        on_closed=served.closed,
    )
    viewer.ufrag, viewer.password = served.peer.ufrag, served.peer.password
    return served, viewer


async def seen(endpoint: Endpoint, count: int, what: str = "datagrams") -> None:
    """Wait until the server has counted so many datagrams, or `what` else its statistics count."""
    async with asyncio.timeout(5):
        while getattr(endpoint.statistics, what) < count:
            await asyncio.sleep(0.002)


def session(profile: int, key: bytes, *, outbound: bool) -> Session:
    """An SRTP session of one direction."""
    direction = Policy.SSRC_ANY_OUTBOUND if outbound else Policy.SSRC_ANY_INBOUND
    return Session(Policy(key=key, ssrc_type=direction, srtp_profile=profile))


RECEIVER_REPORT = bytes.fromhex("80c90001000000ff")


async def plays(served: Served, viewer: Viewer) -> None:
    """Assert that media and reports pass, with the keys that both sides have."""
    keys = served.keys[0]
    assert served.peer.path is not None
    count = len(viewer.datagrams)
    packet = b"\x80\x60" + (count + 1).to_bytes(2, "big") + bytes(8) + b"picture"  # no sequence number twice
    assert served.peer.path.send(session(keys.profile, keys.tx_key, outbound=True).protect(packet))
    await viewer.until(lambda: len(viewer.datagrams) > count)
    rtcp = len(served.rtcp)
    await viewer.dtls._send_rtp(RECEIVER_REPORT)
    await served.until(lambda: len(served.rtcp) > rtcp)
    assert viewer.dtls._rx_srtp.unprotect(viewer.datagrams[-1]) == packet
    assert session(keys.profile, keys.rx_key, outbound=False).unprotect_rtcp(served.rtcp[-1]) == RECEIVER_REPORT
