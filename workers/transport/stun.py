"""STUN as an ICE-lite server needs it: Binding requests in, authenticated answers out (RFC 8489, RFC 8445).

Sans I/O. What comes in is hostile until its MESSAGE-INTEGRITY was verified, and nothing is ever answered before that:
a server that answers strangers is a reflector.
"""

from __future__ import annotations

import hmac
import socket
import struct
from dataclasses import dataclass
from zlib import crc32

from broadcaster.errors import StunError

COOKIE = b"\x21\x12\xa4\x42"
"""RFC 8489, section 5."""

_HEADER = 20
_BINDING_REQUEST = 0x0001
_BINDING_SUCCESS = b"\x01\x01"
_BINDING_ERROR = b"\x01\x11"
_ROLE_CONFLICT = b"\x00\x09\x00\x04\x00\x00\x04\x57"  # ERROR-CODE 487 without a reason phrase (RFC 8445, 7.3.1.1)
_INTEGRITY_SIZE = 24
_FINGERPRINT_SIZE = 8
_FINGERPRINT_XOR = 0x5354554E

_USERNAME = 0x0006
_MESSAGE_INTEGRITY = 0x0008
_USE_CANDIDATE = 0x0025
_FINGERPRINT = 0x8028
_ICE_CONTROLLED = 0x8029
_NOMINATION = 0xC001  # draft-thatcher-ice-renomination: the highest number wins, Chromium sends it

_ATTRIBUTE = struct.Struct("!HH")

_Address = tuple[str, int] | tuple[str, int, int, int] | tuple[str, int, str]


@dataclass(slots=True)
class BindingRequest:
    """A well-formed Binding request with a username and a MESSAGE-INTEGRITY that is still to be verified."""

    data: bytes
    transaction: bytes
    ufrag: bytes
    """The part of USERNAME before the colon: ours."""
    integrity: int
    """Where the MESSAGE-INTEGRITY attribute starts. Nothing behind it is read but FINGERPRINT."""
    use_candidate: bool = False
    controlled: bool = False
    nomination: int = -1


def parse(data: bytes) -> BindingRequest | None:
    """Read a datagram whose first byte is 0 to 3.

    None for a STUN message that is no Binding request: an ICE-lite agent asks nothing, so expects no response.
    StunError for anything that is not well formed, lacks a username or lacks MESSAGE-INTEGRITY.
    """
    size = len(data)
    if size < _HEADER or data[4:8] != COOKIE or size != _HEADER + ((data[2] << 8) | data[3]) or size % 4:
        raise StunError("not a STUN message")
    if (data[0] << 8) | data[1] != _BINDING_REQUEST:
        return None
    position = _HEADER
    ufrag: bytes | None = None
    request = BindingRequest(data, data[8:20], b"", 0)
    while position < size:
        kind, length = _ATTRIBUTE.unpack_from(data, position)
        start = position + 4
        if start + length > size:
            raise StunError("a STUN attribute is longer than its message")
        if kind == _MESSAGE_INTEGRITY:
            if length != _INTEGRITY_SIZE - 4:
                raise StunError("MESSAGE-INTEGRITY is not 20 bytes long")
            request.integrity = position
            break
        if kind == _USERNAME and ufrag is None:
            ufrag = data[start : start + length].partition(b":")[0]
        elif kind == _USE_CANDIDATE:
            request.use_candidate = True
        elif kind == _ICE_CONTROLLED:
            request.controlled = True
        elif kind == _NOMINATION and length == 4:
            request.nomination = int.from_bytes(data[start : start + 4], "big")
        position = start + ((length + 3) & ~3)
    if not ufrag or not request.integrity:
        raise StunError("a Binding request without credentials")
    _check_end(data, request.integrity + _INTEGRITY_SIZE)
    request.ufrag = ufrag
    return request


def _check_end(data: bytes, position: int) -> None:
    """Behind MESSAGE-INTEGRITY there is a right FINGERPRINT or nothing."""
    if position == len(data):
        return
    if position + _FINGERPRINT_SIZE != len(data):
        raise StunError("something but FINGERPRINT follows MESSAGE-INTEGRITY")
    kind, length = _ATTRIBUTE.unpack_from(data, position)
    value = int.from_bytes(data[position + 4 :], "big")
    if kind != _FINGERPRINT or length != 4 or value != crc32(data[:position]) ^ _FINGERPRINT_XOR:
        raise StunError("a wrong FINGERPRINT")


def is_authentic(request: BindingRequest, password: bytes) -> bool:
    """Whether the request was made by someone who knows `password` (RFC 8489, section 14.5)."""
    data, end = request.data, request.integrity
    covered = data[:2] + (end + _INTEGRITY_SIZE - _HEADER).to_bytes(2, "big") + data[4:end]
    expected = hmac.digest(password, covered, "sha1")
    return hmac.compare_digest(expected, data[end + 4 : end + _INTEGRITY_SIZE])


def success(transaction: bytes, password: bytes, address: _Address) -> bytes:
    """The answer to an authentic request that came from `address`, as recvfrom gave it."""
    return _answer(_BINDING_SUCCESS, transaction, password, _xor_mapped_address(address, transaction))


def role_conflict(transaction: bytes, password: bytes) -> bytes:
    """The answer to a peer that believes to be controlled: an ICE-lite agent never controls (RFC 8445, 6.1.1)."""
    return _answer(_BINDING_ERROR, transaction, password, _ROLE_CONFLICT)


def _answer(kind: bytes, transaction: bytes, password: bytes, attributes: bytes) -> bytes:
    rest = COOKIE + transaction + attributes
    size = len(attributes) + _INTEGRITY_SIZE
    digest = hmac.digest(password, kind + size.to_bytes(2, "big") + rest, "sha1")
    message = b"".join((kind, (size + _FINGERPRINT_SIZE).to_bytes(2, "big"), rest, b"\x00\x08\x00\x14", digest))
    return message + b"\x80\x28\x00\x04" + (crc32(message) ^ _FINGERPRINT_XOR).to_bytes(4, "big")


def _xor_mapped_address(address: _Address, transaction: bytes) -> bytes:
    """RFC 8489, section 14.2."""
    port = (address[1] ^ 0x2112).to_bytes(2, "big")
    host = address[0]
    if ":" not in host:
        mapped = int.from_bytes(socket.inet_aton(host), "big") ^ int.from_bytes(COOKIE, "big")
        return b"\x00\x20\x00\x08\x00\x01" + port + mapped.to_bytes(4, "big")
    mapped = int.from_bytes(socket.inet_pton(socket.AF_INET6, host.partition("%")[0]), "big")
    mapped ^= int.from_bytes(COOKIE + transaction, "big")
    return b"\x00\x20\x00\x14\x00\x02" + port + mapped.to_bytes(16, "big")
