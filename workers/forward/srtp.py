"""SRTP of one viewer: outgoing media in place and without copies, RTCP both ways."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

import pylibsrtp
from pylibsrtp import Policy, Session
from pylibsrtp._binding import ffi, lib

from broadcaster.errors import ConfigurationError
from workers.forward.state import ffi as kernel_ffi
from workers.forward.state import lib as kernel

CHOICE = "BEAMCAST_CIPHER"
"""The environment variable that forces what protects media and reads RTCP: "native" (cipher.c) or "libsrtp"."""

WINDOW = 128
"""Packets of the replay window of outgoing streams: none is ever sent out of order, so small and cheap does."""

TAG_SIZE = {
    Policy.SRTP_PROFILE_AES128_CM_SHA1_80: 10,
    Policy.SRTP_PROFILE_AES128_CM_SHA1_32: 4,
    Policy.SRTP_PROFILE_AEAD_AES_128_GCM: 16,
    Policy.SRTP_PROFILE_AEAD_AES_256_GCM: 16,
}
"""Octets that protection adds to an RTP packet (RFC 3711 section 4.2, RFC 7714 section 13), by libsrtp's profile."""

_MASTER_SIZE = 16 + 12
"""Octets of AES-128-GCM's master key and salt (RFC 7714 section 12)."""

_FAILED = 1
"""srtp_err_status_fail, "unspecified failure"."""

_SIGNATURE = "srtp_err_status_t(*)(struct srtp_ctx_t_ *, void *, int *)"

Protect = Callable[[Any, Any, Any], int]
"""(context, pointer to the packet, pointer to its length) -> 0, or libsrtp's error; protects in place."""


class SrtpKeys(Protocol):
    """What a DTLS handshake yields: libsrtp's number of the profile, and master key with salt for each direction."""

    @property
    def profile(self) -> int: ...

    @property
    def tx_key(self) -> bytes: ...

    @property
    def rx_key(self) -> bytes: ...


def _protect_through_session(session: Session, packet: Any, length: Any) -> int:
    """What `srtp_protect` does, through pylibsrtp's public interface and by way of copies."""
    try:
        protected = session.protect(bytes(ffi.buffer(packet, length[0])))
    except pylibsrtp.Error:
        return _FAILED
    ffi.memmove(packet, protected, len(protected))
    length[0] = len(protected)
    return 0


DIRECT: bool = {
    ffi.typeof(one).cname for one in (lib.srtp_protect, lib.srtp_protect_rtcp, lib.srtp_unprotect_rtcp)
} == {_SIGNATURE}
"""Whether libsrtp's functions have the shape of version 2, which packets are handed to without a detour."""

protect: Protect = lib.srtp_protect if DIRECT else _protect_through_session


def obstacle() -> str | None:
    """Why the kernel's own cipher cannot be used here; None when it can."""
    if kernel is None:
        return "the C kernel was not built"
    if not kernel.bc_cipher_open(kernel_ffi.new("bc_cipher *"), bytes(_MASTER_SIZE)):
        return "this processor has no VAES and VPCLMULQDQ"
    return None


def check_choice() -> bool:
    """Whether the environment lets the kernel's own cipher be used, where there is one.

    Raises ConfigurationError when BEAMCAST_CIPHER asks for what is not there.
    """
    choice = os.environ.get(CHOICE, "")
    if choice not in {"", "native", "libsrtp"}:
        raise ConfigurationError(f"{CHOICE} is {choice!r}; it can be native or libsrtp.")
    if choice == "native" and (reason := obstacle()) is not None:
        raise ConfigurationError(f"The native cipher cannot be used: {reason}; set {CHOICE}=libsrtp.")
    return choice != "libsrtp"


def _open_ciphers(keys: SrtpKeys) -> tuple[Any, Any]:
    if kernel is None or keys.profile != Policy.SRTP_PROFILE_AEAD_AES_128_GCM or not check_choice():
        return None, None
    cipher, control = kernel_ffi.new("bc_cipher *"), kernel_ffi.new("bc_control *")
    able = kernel.bc_cipher_open(cipher, keys.tx_key) and kernel.bc_control_open(control, keys.rx_key)
    return (cipher, control) if able else (None, None)


def _open_incoming(keys: SrtpKeys) -> Session:
    incoming = Policy(key=keys.rx_key, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=keys.profile)
    incoming.window_size = WINDOW
    return Session(incoming)


class SrtpSession:
    """The private sessions of one viewer.

    Media goes through the kernel's `bc_seal(self.cipher, ...)` where there is a cipher, all of it, and else through
    `protect(self.context, ...)`, as resends do always, which have an SSRC of their own: what counts the packets of an
    SSRC is in one place only. One session holds both SSRCs of the viewer and must be used from one thread. A sequence
    number is never protected twice: under GCM that would reuse a nonce.

    RTCP that comes in goes through `bc_unseal(self.control, ...)` where there is one, all of it, and else through
    libsrtp's session `incoming`.
    """

    def __init__(self, keys: SrtpKeys) -> None:
        self.tag_size = TAG_SIZE[keys.profile]
        outgoing = Policy(key=keys.tx_key, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=keys.profile)
        outgoing.window_size = WINDOW
        self._tx = Session(outgoing)
        self.cipher, self.control = _open_ciphers(keys)
        """A bc_cipher and a bc_control (cipher.h), None where libsrtp protects media and reads RTCP."""
        self.context: Any = self._tx._srtp[0] if DIRECT else self._tx
        self._rx = None if self.control is not None else _open_incoming(keys)

    @property
    def incoming(self) -> Any:
        """libsrtp's for what the viewer sends, where there is no `control`."""
        assert self._rx is not None, "the kernel reads this viewer's RTCP"
        return self._rx._srtp[0] if DIRECT else self._rx

    def protect_rtcp(self, packet: bytes) -> bytes:
        """The SRTCP packet to send."""
        return bytes(self._tx.protect_rtcp(packet))

    def unprotect_rtcp(self, datagram: bytes) -> bytes | None:
        """The RTCP packet in `datagram`, or None when it is forged, repeated, too long or damaged."""
        if self._rx is None:
            return self._unseal(datagram)
        try:
            return bytes(self._rx.unprotect_rtcp(datagram))
        except (pylibsrtp.Error, ValueError):
            return None

    def _unseal(self, datagram: bytes) -> bytes | None:
        memory, size = kernel_ffi.from_buffer("uint8_t[]", bytearray(datagram)), kernel_ffi.new("int *", len(datagram))
        return None if kernel.bc_unseal(self.control, memory, size) else bytes(kernel_ffi.buffer(memory, size[0]))
