"""Which addresses a worker can be reached at, and how an answer announces them."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from broadcaster.errors import ConfigurationError

LOOPBACK = ("127.0.0.1", "::1")

# Connecting a UDP socket only asks the routing table. The destinations are reserved for documentation (RFC 5737,
# RFC 3849), so no datagram could reach anybody even by mistake.
_ROUTE_PROBES = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))

_HOST_UDP = 126
"""Type preference of a host candidate (RFC 8445, 5.1.2.2)."""
_HOST_TCP = 90
"""Lower than every UDP candidate: TCP is what is left when a network eats UDP (RFC 6544, 4.2)."""
_PASSIVE = 4
"""Direction preference of a passive host candidate (RFC 6544, 4.2)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host candidate of an answer; `protocol` is "udp" or "tcp" (always passive)."""

    foundation: str
    protocol: str
    priority: int
    address: str
    port: int

    def __str__(self) -> str:
        """The attribute of RFC 8839, section 5.1, without `a=`."""
        text = f"candidate:{self.foundation} 1 {self.protocol} {self.priority} {self.address} {self.port} typ host"
        return text + " tcptype passive" if self.protocol == "tcp" else text


def default_route(family: socket.AddressFamily, destination: str) -> str | None:
    """The source address that the system would use towards `destination`, or None when there is no route."""
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((destination, 9))
        source = ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])
        if not source.is_unspecified and not source.is_loopback and not (source.version == 6 and source.is_link_local):
            return str(source)
    return None


def local_addresses() -> list[str]:
    """The default routes' source addresses, IPv4 first, then loopback; read afresh, because laptops move.

    Loopback alone is not enough: Firefox never plays from it. An IPv6 link-local address is no candidate, because it
    means nothing without the viewer's own interface name.
    """
    routed = [default_route(family, destination) for family, destination in _ROUTE_PROBES]
    return [address for address in routed if address is not None] + list(LOOPBACK)


def parse_addresses(texts: Iterable[str]) -> list[str]:
    """IP addresses in their usual form. Raises ConfigurationError for host names and wildcards."""
    parsed = []
    for text in texts:
        try:
            address = ipaddress.ip_address(text.strip())
        except ValueError:
            raise ConfigurationError(
                f"{text!r} is not an IP address: announce the address that viewers reach, for example 203.0.113.7"
            ) from None
        if address.is_unspecified or address.is_multicast:
            raise ConfigurationError(f"{text!r} cannot be announced: viewers need the address of one machine")
        parsed.append(str(address))
    return list(dict.fromkeys(parsed))


def candidates(addresses: Sequence[str], port: int) -> list[Candidate]:
    """One UDP and one TCP candidate for each address, in that order; earlier addresses are preferred."""
    found = []
    for place, address in enumerate(addresses):
        priority = _priority(_HOST_UDP, 65535 - place)
        found.append(Candidate(f"{place + 1}", "udp", priority, address, port))
    for place, address in enumerate(addresses):
        priority = _priority(_HOST_TCP, (_PASSIVE << 13) | (8191 - place))
        found.append(Candidate(f"{len(addresses) + place + 1}", "tcp", priority, address, port))
    return found


def _priority(type_preference: int, local_preference: int) -> int:
    """RFC 8445, section 5.1.2.1, for component 1."""
    return (type_preference << 24) | (local_preference << 8) | 255


@lru_cache(maxsize=4096)
def line_of(address: str) -> str:
    """The same for all who may share a line: an IPv4 address, or the /64 of an IPv6 address, in which each device of a
    household has addresses of its own (RFC 7421). Who only seems to, as behind one NAT64, has queues of its own.

    Remembered, because it is asked of every viewer each second.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.IPv6Address(int(ip) >> 64 << 64))
