"""ICE over TCP, passive side: for viewers whose network eats UDP (RFC 6544), framed as RFC 4571 says."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from workers.transport.path import Address, Buffer, Path

if TYPE_CHECKING:
    from workers.transport.mux import Mux


class TcpPath:
    """A path over a TCP connection that the viewer opened."""

    __slots__ = ("_flow", "address", "socket")
    is_tcp = True

    def __init__(self, flow: TcpFlow) -> None:
        self._flow = flow
        self.socket = flow.socket
        self.address = flow.address

    def send(self, data: Buffer) -> bool:
        return self._flow.send(data)

    def is_same(self, other: Path | None) -> bool:
        return other is not None and self.address == other.address and self.socket is other.socket


class TcpFlow(asyncio.Protocol):
    """One connection that somebody opened to us, and who it is is seen when a check on it is authentic."""

    socket: socket.socket
    address: Address

    def __init__(self, mux: Mux) -> None:
        self._mux = mux
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self.deadline = 0.0
        """When it is hung up, unless a check was authentic by then."""
        self.authenticated = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.socket = transport.get_extra_info("socket")
        host, port = transport.get_extra_info("peername")[:2]
        self.address = (host, port, "tcp")
        self.path = TcpPath(self)
        self.deadline = asyncio.get_running_loop().time() + self._mux.settings.tcp_idle
        self._mux.flow_opened(self)

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        position, size = 0, len(received)
        while position + 2 <= size:
            length = (received[position] << 8) | received[position + 1]
            if length > self._mux.settings.datagram_size:
                self._mux.statistics.malformed += 1
                self.abort()
                return
            if position + 2 + length > size:
                break
            self._mux.datagram(bytes(received[position + 2 : position + 2 + length]), self.path)
            position += 2 + length
        del received[:position]

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._mux.flow_closed(self)

    def send(self, data: Buffer) -> bool:
        """Frame and send one datagram. False when the connection is gone or too far behind."""
        transport = self._transport
        if (
            transport is None
            or transport.is_closing()
            or transport.get_write_buffer_size() > self._mux.settings.tcp_write_buffer
        ):
            self._mux.statistics.sends_dropped += 1
            return False
        transport.write(b"".join((len(data).to_bytes(2, "big"), data)))
        return True

    def close(self) -> None:
        """Hang up when everything that waits has been written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Hang up now."""
        if self._transport is not None:
            self._transport.abort()
