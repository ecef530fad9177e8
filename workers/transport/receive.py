"""From a socket to the mux: datagram by datagram, or by the kernel in batches, with RTCP reduced on the way."""

from __future__ import annotations

import math
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from pylibsrtp._binding import ffi as srtp_ffi
from pylibsrtp._binding import lib as srtp_lib

from broadcaster.errors import ConfigurationError
from workers.forward.inbox import Inbox
from workers.forward.native import kernel_does, obstacle
from workers.forward.state import address_of, address_tuple, ffi, lib, socket_address
from workers.transport.path import Address, Path, UdpPath

if TYPE_CHECKING:
    from workers.transport.mux import Mux
    from workers.transport.peer import PeerTransport

CHOICE = "BEAMCAST_RECEIVER"
"""The environment variable that forces a receiver: "native" or "python"."""

_BATCH = 64


class Receiver(Protocol):
    """Reads the UDP sockets of a mux, and is told who is where."""

    def drain(self, datagrams: socket.socket) -> bool:
        """Take what waits, within limits; whether there may be more."""

    def listen(self, peer: PeerTransport, open_inbox: Callable[[], Inbox]) -> None:
        """Put the peer's RTCP into an inbox, if this receiver does such things."""

    def learn(self, address: Address, peer: PeerTransport) -> None:
        """From now on `address` speaks for `peer`."""

    def forget(self, address: Address) -> None: ...

    def answer(self, peer: PeerTransport, checks: PlainChecks | None) -> None:
        """From now on answer these checks of a peer that listens, if this receiver does such things; None: no more."""

    def take_checked_at(self, peer: PeerTransport) -> float:
        """When the last check was answered here, monotonic seconds; -inf when none was since the last call."""

    def has_seen(self, peer: PeerTransport, transaction: bytes) -> bool:
        """Whether a check with this id was answered here lately."""

    def closed(self, peer: PeerTransport) -> None:
        """The peer listens no more; its addresses are forgotten already."""


@dataclass(frozen=True, slots=True)
class PlainChecks:
    """Checks that change nothing and only keep consent: of these credentials, from where the viewer is already, with no
    higher nomination.
    """

    ufrag: bytes
    password: bytes
    path: Path
    nomination: int


class PythonReceiver:
    """Gives every datagram to the mux."""

    def __init__(self, mux: Mux) -> None:
        self._mux = mux

    def drain(self, datagrams: socket.socket) -> bool:
        mux = self._mux
        size = mux.settings.datagram_size + 1  # a datagram that fills this was too large
        for _ in range(mux.settings.drain):
            try:
                data, address = datagrams.recvfrom(size)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                continue  # an ICMP error about some viewer; the others' datagrams wait behind it
            mux.urgent_at = time.monotonic()
            mux.datagram(data, UdpPath(datagrams, address, mux.statistics))
        return True

    def listen(self, peer: PeerTransport, open_inbox: Callable[[], Inbox]) -> None: ...

    def learn(self, address: Address, peer: PeerTransport) -> None: ...

    def forget(self, address: Address) -> None: ...

    def answer(self, peer: PeerTransport, checks: PlainChecks | None) -> None: ...

    def take_checked_at(self, peer: PeerTransport) -> float:
        return -math.inf

    def has_seen(self, peer: PeerTransport, transaction: bytes) -> bool:
        return False

    def closed(self, peer: PeerTransport) -> None: ...


class NativeReceiver:
    """The same by the kernel (receive.c): strangers, RTCP and plain checks never become Python objects; other STUN and
    DTLS do.

    Raises ConfigurationError where there is no kernel.
    """

    def __init__(self, mux: Mux) -> None:
        if (reason := obstacle()) is not None:
            raise ConfigurationError(f"The native receiver cannot be used: {reason}; set {CHOICE}=python.")
        self._mux = mux
        self._count = min(_BATCH, mux.settings.drain)
        unprotect = address_of(srtp_ffi.addressof(srtp_lib, "srtp_unprotect_rtcp"))
        receiver = lib.bc_receiver_open(unprotect, mux.settings.datagram_size, secrets.token_bytes(16))
        if receiver == ffi.NULL:
            raise MemoryError("no memory for the receiving kernel")
        self._receiver = ffi.gc(receiver, lib.bc_receiver_close)
        self._batch: Any = ffi.new("bc_batch *")
        self._listening: dict[int, tuple[PeerTransport, Inbox]] = {}
        self._numbers: dict[PeerTransport, int] = {}
        self._next = count()

    def drain(self, datagrams: socket.socket) -> bool:
        mux, batch, statistics = self._mux, self._batch, self._mux.statistics
        taken: int = lib.bc_drain(self._receiver, datagrams.fileno(), self._count, time.monotonic(), batch)
        if not taken:
            return False
        # Everything is copied before anybody acts on it: who does may close viewers, and their memory with them.
        urgent = list(batch.urgent[0 : batch.urgent_count]) if batch.urgent_count else ()
        left = [
            (bytes(ffi.buffer(one.data, one.size)), address_tuple(one.address))
            for one in batch.datagrams[0 : batch.left]
        ]
        statistics.datagrams += taken - len(left)
        statistics.malformed += batch.dropped_malformed
        statistics.strangers += batch.dropped_strangers
        statistics.media_dropped += batch.dropped_media
        statistics.checks += batch.checks
        statistics.sends_dropped += batch.unsent
        for number in urgent:
            if number in self._listening:
                mux.heard(self._listening[number][0])
        for data, address in left:
            mux.datagram(data, UdpPath(datagrams, address, statistics))
        return taken == self._count

    def listen(self, peer: PeerTransport, open_inbox: Callable[[], Inbox]) -> None:
        inbox = open_inbox()
        inbox.state.consent.checked_at = -math.inf
        number = self._numbers[peer] = inbox.state.number = next(self._next) & 0xFFFFFFFF
        self._listening[number] = peer, inbox
        for address in peer.addresses:
            self.learn(address, peer)

    def learn(self, address: Address, peer: PeerTransport) -> None:
        if len(address) == 3:
            return  # TCP comes another way
        number = self._numbers.get(peer)
        inbox = ffi.NULL if number is None else self._listening[number][1].state
        where = socket_address(address)
        if not lib.bc_learn(self._receiver, where, len(where), inbox):
            raise MemoryError("no memory for another address")

    def forget(self, address: Address) -> None:
        if len(address) != 3:
            where = socket_address(address)
            lib.bc_forget(self._receiver, where, len(where))

    def answer(self, peer: PeerTransport, checks: PlainChecks | None) -> None:
        consent = self._consent(peer)
        if consent is None:
            return
        consent.ufrag_size = 0
        if checks is not None:
            where = socket_address(checks.path.address)
            consent.socket, consent.nomination = checks.path.socket.fileno(), checks.nomination
            consent.address_size = len(where)
            consent.address[0 : len(where)] = where
            lib.bc_consent_open(consent, checks.ufrag, len(checks.ufrag), checks.password, len(checks.password))

    def take_checked_at(self, peer: PeerTransport) -> float:
        consent = self._consent(peer)
        if consent is None:
            return -math.inf
        at: float = consent.checked_at
        consent.checked_at = -math.inf
        return at

    def has_seen(self, peer: PeerTransport, transaction: bytes) -> bool:
        consent = self._consent(peer)
        if consent is None:
            return False
        seen, size = bytes(ffi.buffer(consent.seen)), len(transaction)
        known = min(consent.checks, lib.BC_CHECKS)
        return any(seen[start : start + size] == transaction for start in range(0, known * size, size))

    def _consent(self, peer: PeerTransport) -> Any:
        number = self._numbers.get(peer)
        return None if number is None else self._listening[number][1].consent

    def closed(self, peer: PeerTransport) -> None:
        number = self._numbers.pop(peer, None)
        if number is not None:
            del self._listening[number]


def default_receiver(mux: Mux) -> Receiver:
    """The receiver that the environment asks for, or else the fastest there is.

    Raises ConfigurationError when BEAMCAST_RECEIVER asks for what is not there.
    """
    return NativeReceiver(mux) if kernel_does("datagrams are received", CHOICE) else PythonReceiver(mux)
