"""Client: one viewer's connection; ICE, DTLS and SRTP as a browser's, without anything behind them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import secrets
import socket
from dataclasses import dataclass
from typing import Any

import pylibsrtp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from pylibsrtp import Policy, Session

from broadcaster.errors import LoadError
from workers.load.checks import Checks
from workers.load.session import Answer

CONNECT_TIMEOUT = 10.0
CONSENT_TIMEOUT = 15.0
"""Seconds without an answer to a check after which Chromium gives a connection up."""

_RETRY = 0.25
"""Seconds after which a check or a flight of the handshake is sent again."""

_RECORD_SIZE = 1200
_DATAGRAM = 2048
_EXPORTER = b"EXTRACTOR-dtls_srtp"
_PROFILES = {
    b"SRTP_AEAD_AES_128_GCM": (Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12),
    b"SRTP_AES128_CM_SHA1_80": (Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14),
}
"""libsrtp's number, octets of key and of salt (RFC 5764, RFC 7714); the better first."""


class Identity:
    """A certificate and a TLS context, shared by all viewers of a run."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, secrets.token_hex(8))])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .sign(key, hashes.SHA256())
        )
        self.fingerprint = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
        self.context = SSL.Context(SSL.DTLS_METHOD)
        self.context.use_certificate(certificate)
        self.context.use_privatekey(key)
        self.context.set_tlsext_use_srtp(b":".join(_PROFILES))


@dataclass
class Credentials:
    """A viewer's own ICE credentials."""

    ufrag: str
    password: str

    @classmethod
    def new(cls) -> Credentials:
        return cls(secrets.token_hex(4), secrets.token_hex(12))


class Client:
    """One viewer. The owner of `socket` reads it once the client is connected, and hands on what is no RTP."""

    def __init__(self, identity: Identity, answer: Answer, own_ufrag: str, udp: socket.socket) -> None:
        self.answer = answer
        self.socket = udp
        self.ended: str | None = None
        """Why the connection ended, in a few words; None while it lives."""
        self.last_sender_report: tuple[int, float] | None = None
        """Middle 32 bits of its NTP time, and when it came (monotonic seconds)."""
        self.failures = 0
        """SRTP and SRTCP packets that are not authentic."""
        self.estimate = 0.0
        """Bit/s of the last REMB."""
        self.reported = (0.0, 0)
        """When the last report left, and the octets received until then."""
        self._checks = Checks(f"{answer.ufrag}:{own_ufrag}", answer.password, secrets.randbits(64))
        self._consent = 0.0
        self._progress = asyncio.Event()
        self._checked = self._connected = False
        self._rx: Session | None = None
        self._tx: Session | None = None
        self._dtls = SSL.Connection(identity.context, None)
        self._dtls.set_ciphertext_mtu(_RECORD_SIZE)
        self._dtls.set_connect_state()
        udp.connect(answer.address)

    async def connect(self) -> None:
        """Check and shake hands. Raises LoadError, which says what the server did not do."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self.socket.fileno(), self._readable)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                while not self._connected:
                    if self.ended is not None:
                        raise LoadError(self.ended)
                    self._retry()
                    self._progress.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_RETRY):
                            await self._progress.wait()
        except TimeoutError:
            step = "DTLS handshake" if self._checked else "ICE check"
            host, port = self.answer.address
            raise LoadError(f"no {step} with {host} port {port} within {CONNECT_TIMEOUT:.0f} s") from None
        finally:
            loop.remove_reader(self.socket.fileno())

    def check(self, now: float) -> bytes:
        """A check to send (RFC 8445), which renews consent (RFC 7675)."""
        if self._connected and now - self._consent > CONSENT_TIMEOUT:
            self.ended = self.ended or "the server stopped answering"
        return self._checks.request(os.urandom(12))

    def receive(self, data: bytes, arrival: float) -> bytes | None:
        """Take what is no RTP; an RTCP packet is returned in clear."""
        if data[0] < 4:
            self._take_stun(data, arrival)
        elif 20 <= data[0] < 64:
            self._take_dtls(data)
        elif self._rx is not None:
            try:
                return bytes(self._rx.unprotect_rtcp(data))
            except (pylibsrtp.Error, ValueError):
                self.failures += 1
        return None

    def unprotect(self, packet: bytes) -> bytes | None:
        """An RTP packet in clear, or None when it is not authentic."""
        assert self._rx is not None
        try:
            return bytes(self._rx.unprotect(packet))
        except (pylibsrtp.Error, ValueError):
            self.failures += 1
            return None

    @property
    def context(self) -> Any:
        """libsrtp's, that protects what this viewer says."""
        assert self._tx is not None
        return self._tx._srtp[0]

    def protect_rtcp(self, packet: bytes) -> bytes:
        """What to send of an RTCP packet."""
        assert self._tx is not None
        return bytes(self._tx.protect_rtcp(packet))

    def send(self, data: bytes) -> None:
        try:
            self.socket.send(data)
        except OSError:
            return  # a refused or full socket loses a datagram, as networks do

    def close(self) -> None:
        """Say goodbye."""
        if self._connected and self.ended is None:
            with contextlib.suppress(SSL.Error):
                self._dtls.shutdown()
                self._flush()
        self.socket.close()

    def _readable(self) -> None:
        """Read until connected; what follows is left to the socket's owner."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while not self._connected:
                data = self.socket.recv(_DATAGRAM)
                if data:
                    self.receive(data, loop.time())

    def _retry(self) -> None:
        if not self._checked:
            self.send(self.check(0.0))
        else:
            with contextlib.suppress(SSL.Error):
                self._dtls.DTLSv1_handle_timeout()
            self._flush()

    def _take_stun(self, data: bytes, arrival: float) -> None:
        if not self._checks.answered(data):
            return
        self._consent = arrival
        if not self._checked:
            self._checked = True
            self._shake_hands()

    def _take_dtls(self, data: bytes) -> None:
        self._dtls.bio_write(data)
        if not self._connected:
            self._shake_hands()
            return
        try:
            self._dtls.recv(_DATAGRAM)
        except SSL.ZeroReturnError:
            self.ended = self.ended or "the server said goodbye"
        except SSL.Error:
            pass  # wants more, or a record that is none

    def _shake_hands(self) -> None:
        try:
            self._dtls.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return
        except SSL.Error as error:
            self.ended = f"the DTLS handshake failed: {error}"
            self._progress.set()
            return
        self._flush()
        certificate = self._dtls.get_peer_certificate()
        if certificate is None or certificate.digest("sha256").decode() != self.answer.fingerprint:
            self.ended = "the server's certificate is not the one of its answer"
        else:
            self._derive()
        self._progress.set()

    def _derive(self) -> None:
        """The keys of RFC 5764, section 4.2."""
        chosen = _PROFILES.get(self._dtls.get_selected_srtp_profile())
        if chosen is None:
            self.ended = "the server chose no SRTP profile"
            return
        profile, key, salt = chosen
        material = self._dtls.export_keying_material(_EXPORTER, 2 * (key + salt))
        own = material[:key] + material[2 * key : 2 * key + salt]
        other = material[key : 2 * key] + material[2 * key + salt :]
        self._tx = Session(Policy(key=own, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile))
        self._rx = Session(Policy(key=other, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=profile))
        self._connected = True

    def _flush(self) -> None:
        with contextlib.suppress(SSL.Error):
            while True:
                self.send(self._dtls.bio_read(_DATAGRAM))
