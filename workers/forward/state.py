"""The sending state of a viewer, in memory that Python and the kernel share."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from pathlib import Path as File
from typing import Any

from pylibsrtp._binding import ffi as srtp_ffi

from workers.forward.packets import ExtensionBlock

ffi: Any
lib: Any
try:
    from workers.forward._kernel import ffi, lib
except ImportError:
    from cffi import FFI

    ffi, lib = FFI(), None
    for part in ("cipher", "feedback", "estimate", "kernel", "consent", "receive"):
        ffi.cdef((File(__file__).parent / f"{part}.h").read_text())

RECORD = struct.Struct("@QQdII6s2x")
"""bc_record: first, serial, at, timestamp, size, descriptor."""

assert ffi.sizeof("bc_record") == RECORD.size

NOBODYS = -1
"""The socket of a viewer that is not reached by datagrams."""


def new_state(frames: int) -> tuple[Any, Any]:
    """A bc_outlet that remembers so many frames, and its ring of bc_record; both are to be kept alive together."""
    records = ffi.new("bc_record[]", frames)
    return ffi.new("bc_outlet *", {"records": records, "capacity": frames}), records


def begin_stream(
    state: Any, ssrc: int, payload_type: int, extensions: ExtensionBlock, randbelow: Callable[[int], int]
) -> None:
    """Fill in what a bc_outlet and a bc_sound have in common: how the stream's packets begin."""
    state.ssrc, state.payload_type = ssrc, payload_type
    block = extensions.at(0.0)
    state.extensions[0 : len(block)] = block
    state.extensions_size = extensions.size
    state.time_at, state.transport_at = extensions.time_at, extensions.transport_at
    # The lower half, because a number that wraps before the first packet arrives breaks SRTP at the receiver.
    state.sequence = randbelow(32_768)


def address_of(pointer: Any) -> Any:
    """The memory that a pointer of pylibsrtp's points to, as a pointer of the kernel's."""
    return ffi.cast("void *", int(srtp_ffi.cast("uintptr_t", pointer)))


def socket_address(address: Any) -> bytes:
    """`address`, as recvfrom gives it, as the kernel's sockaddr_in or sockaddr_in6.

    Raises OSError or ValueError for a host that is no address.
    """
    host, port = address[:2]
    number = struct.pack("!H", port)
    if len(address) == 2:
        return struct.pack("=H2s4s8x", socket.AF_INET, number, socket.inet_pton(socket.AF_INET, host))
    _, _, flow, scope = address
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return struct.pack("=H2s4s16sI", socket.AF_INET6, number, flow.to_bytes(4, "big"), packed, scope)


def address_tuple(memory: Any) -> tuple[str, int] | tuple[str, int, int, int]:
    """The opposite: a sockaddr_in or sockaddr_in6 at this pointer, as recvfrom gives it."""
    (family,) = struct.unpack("=H", ffi.buffer(memory, 2))
    if family == socket.AF_INET:
        port, host = struct.unpack("!2xH4s8x", ffi.buffer(memory, 16))
        return socket.inet_ntop(socket.AF_INET, host), port
    port, flow, host = struct.unpack("!2xHI16s", ffi.buffer(memory, 24))
    (scope,) = struct.unpack("=24xI", ffi.buffer(memory, 28))
    return socket.inet_ntop(socket.AF_INET6, host), port, flow, scope
