"""Who a datagram belongs to: STUN by its ufrag, everything else by the address that an authentic check came from.

This is the guard. What a stranger sends is counted and dropped here, before any parser but the STUN one has seen it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from broadcaster.errors import StunError
from workers.transport import stun
from workers.transport.aiortc_compat import Certificate
from workers.transport.dtls import SrtpKeys
from workers.transport.path import Address, Path
from workers.transport.peer import PeerTransport
from workers.transport.receive import default_receiver
from workers.transport.statistics import Statistics
from workers.transport.tcp import TcpFlow

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Times in seconds, sizes in bytes."""

    consent_timeout: float = 15.0
    """Silence after which a viewer is gone. Firefox checks every 4.3 to 5.3 s, and a few checks may be lost."""
    connect_timeout: float = 20.0
    """How long a viewer may take from the answer to the end of the handshake."""
    tick: float = 1.0
    datagram_size: int = 2048
    """Larger ones are dropped. A ClientHello datagram has up to 1408 bytes, media less than an Ethernet frame."""
    drain: int = 64
    """Datagrams that are taken from a socket at once."""
    pause: float = 0.02
    """Between two looks at the sockets while media flows and somebody has just asked for something: a wake-up for each
    report costs more than the report. So long may a NACK wait, which libwebrtc sends as often. While any viewer
    connects there is no pause."""
    asking: float = 1.0
    """For so long after somebody's NACK or PLI, or news of a path that got worse, more of them are expected."""
    idle_pause: float = 0.04
    """Between two looks while media flows and nobody asks for anything: frames at 25 a second and more come first."""
    glance: float = 0.005
    """A frame that was sent is an occasion to look at the sockets, unless the last look is younger than this: to be
    awake anyway saves a wake-up."""
    calm_pause: float = 0.4
    """The same while no media flows, when checks and reports are all that comes: less than the 500 ms after which a
    check is sent again (RFC 8489 section 6.2.1)."""
    receive_buffer: int = 4 << 20
    send_buffer: int = 4 << 20
    dtls_rate: int = 100
    """DTLS datagrams of one peer that are taken in a second. A handshake needs four, and libwebrtc, which hears
    nothing, repeats two of them after 50 ms and then after twice as long each time."""
    addresses_per_peer: int = 8
    remembered_checks: int = 64
    """Transaction ids per peer, by which a replayed check is recognised."""
    tcp_idle: float = 10.0
    """A TCP connection without an authentic check is hung up after so long."""
    tcp_connections: int = 1024
    tcp_strangers: int = 64
    """TCP connections without an authentic check; one more hangs up the oldest of them."""
    tcp_write_buffer: int = 512 << 10
    """What a slow TCP viewer may have waiting; datagrams beyond that are dropped."""


class Mux:
    """The tables of one port: peers, their ufrags, their addresses, their TCP connections."""

    def __init__(self, certificate: Certificate, settings: TransportSettings) -> None:
        self.certificate = certificate
        self.settings = settings
        self.statistics = Statistics()
        self.peers: set[PeerTransport] = set()
        self.by_ufrag: dict[bytes, PeerTransport] = {}
        self.by_address: dict[Address, PeerTransport] = {}
        self.flows: dict[Address, TcpFlow] = {}
        self.connecting = 0
        """Peers between the answer and the end of the handshake."""
        self.urgent_at = -math.inf
        """When something was read that was urgent, or that nobody could tell from it."""
        self.receiver = default_receiver(self)

    def accept(
        self,
        remote_fingerprint: tuple[str, str],
        on_connected: Callable[[SrtpKeys], None],
        on_rtcp: Callable[[bytes], None],
        on_closed: Callable[[str], None],
    ) -> PeerTransport:
        peer = PeerTransport(self, remote_fingerprint, on_connected, on_rtcp, on_closed)
        self.peers.add(peer)
        self.connecting += 1
        return peer

    def datagram(self, data: bytes, path: Path) -> None:
        """One datagram from `path.address`. Never raises: one viewer must not hurt another."""
        statistics = self.statistics
        statistics.datagrams += 1
        if not data or len(data) > self.settings.datagram_size:
            statistics.malformed += 1
            return
        first = data[0]
        if first < 4:
            self._check(data, path)
            return
        peer = self.by_address.get(path.address)
        if peer is None:
            statistics.strangers += 1
            return
        try:
            if 128 <= first <= 191:
                peer.media(data, path)
            elif 20 <= first <= 63:
                peer.records(data)
            else:
                statistics.malformed += 1
        except Exception:
            _logger.exception("a viewer's connection failed")
            peer.close("failed")

    def heard(self, peer: PeerTransport) -> None:
        """Something urgent waits in the peer's inbox. Never raises, as above."""
        self.urgent_at = time.monotonic()
        try:
            peer.on_heard()
        except Exception:
            _logger.exception("a viewer's connection failed")
            peer.close("failed")

    def _check(self, data: bytes, path: Path) -> None:
        """Answer a check that is authentic, and tell its peer. Whatever else begins like STUN stays unanswered."""
        request = self._read(data)
        peer = self.by_ufrag.get(request.ufrag) if request is not None else None
        if request is None or peer is None:
            return
        password = peer.password_of(request.ufrag)
        if not stun.is_authentic(request, password):
            self.statistics.bad_auth += 1
        elif request.controlled:
            path.send(stun.role_conflict(request.transaction, password))
        elif self._may_speak(peer, request, path):
            self.statistics.checks += 1
            path.send(stun.success(request.transaction, password, path.address))
            peer.checked(request, path)

    def _read(self, data: bytes) -> stun.BindingRequest | None:
        try:
            request = stun.parse(data)
        except StunError:
            self.statistics.malformed += 1
            return None
        if request is not None and request.ufrag not in self.by_ufrag:
            self.statistics.strangers += 1
        return request

    def _may_speak(self, peer: PeerTransport, request: stun.BindingRequest, path: Path) -> bool:
        """Whether an authentic check may bind the address that it came from to its peer."""
        owner = self.by_address.get(path.address)
        if owner is peer:
            return True
        if owner is not None and owner.is_at(path):
            # Whoever has a session of his own could end another's by forging its address. A NAT that gives an
            # address to somebody else does so after the owner's consent has run out.
            self.statistics.takeovers += 1
            return False
        if peer.has_seen(request.transaction):
            # Recorded on the way and sent again from elsewhere: it would divert the media.
            self.statistics.replayed += 1
            return False
        return True

    def tick(self, now: float) -> None:
        """Close what has been silent for too long; called about once a second."""
        for peer in [peer for peer in self.peers if now > peer.deadline]:
            peer.expire(now)
        for flow in [flow for flow in self.flows.values() if not flow.authenticated and now > flow.deadline]:
            self.statistics.tcp_refused += 1
            flow.abort()

    def flow_opened(self, flow: TcpFlow) -> None:
        if len(self.flows) >= self.settings.tcp_connections:
            self.statistics.tcp_refused += 1
            flow.abort()
            return
        strangers = [one for one in self.flows.values() if not one.authenticated]
        if len(strangers) >= self.settings.tcp_strangers:
            self.statistics.tcp_refused += 1
            strangers[0].abort()
        self.flows[flow.address] = flow

    def flow_closed(self, flow: TcpFlow) -> None:
        if self.flows.get(flow.address) is flow:
            del self.flows[flow.address]
            peer = self.by_address.get(flow.address)
            if peer is not None:
                peer.path_lost(flow.path)

    def own(self, address: Address, peer: PeerTransport) -> None:
        """From now on `address` speaks for `peer`."""
        previous = self.by_address.get(address)
        if previous is not None:
            previous.addresses.pop(address, None)
        self.by_address[address] = peer
        self.receiver.learn(address, peer)
        flow = self.flows.get(address)
        if flow is not None:
            flow.authenticated = True

    def disown(self, address: Address) -> None:
        """Forget an address; a TCP connection from there is hung up."""
        self.by_address.pop(address, None)
        self.receiver.forget(address)
        flow = self.flows.get(address)
        if flow is not None:
            flow.close()

    def forget(self, peer: PeerTransport) -> None:
        """A peer is closed."""
        self.peers.discard(peer)
        for address in list(peer.addresses):
            self.disown(address)
        self.receiver.closed(peer)
