"""STUN as a controlling ICE agent needs it: Binding requests out, answers back (RFC 8489, RFC 8445). Sans I/O.

Written by hand because a thousand viewers check four hundred times a second, and answers to strangers are no concern.
"""

from __future__ import annotations

import hmac
import struct
from zlib import crc32

from workers.transport.stun import COOKIE, BindingRequest, is_authentic

PRIORITY = 1_845_501_695
"""Of a candidate that the server learns from the check (RFC 8445, section 5.1.2), as Chromium gives it."""

_REQUEST = b"\x00\x01"
_SUCCESS = b"\x01\x01"
_INTEGRITY = b"\x00\x08\x00\x14"
_INTEGRITY_SIZE = 24
_FINGERPRINT = b"\x80\x28\x00\x04"
_FINGERPRINT_SIZE = 8
_FINGERPRINT_XOR = 0x5354554E
_HEADER = 20


class Checks:
    """The checks of one viewer. `username` is "theirs:ours", `password` theirs, `tie_breaker` any 64 bits."""

    def __init__(self, username: str, password: str, tie_breaker: int) -> None:
        name = username.encode()
        self._password = password.encode()
        self._waiting: set[bytes] = set()
        self._attributes = (
            struct.pack("!HH", 0x0006, len(name))
            + name
            + bytes(-len(name) % 4)
            + struct.pack("!HHI", 0x0024, 4, PRIORITY)
            + struct.pack("!HHQ", 0x802A, 8, tie_breaker)
            + struct.pack("!HH", 0x0025, 0)  # USE-CANDIDATE
        )

    def request(self, transaction: bytes) -> bytes:
        """A check under this transaction id (12 octets)."""
        self._waiting.add(transaction)
        rest = COOKIE + transaction + self._attributes
        size = len(self._attributes) + _INTEGRITY_SIZE
        digest = hmac.digest(self._password, _REQUEST + size.to_bytes(2, "big") + rest, "sha1")
        message = b"".join((_REQUEST, (size + _FINGERPRINT_SIZE).to_bytes(2, "big"), rest, _INTEGRITY, digest))
        return message + _FINGERPRINT + (crc32(message) ^ _FINGERPRINT_XOR).to_bytes(4, "big")

    def answered(self, data: bytes) -> bool:
        """Whether `data` is an authentic success of a check that still waits for one; no other waits afterwards."""
        transaction = data[8:20]
        if data[:2] != _SUCCESS or transaction not in self._waiting:
            return False
        end = len(data) - _FINGERPRINT_SIZE
        position = (end if data[end : end + 4] == _FINGERPRINT else len(data)) - _INTEGRITY_SIZE
        if position < _HEADER or data[position : position + 4] != _INTEGRITY:
            return False
        if not is_authentic(BindingRequest(data, transaction, b"", position), self._password):
            return False
        self._waiting.clear()
        return True
