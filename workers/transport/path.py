"""Where a viewer is: a socket of ours and an address of theirs."""

from __future__ import annotations

import socket
from typing import Protocol

from workers.transport.statistics import Statistics

Buffer = bytes | bytearray | memoryview
Address = tuple[str, int] | tuple[str, int, int, int] | tuple[str, int, str]
"""As recvfrom gives it; of a TCP connection it is (host, port, "tcp"), so that no UDP address equals it."""


class Path(Protocol):
    """A way to a viewer."""

    is_tcp: bool
    socket: socket.socket
    """The local end. Over TCP write through `send` only, which frames."""
    address: Address

    def send(self, data: Buffer) -> bool:
        """Send one datagram. False when it was dropped, which is counted; never raises."""

    def is_same(self, other: Path | None) -> bool:
        """Whether both lead from the same socket to the same address."""


class UdpPath:
    """A path over UDP."""

    __slots__ = ("_statistics", "address", "socket")
    is_tcp = False

    def __init__(self, local: socket.socket, address: Address, statistics: Statistics) -> None:
        self.socket = local
        self.address = address
        self._statistics = statistics

    def send(self, data: Buffer) -> bool:
        try:
            self.socket.sendto(data, self.address)
        except OSError:
            # A full buffer, an ICMP error of some earlier datagram, a route that is gone: all are losses to a viewer
            # whose NACKs and consent checks deal with losses.
            self._statistics.sends_dropped += 1
            return False
        return True

    def is_same(self, other: Path | None) -> bool:
        return other is not None and self.address == other.address and self.socket is other.socket
