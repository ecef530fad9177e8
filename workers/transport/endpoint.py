"""One port of a worker, and all its sockets: UDP and TCP on every address that viewers are told."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import selectors
import socket
from collections.abc import Callable, Sequence
from typing import cast

from broadcaster.errors import ConfigurationError
from workers.transport import addresses
from workers.transport.addresses import Candidate
from workers.transport.aiortc_compat import Certificate
from workers.transport.dtls import SrtpKeys
from workers.transport.mux import Mux, TransportSettings
from workers.transport.peer import PeerTransport
from workers.transport.statistics import Statistics
from workers.transport.tcp import TcpFlow

_logger = logging.getLogger(__name__)

_NOT_HERE = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENODEV))
_BATCHES = 4
"""Of datagrams that a socket may give before others have their turn: a millisecond's work. A turn of the loop costs as
much as half a batch."""
_TURNS = 3
"""Turns of the loop between an accepted connection and its flow."""
_CHOICES = 20
"""How often the system may choose a port that another address has in use."""


class Endpoint:
    """The viewers' door of a worker.

    Every local address has sockets of its own, so that an answer leaves from the address that was asked: a wildcard
    socket on a machine with several addresses picks another one, and browsers then give up.
    """

    def __init__(self, announce: Sequence[str], settings: TransportSettings) -> None:
        """Use `Endpoint.open`."""
        self._announce = addresses.parse_addresses(announce)
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._certificate = Certificate.generateCertificate()
        self._mux = Mux(self._certificate, settings)
        self._udp: dict[str, socket.socket] = {}
        self._waiting = selectors.DefaultSelector()
        """All UDP sockets, so that the event loop watches one descriptor, and one call tells which of them to read."""
        self._tcp: dict[str, asyncio.Server] = {}
        self._binding = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._pausing: asyncio.TimerHandle | None = None
        self._looked = 0.0
        self.calm = False
        """Whether no media flows, so that what comes in may wait a little longer. Whoever knows says so."""
        self.port = 0
        self.fingerprint = self._certificate.fingerprint
        """sha-256 of the one certificate, "AB:CD:…"."""

    @classmethod
    async def open(
        cls, ports: range, *, announce: Sequence[str] = (), settings: TransportSettings | None = None
    ) -> Endpoint:
        """Take the first port of `ports` that is free on every address; range(0, 1) lets the system choose.

        `announce`: IP addresses that answers carry instead of this machine's own, for example a NAT's.
        Raises ConfigurationError when no port is free or an address makes no sense.
        """
        endpoint = cls(announce, settings or TransportSettings())
        for port in [0] * _CHOICES if list(ports) == [0] else ports:
            if await endpoint._take(port):
                endpoint._tick()
                return endpoint
        span = f"port {ports[0]}" if len(ports) == 1 else f"one of the ports {ports[0]}-{ports[-1]}"
        raise ConfigurationError(f"{span} must be free for UDP and TCP, and none is: choose others with --udp-ports")

    @property
    def statistics(self) -> Statistics:
        return self._mux.statistics

    @property
    def peers(self) -> int:
        """How many peers are open."""
        return len(self._mux.peers)

    async def candidates(self) -> list[Candidate]:
        """All candidates of an answer, read afresh; sockets for addresses that are new are opened now."""
        if self._announce:
            return addresses.candidates(self._announce, self.port)
        wanted = addresses.local_addresses()
        async with self._binding:
            for address in wanted:
                if address not in self._udp:
                    try:
                        await self._bind(address, self.port)
                    except OSError as error:
                        _logger.warning("nobody can reach this worker at %s: %s", address, error)
        return addresses.candidates([one for one in wanted if one in self._udp], self.port)

    def accept(
        self,
        *,
        remote_fingerprint: tuple[str, str],
        on_connected: Callable[[SrtpKeys], None],
        on_rtcp: Callable[[bytes], None],
        on_closed: Callable[[str], None],
    ) -> PeerTransport:
        """Expect a viewer whose offer has `a=fingerprint:` (algorithm, value).

        `on_rtcp` gets SRTCP packets as they came, still encrypted. `on_closed(reason)` comes exactly once: closed (by
        us, or the viewer said goodbye), timeout (no consent for 15 s), failed (no connection within 20 s, a failed
        handshake, or an exception in a callback). Raises OfferError for a fingerprint that cannot be verified.
        """
        peer = self._mux.accept(remote_fingerprint, on_connected, on_rtcp, on_closed)
        self.stir()
        return peer

    def stir(self) -> None:
        """End the calm: media flows, or a viewer is about to connect. Looks at the sockets, if nobody has just done."""
        calm, self.calm = self.calm, False
        if self._pausing is not None and (calm or self._loop.time() - self._looked >= self._settings.glance):
            self._look()

    async def close(self) -> None:
        """Say goodbye to every peer and free the port."""
        if self._timer is not None:
            self._timer.cancel()
        for server in self._tcp.values():
            server.close()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        for peer in list(self._mux.peers):
            peer.close()
        for hang_up in (TcpFlow.close, TcpFlow.abort):
            for flow in list(self._mux.flows.values()):
                hang_up(flow)
            await asyncio.sleep(0)  # a connection ends at the next turn of the loop
        self._release()
        self._waiting.close()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._settings.tick, self._tick)
        self._mux.tick(self._loop.time())

    async def _take(self, port: int) -> bool:
        """Bind the port on every local address, or on none."""
        self.port = port
        for address in dict.fromkeys([*self._announce, *addresses.local_addresses()]):
            try:
                await self._bind(address, self.port)
            except OSError as error:
                self._release()
                if error.errno == errno.EACCES:
                    raise ConfigurationError(
                        f"this user may not open port {self.port}: choose one above 1023 with --udp-ports"
                    ) from None
                return False
        return bool(self._udp)

    def _release(self) -> None:
        if self._pausing is not None:
            self._pausing.cancel()
        self._loop.remove_reader(self._waiting)
        for local in self._udp.values():
            self._waiting.unregister(local)
            local.close()
        self._udp.clear()
        for server in self._tcp.values():
            server.close()
        self._tcp.clear()

    async def _bind(self, address: str, port: int) -> None:
        """Open both sockets on one address; none for one that is not this machine's (a NAT's, say)."""
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        with contextlib.ExitStack() as undo:
            try:
                datagrams = undo.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                datagrams.bind((address, port))
            except OSError as error:
                if error.errno in _NOT_HERE:
                    return
                raise
            self._prepare(datagrams)
            port = datagrams.getsockname()[1]
            connections = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            connections.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connections.bind((address, port))
            self._tcp[address] = await self._loop.create_server(lambda: TcpFlow(self._mux), sock=connections)
            undo.pop_all()
        self._udp[address] = datagrams
        self.port = port
        self._waiting.register(datagrams, selectors.EVENT_READ)
        if self._pausing is None:
            self._loop.add_reader(self._waiting, self._readable)

    def _prepare(self, datagrams: socket.socket) -> None:
        datagrams.setblocking(False)
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._settings.receive_buffer)
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._settings.send_buffer)

    def _drain(self) -> bool:
        """Take what waits at the sockets, within limits; whether there may be more."""
        self._looked = self._loop.time()
        drain, more = self._mux.receiver.drain, False
        for datagrams in self._udp.values() if len(self._udp) == 1 else self._ready():
            more = all(drain(datagrams) for _ in range(_BATCHES)) or more
        return more

    def _ready(self) -> list[socket.socket]:
        return [cast(socket.socket, key.fileobj) for key, _ in self._waiting.select(0)]

    def _readable(self) -> None:
        more = self._drain()
        pause = 0.0 if more else self._pause()
        if pause:
            self._loop.remove_reader(self._waiting)
            self._pausing = self._loop.call_later(pause, self._look)

    def _look(self) -> None:
        """The pause is over. Another follows while there is something to read each time."""
        assert self._pausing is not None
        self._pausing.cancel()
        before = self._mux.statistics.datagrams
        more = self._drain()
        pause = 0.0 if self._mux.statistics.datagrams == before else self._pause()
        if more or pause:
            self._pausing = self._loop.call_later(0.0 if more else pause, self._look)
            return
        self._pausing = None
        self._loop.add_reader(self._waiting, self._readable)

    def _pause(self) -> float:
        if self._mux.connecting:
            return 0.0
        settings = self._settings
        if self.calm:
            return settings.calm_pause
        return settings.pause if self._loop.time() - self._mux.urgent_at < settings.asking else settings.idle_pause
