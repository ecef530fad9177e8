"""The "host:port" addresses under which a frame link is announced."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

from broadcaster.errors import LinkError


def join_address(host: str, port: int) -> str:
    """ "host:port", with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """The host and the port of "host:port"; LinkError when it is neither that nor "[host]:port"."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) <= 65535:
        raise LinkError(f"{address!r} is not the address of a frame link: HOST:PORT is")
    return host.removeprefix("[").removesuffix("]"), int(port)


def announced_addresses(name: tuple[str, int]) -> list[str]:
    """Where others reach a socket bound to `name`: for a wildcard the default route's source address and loopback."""
    host, port = name[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    if not address.is_unspecified:
        return [join_address(host, port)]
    loopback = "127.0.0.1" if address.version == 4 else "::1"
    return [join_address(found, port) for found in (*_route_source(address.version), loopback)]


def _route_source(version: int) -> list[str]:
    """The source address of the default route; connecting a UDP socket sends nothing. Targets of RFC 5737 and 3849."""
    family, far = (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((far, 9))
        return [probe.getsockname()[0]]
    return []
