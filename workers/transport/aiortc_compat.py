"""The one module that touches private names of aiortc; tests/test_aiortc_compat.py has a contract test per name.

aiortc's `RTCDtlsTransport` is built for a peer connection: it wants an ICE transport, makes a TLS context for each
connection and SRTP sessions for a router of its own. Here it only does the handshake, over any pipe of datagrams, with
one TLS context for all viewers, and hands out the keys.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from aiortc.rtcdtlstransport import (
    SRTP_PROFILES,
    X509_DIGEST_ALGORITHMS,
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    SRTPProtectionProfile,
    State,
)
from aiortc.rtcicetransport import RTCIceTransport
from OpenSSL import SSL

FINGERPRINT_ALGORITHMS = frozenset(X509_DIGEST_ALGORITHMS)

_RECORD_SIZE = 1500
_EXPORTER = b"EXTRACTOR-dtls_srtp"
"""RFC 5764, section 4.2."""


@dataclass(frozen=True, slots=True)
class SrtpKeys:
    """What the handshake agreed on, as `pylibsrtp.Policy` wants it."""

    profile: int
    """`pylibsrtp.Policy.SRTP_PROFILE_*`"""
    tx_key: bytes
    """Key and salt of what we send."""
    rx_key: bytes
    """Key and salt of what the viewer sends."""


class Certificate(RTCCertificate):
    """A worker's certificate, with one TLS context for all its handshakes."""

    _context: SSL.Context | None = None

    @property
    def fingerprint(self) -> str:
        """sha-256, "AB:CD:…"."""
        return next(one.value for one in self.getFingerprints() if one.algorithm == "sha-256")

    def _create_ssl_context(self, srtp_profiles: list[SRTPProtectionProfile]) -> SSL.Context:
        if self._context is None:
            self._context = super()._create_ssl_context(srtp_profiles)
            # A shared context would remember every viewer's TLS session, and no viewer ever resumes one.
            self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
            self._context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        return self._context


class _Pipe:
    """What `RTCDtlsTransport` needs of an ICE transport: `role`, `_recv` and `_send`."""

    role = "controlled"

    def __init__(self, send: Callable[[bytes], object], limit: int) -> None:
        self._out = send
        self._limit = limit
        self._waiting: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._closed = False

    def feed(self, data: bytes) -> bool:
        """False when the queue is full and `data` was dropped."""
        if len(self._waiting) >= self._limit:
            return False
        self._waiting.append(data)
        self._wake()
        return True

    def close(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _recv(self) -> bytes:
        while not self._waiting:
            if self._closed:
                raise ConnectionError("the transport is closed")
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._waiting.popleft()

    async def _send(self, data: bytes) -> None:
        self._out(data)


class DtlsServer(RTCDtlsTransport):
    """The server's side of one DTLS connection.

    `send` takes each outgoing datagram and never raises; `on_closed` is called once when the peer has said goodbye.
    """

    def __init__(
        self, certificate: Certificate, send: Callable[[bytes], object], on_closed: Callable[[], None], *, queue: int
    ) -> None:
        self._pipe = _Pipe(send, queue)
        super().__init__(cast(RTCIceTransport, self._pipe), [certificate])
        self._set_role("server")
        # The cheapest first: the server's order decides when a viewer offers several.
        self._srtp_profiles = sorted(SRTP_PROFILES, key=lambda profile: ("GCM" not in str(profile.openssl_profile),
                                                                        profile.key_length))  # fmt: skip
        self._keys: SrtpKeys | None = None
        self._on_closed: Callable[[], None] | None = on_closed

    def feed(self, data: bytes) -> bool:
        """Take records of the peer; False when too many wait already."""
        return self._pipe.feed(data)

    async def handshake(self, algorithm: str, fingerprint: str) -> SrtpKeys | None:
        """The keys, or None when the handshake failed or the certificate is not the one that was announced."""
        try:
            await self.start(RTCDtlsParameters([RTCDtlsFingerprint(algorithm, fingerprint)]))
        except SSL.Error:
            return None
        return self._keys if self._state is State.CONNECTED else None

    def shutdown(self) -> asyncio.Future[None] | None:
        """Say goodbye at once. Returns the task that is ending, if there is one."""
        self._on_closed = None
        self._pipe.close()
        if self._ssl is not None and self._state in (State.CONNECTING, State.CONNECTED):
            with contextlib.suppress(SSL.Error):
                self._ssl.shutdown()
                self._pipe._out(self._ssl.bio_read(_RECORD_SIZE))
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        return task

    def _setup_srtp(self) -> None:
        """Export the keys, where aiortc makes SRTP sessions of them that nobody here would use."""
        assert self._ssl is not None
        name = self._ssl.get_selected_srtp_profile()
        profile = next((one for one in self._srtp_profiles if one.openssl_profile == name), None)
        if profile is None:
            self._set_state(State.FAILED)
            return
        material = self._ssl.export_keying_material(_EXPORTER, 2 * (profile.key_length + profile.salt_length))
        self._keys = SrtpKeys(
            profile=profile.libsrtp_profile,
            tx_key=profile.get_key_and_salt(material, 1),
            rx_key=profile.get_key_and_salt(material, 0),
        )

    def _set_state(self, state: State) -> None:
        super()._set_state(state)
        if state is State.CLOSED and self._on_closed is not None:
            on_closed, self._on_closed = self._on_closed, None
            on_closed()

    def emit(self, event: str, *args: Any, **kwargs: Any) -> bool:
        """Nobody listens: without this, pyee would look for listeners on every change of state."""
        return False
