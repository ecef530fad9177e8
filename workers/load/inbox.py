"""Inbox: all viewers' sockets, emptied in batches; what a packet costs here must be less than it costs the server.

Linux fills a whole batch by one call (recvmmsg), leaves packets that were sent as one together (UDP_GRO), and notes
when each arrived (SO_TIMESTAMPNS), so that reading late does not make a measurement late. Elsewhere packets are read
one by one and arrive when they are read.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from cffi import FFI
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

BATCH = 32
"""Messages that one call takes from a socket at most."""

RECEIVE_BUFFER = 4 << 20
MANY = sys.platform == "linux" and sys.maxsize > 2**32
"""Whether a batch is one call: on Linux with 64 bits, whose layouts are known here."""

# Numbers of Linux (include/uapi/asm-generic/socket.h, include/uapi/linux/udp.h, sock_diag.h).
_SO_TIMESTAMPNS, _SO_MEMINFO, _UDP_GRO = 35, 55, 104
_MEMINFO_DROPS = 8

_SLOT_WHOLE, _SLOT_JOINED = 2048, 65_536
_MEMORY = 64 << 20
_HEADER = 12
_CONTROL = 64
_MESSAGE = 64
"""Octets of a struct mmsghdr."""

_RTP = np.dtype([("flags", "u1"), ("kind", "u1"), ("sequence", ">u2"), ("timestamp", ">u4"), ("ssrc", ">u4")])

_ffi = FFI()
_ffi.cdef("""
    struct iovec { void *base; size_t size; };
    struct msghdr { void *name; unsigned name_size; struct iovec *vectors; size_t vector_count;
                    void *control; size_t control_size; int flags; };
    struct mmsghdr { struct msghdr header; unsigned size; };
    int recvmmsg(int, struct mmsghdr *, unsigned, int, void *);
""")


@dataclass(frozen=True, slots=True)
class Batch:
    """Datagrams of any number of viewers; those of one viewer stand together, in the order of their arrival.

    The fields of an RTP header are read from all of them, whatever they are. `arrival` in seconds of the monotonic
    clock. The memory is used again for the next batch.
    """

    viewer: Integers
    size: Integers
    arrival: Floats
    flags: Integers
    kind: Integers
    sequence: Integers
    timestamp: Integers
    ssrc: Integers
    _offset: Integers
    _memory: memoryview

    def halves(self, rows: Integers, at: Integers) -> Integers:
        """What stands in these rows at these places, as numbers of 16 bits; all of it is within the datagrams."""
        octets = np.frombuffer(self._memory, np.uint8)
        where = self._offset[rows] + at
        numbers: Integers = octets[where].astype(np.int64) << 8 | octets[where + 1]
        return numbers

    def data(self, row: int) -> bytes:
        """The whole datagram."""
        start = int(self._offset[row])
        return bytes(self._memory[start : start + int(self.size[row])])


class Inbox:
    """`joined`: take packets that were sent as one in one piece, which costs both sides less."""

    def __init__(self, *, joined: bool = True, many: bool = MANY) -> None:
        self._joined = joined and many
        self._many = many
        self._slot = _SLOT_JOINED if self._joined else _SLOT_WHOLE
        self._room = max(2 * BATCH, min(1024, _MEMORY // self._slot))
        self._memory = _ffi.new("char[]", self._room * self._slot + _HEADER)
        self._view = memoryview(_ffi.buffer(self._memory))
        self._octets = np.frombuffer(self._view, np.uint8)
        self._viewer = np.zeros(self._room, np.int64)
        self._sockets: dict[int, socket.socket] = {}
        control = _ffi.new("char[]", self._room * _CONTROL)
        vectors = _ffi.new("struct iovec[]", self._room)
        messages = _ffi.new("struct mmsghdr[]", self._room)
        for index in range(self._room):
            vectors[index].base = self._memory + index * self._slot
            vectors[index].size = self._slot
            header = messages[index].header
            header.vectors, header.vector_count = vectors + index, 1
            header.control, header.control_size = control + index * _CONTROL, _CONTROL
        self._keep = control, vectors
        self._messages = [messages + index for index in range(self._room)]
        raw = memoryview(_ffi.buffer(messages))
        self._control_size: Any = np.ndarray(self._room, np.uint64, raw, 40, (_MESSAGE,))
        self._size: Any = np.ndarray(self._room, np.uint32, raw, 56, (_MESSAGE,))
        raw = memoryview(_ffi.buffer(control))
        # A cmsghdr is 16 octets; the time (two of 8 octets) comes first, then the size of the pieces (4 octets).
        self._times: Any = np.ndarray((self._room, 2), np.int64, raw, 16, (_CONTROL, 8))
        self._pieces: Any = np.ndarray(self._room, np.int32, raw, 48, (_CONTROL,))
        libc: Any = _ffi.dlopen(None)
        self._recvmmsg = libc.recvmmsg if many else None

    def prepare(self, one: socket.socket) -> None:
        """Set a new socket's options, before anything arrives at it."""
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if self._many:
            one.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def add(self, viewer: int, one: socket.socket) -> None:
        """Read this prepared socket from now on."""
        if self._joined:
            one.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
        self._sockets[viewer] = one

    def remove(self, viewer: int) -> None:
        self._sockets.pop(viewer, None)

    def batches(self) -> Iterator[Batch]:
        """Everything that waits in the sockets."""
        count = 0
        for viewer, one in list(self._sockets.items()):
            while True:
                if count + BATCH > self._room:
                    yield self._batch(count)
                    count = 0
                taken = self._take_many(one, count) if self._many else self._take_singly(one, count)
                self._viewer[count : count + taken] = viewer
                count += taken
                if taken < BATCH:
                    break
        if count:
            yield self._batch(count)

    def _take_many(self, one: socket.socket, start: int) -> int:
        assert self._recvmmsg is not None
        # Nothing waits, or an ICMP error does: either way there is nothing to take.
        return max(0, int(self._recvmmsg(one.fileno(), self._messages[start], BATCH, socket.MSG_DONTWAIT, _ffi.NULL)))

    def _take_singly(self, one: socket.socket, start: int) -> int:
        for index in range(start, start + BATCH):
            try:
                size = one.recv_into(self._view[index * self._slot : (index + 1) * self._slot])
            except OSError:
                return index - start
            self._size[index] = size
        return BATCH

    def _batch(self, count: int) -> Batch:
        sizes = self._size[:count].astype(np.int64)
        pieces = sizes
        arrival = np.full(count, time.monotonic())
        if self._many:
            controls, times = self._control_size[:count], self._times[:count]
            offset = time.time() - time.monotonic()
            arrival = np.where(controls >= 32, times[:, 0] + times[:, 1] * 1e-9 - offset, arrival)
            pieces = np.where(controls > 48, self._pieces[:count], sizes)
            controls[:] = _CONTROL
        counts = -(-sizes // np.maximum(1, pieces))
        message = np.repeat(np.arange(count), counts)
        start = (np.arange(len(message)) - np.repeat(np.cumsum(counts) - counts, counts)) * pieces[message]
        offset_of = message * self._slot + start
        heads = self._octets[offset_of[:, None] + np.arange(_HEADER)].view(_RTP)[:, 0]
        return Batch(
            viewer=self._viewer[message],
            size=np.minimum(pieces[message], sizes[message] - start),
            arrival=arrival[message],
            **{name: heads[name].astype(np.int64) for name in _RTP.names or ()},
            _offset=offset_of,
            _memory=self._view,
        )


def overflowed(one: socket.socket) -> int:
    """Datagrams that this machine threw away because nobody read the socket in time."""
    if not MANY:
        return 0
    info = np.frombuffer(one.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64), np.uint32)
    return int(info[_MEMINFO_DROPS]) if len(info) > _MEMINFO_DROPS else 0
