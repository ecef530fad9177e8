"""Inbox: all viewers' sockets, emptied in batches; what a packet costs here must be less than it costs the server.

The kernel of this folder (inbox.c) reads for all viewers in one call. Where it could not be built, the same is done
here, packet by packet. On Linux packets that were sent as one are read as one (UDP_GRO), and the system notes when each
arrived (SO_TIMESTAMPNS), so that reading late does not make a measurement late; elsewhere they arrive when they are
read.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ffi: Any
lib: Any
try:
    from workers.load._kernel import ffi, lib
except ImportError:
    ffi = lib = None

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]

RECEIVE_BUFFER = 4 << 20
EVER = (1 << 64) - 1
"""How many packets to keep, to keep all."""

_LINUX = sys.platform == "linux" and sys.maxsize > 2**32
"""With 64 bits, whose layouts are known here."""

# Numbers of Linux (include/uapi/asm-generic/socket.h, include/uapi/linux/udp.h, sock_diag.h).
_SO_TIMESTAMPNS, _SO_MEMINFO, _UDP_GRO = 35, 55, 104
_MEMINFO_DROPS = 8
_TIME, _SIZE = struct.Struct("@qq"), struct.Struct("@i")
_CONTROL = 128

_WHOLE, _JOINED = 2048, 65_536
_ROOM, _SPACE = 16_384, 4 << 20
"""Rows and octets of a batch; what does not fit is in the next."""

_GRACE = 0.02
"""Seconds of a round after which what arrives at a viewer waits for the next round, so that each has an end."""

_HEADER = struct.Struct("!BBHII")
_FIRST_RTCP, _LAST_RTCP = 192, 223  # RFC 5761, section 4
_ONE_BYTE_PROFILE = 0xBEDE

_WIDE = ("viewer", "size", "sequence", "timestamp", "ssrc", "number", "place")


@dataclass(frozen=True, slots=True)
class Batch:
    """Datagrams of any number of viewers; those of one viewer stand together, in the order of their arrival.

    `arrival` in seconds of the monotonic clock. What is no RTP has 0 in the fields of its header; `number` is the
    transport-wide sequence number, -1 where there is none. The memory is used again for the next batch.
    """

    viewer: Integers
    size: Integers
    arrival: Floats
    rtp: Truths
    marker: Truths
    sequence: Integers
    timestamp: Integers
    ssrc: Integers
    number: Integers
    place: Integers
    """Not negative where the datagram was kept."""
    _memory: memoryview

    def data(self, row: int) -> bytes:
        """The whole datagram, of those that were kept."""
        start = int(self.place[row])
        return bytes(self._memory[start : start + int(self.size[row])])


@dataclass
class _Line:
    """A bc_line (inbox.h), with the socket itself."""

    socket: socket.socket
    transport: int
    media: int
    resent: int
    kept: int


class Inbox:
    """`viewers`: how many there may be. `joined`: take packets that were sent as one in one piece, which costs both
    sides less. Of RTP only those packets are kept that `add()` says; of everything else all are.
    """

    def __init__(self, viewers: int, *, joined: bool = True, native: bool = lib is not None) -> None:
        self._joined = joined and _LINUX
        self._lines: dict[int, _Line] = {}
        self._native = _NativeReader(viewers, self._joined) if native else None
        self._buffer = bytearray(_JOINED if self._joined else _WHOLE)

    def prepare(self, one: socket.socket) -> None:
        """Set a new socket's options, before anything arrives at it."""
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if _LINUX:
            one.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def add(
        self,
        viewer: int,
        one: socket.socket,
        *,
        transport: int | None = None,
        media: int = 0,
        kept: int = 0,
        resent: int | None = None,
    ) -> None:
        """Read this prepared socket from now on. `transport` is the id of the extension with transport-wide numbers,
        1 to 14. Of the SSRC `media` so many packets are `kept`, of `resent` all.
        """
        if self._joined:
            with contextlib.suppress(OSError):  # Linux before 5.0 leaves nothing together
                one.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
        line = self._lines[viewer] = _Line(one, transport or 0, media, resent or 0, kept)
        if self._native is not None:
            self._native.add(viewer, line)

    def remove(self, viewer: int) -> None:
        if self._lines.pop(viewer, None) is not None and self._native is not None:
            self._native.remove(viewer)

    def batches(self) -> Iterator[Batch]:
        """What waits in the sockets. Viewers may be removed meanwhile."""
        return self._batches() if self._native is None else self._native.batches()

    def _batches(self) -> Iterator[Batch]:
        rows, until = _Rows(), time.monotonic() + _GRACE
        for viewer, line in list(self._lines.items()):
            while self._lines.get(viewer) is line and (message := self._take(line.socket)) is not None:
                data, arrival, piece = message
                for start in range(0, len(data), piece):
                    rows.take(viewer, line, data[start : start + piece], arrival)
                if len(rows.memory) >= _SPACE or len(rows.found) >= _ROOM:
                    yield rows.batch()
                    rows = _Rows()
                if arrival > until:
                    break
        if rows.found:
            yield rows.batch()

    def _take(self, one: socket.socket) -> tuple[bytes, float, int] | None:
        """A message, when it came, and the octets of each datagram in it."""
        try:
            size, said, _, _ = one.recvmsg_into([self._buffer], _CONTROL if _LINUX else 0)
        except OSError:
            return None  # nothing waits, or an ICMP error does
        now, piece = time.monotonic(), max(1, size)
        for level, kind, value in said:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, nanoseconds = _TIME.unpack_from(value)
                now = seconds + nanoseconds * 1e-9 - (time.time() - time.monotonic())
            elif (level, kind) == (socket.IPPROTO_UDP, _UDP_GRO):
                piece = max(1, *_SIZE.unpack_from(value))
        return bytes(self._buffer[:size]), now, piece


class _Rows:
    """A batch that is being filled."""

    def __init__(self) -> None:
        self.found: list[tuple[float, ...]] = []
        self.memory = bytearray()

    def take(self, viewer: int, line: _Line, data: bytes, arrival: float) -> None:
        marker, sequence, timestamp, ssrc, number = False, 0, 0, 0, -1
        rtp = is_rtp(data)
        keep = not rtp
        if rtp:
            _, kind, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
            marker, number = kind >= 0x80, transport_number(data, line.transport)
            wanted = line.kept > 0 and ssrc == line.media
            line.kept -= wanted
            keep = wanted or (line.resent > 0 and ssrc == line.resent)
        place = len(self.memory) if keep else -1
        self.memory += data if keep else b""
        self.found.append((viewer, len(data), sequence, timestamp, ssrc, number, place, arrival, rtp, marker))

    def batch(self) -> Batch:
        *wide, arrival, rtp, marker = map(list, zip(*self.found, strict=True))
        return Batch(
            **{name: np.array(column, np.int64) for name, column in zip(_WIDE, wide, strict=True)},
            arrival=np.array(arrival, np.float64),
            rtp=np.array(rtp, np.bool_),
            marker=np.array(marker, np.bool_),
            _memory=memoryview(self.memory),
        )


class _NativeReader:
    """bc_read (inbox.h) and its memory."""

    def __init__(self, viewers: int, joined: bool) -> None:
        reader = lib.bc_reader_open(joined)
        if reader == ffi.NULL:
            raise MemoryError("no memory to read packets")
        self._reader = ffi.gc(reader, lib.bc_reader_close)
        self._lines = ffi.new("bc_line[]", viewers)
        for line in self._lines:
            line.socket = -1
        self._columns: dict[str, Any] = {name: np.zeros(_ROOM, np.int64) for name in _WIDE}
        self._columns |= {
            "arrival": np.zeros(_ROOM),
            "rtp": np.zeros(_ROOM, np.bool_),
            "marker": np.zeros(_ROOM, np.bool_),
        }
        memory = bytearray(_SPACE)
        self._memory = memoryview(memory)
        self._rows = ffi.new("bc_rows *", {"room": _ROOM, "space": _SPACE})
        fields = dict(ffi.typeof("bc_rows").fields)
        self._keep = {
            name: ffi.from_buffer(fields[name].type, column)
            for name, column in (*self._columns.items(), ("memory", memory))
        }
        for name, pointer in self._keep.items():
            setattr(self._rows, name, pointer)

    def add(self, viewer: int, line: _Line) -> None:
        own = self._lines[viewer]
        own.transport, own.media, own.kept, own.resent = line.transport, line.media, line.kept, line.resent
        own.socket = line.socket.fileno()

    def remove(self, viewer: int) -> None:
        self._lines[viewer].socket = -1

    def batches(self) -> Iterator[Batch]:
        count, rows, at = len(self._lines), self._rows, 0
        until = time.monotonic() + _GRACE
        while at < count:
            rows.rows = rows.used = 0
            now = time.monotonic()
            at = lib.bc_read(self._reader, self._lines, count, at, now, until, time.time() - now, rows)
            if rows.rows:
                yield Batch(
                    **{name: column[: rows.rows] for name, column in self._columns.items()}, _memory=self._memory
                )


def is_rtp(data: bytes) -> bool:
    """Whether a datagram is RTP, and not RTCP or of another protocol (RFC 5761, RFC 7983)."""
    return len(data) >= _HEADER.size and data[0] >> 6 == 2 and not _FIRST_RTCP <= data[1] <= _LAST_RTCP


def transport_number(packet: bytes, extension: int) -> int:
    """The transport-wide sequence number in an RTP packet's extension of this id (RFC 8285); -1 when it has none."""
    at = _HEADER.size + 4 * (packet[0] & 15)
    if not extension or not packet[0] & 0x10 or len(packet) < at + 4:
        return -1
    profile, words = struct.unpack_from("!HH", packet, at)
    at += 4
    end = at + 4 * words
    if profile != _ONE_BYTE_PROFILE or len(packet) < end:
        return -1
    while at < end:
        element = packet[at]
        if element == extension << 4 | 1:
            return int.from_bytes(packet[at + 1 : at + 3], "big") if at + 3 <= end else -1
        at += 2 + (element & 15) if element else 1
    return -1


def overflowed(one: socket.socket) -> int:
    """Datagrams that this machine threw away because nobody read the socket in time."""
    if not _LINUX:
        return 0
    info = np.frombuffer(one.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64), np.uint32)
    return int(info[_MEMINFO_DROPS]) if len(info) > _MEMINFO_DROPS else 0
