"""The server's side of a viewer's DTLS handshake (RFC 5764, RFC 6347), driven by the datagrams that come in.

No task waits for a viewer: what a datagram leads to is done when it arrives, and a timer repeats a flight that the
viewer may have missed. After the handshake only the viewer's goodbye is of interest, and its last flight, which it
repeats where ours was lost: OpenSSL answers that by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from OpenSSL import SSL

from workers.transport.aiortc_compat import Certificate, profile_named

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

    __slots__ = ("_connected", "_fingerprint", "_on_connected", "_on_end", "_over", "_send", "_ssl", "_timer")

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
        self._ssl = SSL.Connection(certificate.context)
        self._ssl.set_accept_state()

    def feed(self, data: bytes) -> None:
        """Take the records of a datagram."""
        if self._over:
            return
        self._ssl.bio_write(data)
        if self._connected:
            self._listen()
        else:
            self._shake_hands()

    def shutdown(self) -> None:
        """Say goodbye, if there is still anybody to say it to. Nothing is called any more."""
        if not self._over:
            self._stop()
            with contextlib.suppress(SSL.Error):
                self._ssl.shutdown()
            self._flush()

    def _shake_hands(self) -> None:
        try:
            self._ssl.do_handshake()
        except SSL.WantReadError:
            self._flush()
            self._wait()
            return
        except SSL.Error:
            self._flush()
            self._end("failed")
            return
        self._flush()
        self._rest()
        keys = self._keys() if self._is_announced() else None
        if keys is None:
            self._end("failed")
            return
        self._connected = True
        self._on_connected(keys)

    def _listen(self) -> None:
        """Whatever the viewer says, there is no data for us in it."""
        try:
            while True:
                self._ssl.recv(_DATAGRAM)
        except SSL.ZeroReturnError:
            self._end("closed")
        except SSL.Error:
            self._flush()

    def _is_announced(self) -> bool:
        """Whether the viewer's certificate is that of the offer (RFC 8122 section 5): without this, whoever can send
        from the viewer's address could be the viewer."""
        algorithm, value = self._fingerprint
        certificate = self._ssl.get_peer_certificate()
        return certificate is not None and certificate.digest(algorithm.replace("-", "")) == value.upper().encode()

    def _keys(self) -> SrtpKeys | None:
        profile = profile_named(self._ssl.get_selected_srtp_profile())
        if profile is None:
            return None
        material = self._ssl.export_keying_material(_EXPORTER, 2 * (profile.key_length + profile.salt_length))
        return SrtpKeys(
            profile=profile.libsrtp_profile,
            tx_key=profile.get_key_and_salt(material, 1),
            rx_key=profile.get_key_and_salt(material, 0),
        )

    def _flush(self) -> None:
        """Send what OpenSSL has written; a flight fits into a datagram."""
        try:
            data = self._ssl.bio_read(_DATAGRAM)
        except SSL.Error:
            return
        self._send(data)

    def _wait(self) -> None:
        """Be called when a flight has to be sent again (RFC 6347, section 4.2.4)."""
        self._rest()
        seconds = self._ssl.DTLSv1_get_timeout()
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._repeat)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _repeat(self) -> None:
        self._timer = None
        try:
            self._ssl.DTLSv1_handle_timeout()
        except SSL.Error:  # it was repeated often enough
            self._end("failed")
            return
        self._flush()
        self._wait()

    def _stop(self) -> None:
        self._over = True
        self._rest()

    def _end(self, end: End) -> None:
        self._stop()
        self._on_end(end)
