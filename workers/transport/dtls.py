"""The server's side of a viewer's DTLS handshake (RFC 5764, RFC 6347), driven by the datagrams that come in.

No task waits for a viewer: what a datagram leads to is done when it arrives, and a timer repeats a flight that the
viewer may have missed. After the handshake only the viewer's goodbye is of interest, and its last flight, which it
repeats where ours was lost. For that OpenSSL's state need not stay (parting.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, dump_certificate

from workers.transport.aiortc_compat import Certificate, profile_named
from workers.transport.parting import Parting

_DATAGRAM = 1500
_EXPORTER = b"EXTRACTOR-dtls_srtp"
"""RFC 5764, section 4.2."""

End = Literal["closed", "failed"]


@dataclass(frozen=True, slots=True)
class SrtpKeys:
    """What the handshake agreed on, as `pylibsrtp.Policy` wants it."""

    profile: int
    """`pylibsrtp.Policy.SRTP_PROFILE_*`"""
    tx_key: bytes
    """Key and salt of what we send."""
    rx_key: bytes
    """Key and salt of what the viewer sends."""


class DtlsServer:
    """One DTLS connection.

    `fingerprint` is (algorithm, value) of the certificate that the viewer has announced. `send` takes each outgoing
    datagram and never raises. `on_connected` is called once with the keys, and `on_end` at most once: "failed" when the
    handshake failed or the certificate is another one, "closed" when the viewer has said goodbye. Both are called by
    `feed`, and `on_end` by the timer too.
    """

    __slots__ = (
        "_connected",
        "_fingerprint",
        "_on_connected",
        "_on_end",
        "_over",
        "_parting",
        "_send",
        "_ssl",
        "_timer",
    )

    def __init__(
        self,
        certificate: Certificate,
        fingerprint: tuple[str, str],
        send: Callable[[bytes], object],
        on_connected: Callable[[SrtpKeys], None],
        on_end: Callable[[End], None],
    ) -> None:
        self._fingerprint = fingerprint
        self._send = send
        self._on_connected = on_connected
        self._on_end = on_end
        self._connected = self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._ssl: SSL.Connection | None = SSL.Connection(certificate.context)
        self._ssl.set_accept_state()
        self._parting: Parting | None = None

    def feed(self, data: bytes) -> None:
        """Take the records of a datagram."""
        if self._over:
            return
        if self._parting is not None:
            self._heed(self._parting, data)
        elif self._ssl is not None:
            self._ssl.bio_write(data)
            if self._connected:
                self._listen(self._ssl)
            else:
                self._shake_hands(self._ssl)

    def shutdown(self) -> None:
        """Say goodbye, if there is still anybody to say it to. Nothing is called any more."""
        if self._over:
            return
        self._stop()
        if self._parting is not None:
            self._send(self._parting.goodbye)
        elif self._ssl is not None:
            with contextlib.suppress(SSL.Error):
                self._ssl.shutdown()
            self._flush(self._ssl)

    def _shake_hands(self, ssl: SSL.Connection) -> None:
        try:
            ssl.do_handshake()
        except SSL.WantReadError:
            self._flush(ssl)
            self._wait(ssl)
            return
        except SSL.Error:
            self._flush(ssl)
            self._end("failed")
            return
        last_flight = self._flush(ssl)
        self._rest()
        keys = _keys(ssl) if self._is_announced(ssl) else None
        if keys is None:
            self._end("failed")
            return
        self._connected = True
        self._parting = Parting.of(ssl, last_flight)
        if self._parting is not None:
            self._ssl = None
        self._on_connected(keys)

    def _heed(self, parting: Parting, data: bytes) -> None:
        news = parting.news(data)
        if news == "goodbye":
            self._end("closed")
        elif news == "repeats":
            self._send(parting.last_flight)

    def _listen(self, ssl: SSL.Connection) -> None:
        """The same by OpenSSL. Whatever the viewer says, there is no data for us in it."""
        try:
            while True:
                ssl.recv(_DATAGRAM)
        except SSL.ZeroReturnError:
            self._end("closed")
        except SSL.Error:
            self._flush(ssl)

    def _is_announced(self, ssl: SSL.Connection) -> bool:
        """Whether the viewer's certificate is that of the offer (RFC 8122 section 5): without this, whoever can send
        from the viewer's address could be the viewer."""
        algorithm, value = self._fingerprint
        certificate = ssl.get_peer_certificate()
        if certificate is None:
            return False
        encoded = dump_certificate(FILETYPE_ASN1, certificate)
        digest = hashlib.new(algorithm.replace("-", ""), encoded).hexdigest()
        return digest == value.replace(":", "").lower()

    def _flush(self, ssl: SSL.Connection) -> bytes:
        """Send what OpenSSL has written, and return it; a flight fits into a datagram."""
        try:
            data = ssl.bio_read(_DATAGRAM)
        except SSL.Error:
            return b""
        self._send(data)
        return data

    def _wait(self, ssl: SSL.Connection) -> None:
        """Be called when a flight has to be sent again (RFC 6347, section 4.2.4)."""
        self._rest()
        seconds = ssl.DTLSv1_get_timeout()
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._repeat, ssl)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _repeat(self, ssl: SSL.Connection) -> None:
        self._timer = None
        try:
            ssl.DTLSv1_handle_timeout()
        except SSL.Error:  # it was repeated often enough
            self._end("failed")
            return
        self._flush(ssl)
        self._wait(ssl)

    def _stop(self) -> None:
        self._over = True
        self._rest()

    def _end(self, end: End) -> None:
        self._stop()
        self._on_end(end)


def _keys(ssl: SSL.Connection) -> SrtpKeys | None:
    """None where no SRTP profile was agreed on."""
    profile = profile_named(ssl.get_selected_srtp_profile())
    if profile is None:
        return None
    material = ssl.export_keying_material(_EXPORTER, 2 * (profile.key_length + profile.salt_length))
    return SrtpKeys(
        profile=profile.libsrtp_profile,
        tx_key=profile.get_key_and_salt(material, 1),
        rx_key=profile.get_key_and_salt(material, 0),
    )
