"""What stays of a DTLS connection after its handshake: enough to part.

OpenSSL keeps some 75 kB for each connection that stands: buffers for records, for messages, for what it might repeat.
No data flows here, so three things are left to do: to repeat our last flight where it was lost, to hear the viewer's
goodbye, and to say ours. The first and the last are bytes that OpenSSL has written already; for the second the key of
what the viewer sends will do.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from OpenSSL import SSL

_HEADER = 13
_TAG = 16
_NONCE = 12
_ALERT = 21
_HANDSHAKE = 22
_FINISHED = 20
_CLOSE_NOTIFY = b"\x01\x00"
_EPOCH = 1
"""There is one handshake, and no renegotiation."""

News = Literal["goodbye", "repeats"]


class _Record(NamedTuple):
    kind: int
    version: bytes
    number: bytes
    """Epoch and sequence number, 8 octets."""
    body: bytes


@dataclass(frozen=True, slots=True)
class _Suite:
    """How a cipher suite protects records. `key` and `salt` are octets; what of the nonce is no salt stands in each
    record (RFC 5288, section 3), and where all of it is, the record's number goes into it (RFC 7905, section 2)."""

    aead: Callable[[bytes], AESGCM | ChaCha20Poly1305]
    key: int
    salt: int

    def opened(self, key: bytes, salt: bytes, record: _Record) -> bytes | None:
        """What the record says; None when it is not the viewer's."""
        explicit = _NONCE - self.salt
        size = len(record.body) - explicit - _TAG
        if size < 0:
            return None
        if explicit:
            nonce = salt + record.body[:explicit]
        else:
            nonce = bytes(one ^ other for one, other in zip(salt, record.number.rjust(_NONCE, b"\0"), strict=True))
        covered = record.number + bytes([record.kind]) + record.version + size.to_bytes(2, "big")
        try:
            return self.aead(key).decrypt(nonce, record.body[explicit:], covered)
        except InvalidTag:
            return None


_SUITES = {
    "ECDHE-ECDSA-AES128-GCM-SHA256": _Suite(AESGCM, 16, 4),
    "ECDHE-ECDSA-CHACHA20-POLY1305": _Suite(ChaCha20Poly1305, 32, 12),
}
"""By OpenSSL's names; all that browsers choose of what is offered to them (aiortc_compat.py)."""


class Parting:
    """Made by `Parting.of`."""

    __slots__ = ("_key", "_repeated", "_salt", "_suite", "goodbye", "last_flight")

    def __init__(self, suite: _Suite, key: bytes, salt: bytes, last_flight: bytes, goodbye: bytes) -> None:
        self._suite = suite
        self._key = key
        self._salt = salt
        self._repeated = 0
        self.last_flight = last_flight
        """To be sent again, as it was, to a viewer that repeats its own: it has not got it."""
        self.goodbye = goodbye
        """Our close_notify, to be sent once."""

    @classmethod
    def of(cls, connection: SSL.Connection, last_flight: bytes) -> Parting | None:
        """What stays of a connection whose handshake is over. It has said goodbye then, and is to be let go.

        None for a version or a cipher suite that is not known here; then the connection has to stay.
        """
        suite = _SUITES.get(connection.get_cipher_name() or "")
        if suite is None or connection.get_protocol_version_name() != "DTLSv1.2":
            return None
        block = _key_block(connection, 2 * (suite.key + suite.salt))
        connection.shutdown()
        goodbye = connection.bio_read(_HEADER + 256)
        salt = 2 * suite.key
        return cls(suite, block[: suite.key], block[salt : salt + suite.salt], last_flight, goodbye)

    def news(self, data: bytes) -> News | None:
        """What a datagram of the viewer says; None when it is nothing new, or not the viewer's."""
        for record in _records(data):
            if record.kind == _ALERT:
                if self._suite.opened(self._key, self._salt, record) == _CLOSE_NOTIFY:
                    return "goodbye"
            elif record.kind == _HANDSHAKE:
                number = int.from_bytes(record.number, "big")
                said = self._suite.opened(self._key, self._salt, record) if number > self._repeated else None
                if said and said[0] == _FINISHED:
                    # Each has a number of its own; whoever records one and sends it again gets nothing for it.
                    self._repeated = number
                    return "repeats"
        return None


def _key_block(connection: SSL.Connection, size: int) -> bytes:
    """Write keys and salts of both sides: the client's key, the server's, the client's salt, the server's (RFC 5246,
    sections 5 and 6.3)."""
    secret = connection.master_key()
    seed = b"key expansion" + (connection.server_random() or b"") + (connection.client_random() or b"")
    assert secret is not None, "a handshake that is over, and has no secret"
    block, chained = b"", seed
    while len(block) < size:
        chained = hmac.digest(secret, chained, "sha256")
        block += hmac.digest(secret, chained + seed, "sha256")
    return block[:size]


def _records(data: bytes) -> Iterator[_Record]:
    """The protected records of a datagram (RFC 6347, section 4.1)."""
    position, size = 0, len(data)
    while position + _HEADER <= size:
        start = position + _HEADER
        end = start + int.from_bytes(data[position + 11 : start], "big")
        if end > size:
            return
        if int.from_bytes(data[position + 3 : position + 5], "big") == _EPOCH:
            header = data[position:start]
            yield _Record(header[0], header[1:3], header[3:11], data[start:end])
        position = end
