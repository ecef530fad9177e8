"""The DTLS records that may reach the DTLS implementation (RFC 6347, section 4.1).

Records of epoch 0 are not protected: whoever can forge the viewer's address can forge them too. One such alert ends a
session, so none passes. The price is that a viewer which gives up during the handshake is noticed by the time limit.
"""

from __future__ import annotations

_HEADER = 13
_CHANGE_CIPHER_SPEC = 20
_HANDSHAKE = 22
_APPLICATION_DATA = 23
_VERSIONS = (b"\xfe\xff", b"\xfe\xfd")

_FROM_CLIENT = frozenset((1, 11, 15, 16))
"""ClientHello, Certificate, CertificateVerify, ClientKeyExchange: what a client says before it encrypts."""


def permitted(data: bytes, *, established: bool) -> bytes:
    """The records of a datagram that may pass; empty when none may.

    After the handshake (`established`) only protected records pass: forged ones fail their authentication there. A
    viewer that missed our last flight repeats its own, plain records and the protected Finished in one datagram, so
    each record is judged by itself.
    """
    kept: list[bytes] = []
    position, size = 0, len(data)
    while position + _HEADER <= size:
        end = position + _HEADER + ((data[position + 11] << 8) | data[position + 12])
        if end > size or data[position + 1 : position + 3] not in _VERSIONS:
            break
        if _may_pass(data, position, end, established):
            kept.append(data[position:end])
        position = end
    return b"".join(kept)


def _may_pass(data: bytes, position: int, end: int, established: bool) -> bool:
    kind = data[position]
    if data[position + 3] or data[position + 4]:
        return _CHANGE_CIPHER_SPEC <= kind <= _APPLICATION_DATA
    if established or end == position + _HEADER:
        return False
    if kind == _HANDSHAKE:
        return data[position + _HEADER] in _FROM_CLIENT
    return kind == _CHANGE_CIPHER_SPEC
