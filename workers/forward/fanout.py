"""The fan-out: one packetised frame to many viewers, everything per packet behind one call."""

from __future__ import annotations

import errno
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Protocol

from pylibsrtp._binding import ffi

from workers.forward.clock import WallClock
from workers.forward.history import LostPacket
from workers.forward.outlet import Outlet
from workers.forward.packets import CHUNK_SIZE, DESCRIPTOR_SIZE, MARKER, MAX_DATAGRAM, OSN_SIZE, PacketisedFrame
from workers.forward.srtp import protect

UDP_SEGMENT = 103
"""Linux's socket option to cut one send into datagrams of equal size (udp(7), include/uapi/linux/udp.h)."""

MAX_BATCH = 48
"""Datagrams in one send: Linux takes 64, and 65,507 octets."""

_SEGMENTATION_REFUSED = {errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.EOPNOTSUPP}

_INT: int = ffi.sizeof("int")

Ancillary = list[tuple[int, int, bytes]]


class Fanout(Protocol):
    """What sends. An implementation never raises for one viewer's sake: it counts in that viewer's `drops`."""

    def send(self, packets: PacketisedFrame, outlets: Sequence[Outlet]) -> int:
        """Send a frame to every outlet; return the number of packets that left."""

    def resend(self, outlet: Outlet, lost: Sequence[LostPacket]) -> int:
        """Send lost packets again on the outlet's RTX stream (RFC 4588); return the number that left."""


class _Layout:
    """Where packets stand in the buffer, for all outlets whose headers and tags are of these sizes."""

    __slots__ = ("ancillary", "packers", "pointers", "prefix", "sizes", "stride", "tag_size")

    def __init__(self, memory: Any, prefix: int, tag_size: int) -> None:
        self.prefix = prefix
        self.tag_size = tag_size
        self.stride = prefix + CHUNK_SIZE + tag_size
        self.pointers = [memory + number * self.stride for number in range(MAX_BATCH)]
        self.ancillary: Ancillary = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", self.stride))]
        self.sizes = (prefix + CHUNK_SIZE).to_bytes(_INT, sys.byteorder) * MAX_BATCH
        packet = f"I{prefix - 4}s{CHUNK_SIZE}s{tag_size}x"
        self.packers = [struct.Struct("!" + packet * count).pack_into for count in range(MAX_BATCH + 1)]
        """`pack_into` by number of packets; of each its first word, the rest of its header, and its chunk."""


class _Batch:
    """Packets of a frame that leave together, as far as they are the same for all viewers of a layout."""

    __slots__ = ("chunks", "count", "end", "ends_frame", "layout", "octets", "pack", "sizes", "values")

    def __init__(self, chunks: tuple[bytes, ...], ends_frame: bool) -> None:
        self.chunks = chunks
        self.count = count = len(chunks)
        self.ends_frame = ends_frame
        self.octets = (count - 1) * CHUNK_SIZE + len(chunks[-1]) + DESCRIPTOR_SIZE * count
        self.values: list[Any] = [None] * (3 * count)
        """What is packed; the chunks stand there, the rest is each viewer's."""
        self.values[2::3] = chunks
        self.layout: _Layout | None = None

    def fit(self, layout: _Layout) -> None:
        """Make ready for outlets of this layout."""
        self.layout = layout
        self.pack = layout.packers[self.count]
        before = self.count - 1
        last = layout.prefix + len(self.chunks[-1])
        self.sizes = layout.sizes[: _INT * before] + last.to_bytes(_INT, sys.byteorder)
        """The sizes of the packets before protection, as C's int."""
        self.end = before * layout.stride + last + layout.tag_size
        """Where the last packet ends after protection."""


class PythonFanout:
    """The fan-out in Python: packed, protected and sent out of one buffer that all viewers share.

    Loops over packets are left to `struct` and `map`, because that is where the time of a Python sender goes.
    """

    def __init__(self, clock: WallClock, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._memory = ffi.new("char[]", MAX_BATCH * MAX_DATAGRAM)
        self._view = memoryview(ffi.buffer(self._memory))
        self._lengths = ffi.new("int[]", MAX_BATCH)
        self._lengths_view = memoryview(ffi.buffer(self._lengths))
        self._length_pointers = [self._lengths + number for number in range(MAX_BATCH)]
        self._layouts: dict[tuple[int, int], _Layout] = {}

    def send(self, packets: PacketisedFrame, outlets: Sequence[Outlet]) -> int:
        monotonic, offset, layouts = self._monotonic, self._clock.offset, self._layouts
        chunks = packets.chunks
        batches = [
            _Batch(chunks[start : start + MAX_BATCH], start + MAX_BATCH >= len(chunks))
            for start in range(0, len(chunks), MAX_BATCH)
        ]
        now = monotonic()
        sent = 0
        for outlet in outlets:
            head, rest = outlet.begin(packets, now, monotonic() + offset)
            layout = layouts.get(outlet.shape) or self._lay_out(outlet.shape)
            for batch in batches:
                if batch.layout is not layout:
                    batch.fit(layout)
                sent += self._send_batch(outlet, batch, layout, head, rest)
                head = rest
        return sent

    def _send_batch(self, outlet: Outlet, batch: _Batch, layout: _Layout, head: bytes, rest: bytes) -> int:
        """Send one batch; `head` stands between sequence number and chunk in its first packet, `rest` in the others."""
        count, values, sizes = batch.count, batch.values, batch.sizes
        sequence = outlet.sequence
        outlet.sequence = sequence + count
        first = outlet.header_word << 16 | sequence & 0xFFFF
        if (sequence & 0xFFFF) + count > 0x10000:
            values[0::3] = [first & 0xFFFF0000 | number & 0xFFFF for number in range(sequence, sequence + count)]
        else:
            values[0::3] = range(first, first + count)
        if batch.ends_frame:
            values[-3] |= MARKER << 16
        values[1::3] = (rest,) * count
        values[1] = head
        batch.pack(self._view, 0, *values)
        self._lengths_view[: len(sizes)] = sizes
        if any(map(protect, repeat(outlet.srtp.context, count), layout.pointers, self._length_pointers)):
            outlet.drops += count
            return 0
        path = outlet.path
        if count > 1 and outlet.segmentation and not path.is_tcp:
            try:
                path.socket.sendmsg((self._view[: batch.end],), layout.ancillary, 0, path.address)
                sent = count
            except OSError as error:
                if error.errno in _SEGMENTATION_REFUSED:
                    outlet.segmentation = False
                    sent = self._transmit_singly(outlet, layout.stride, batch.end)
                else:
                    outlet.drops += count
                    sent = 0
        else:
            sent = self._transmit_singly(outlet, layout.stride, batch.end)
        outlet.packets += sent
        outlet.octets += batch.octets if sent == count else batch.octets * sent // count
        return sent

    def resend(self, outlet: Outlet, lost: Sequence[LostPacket]) -> int:
        srtp, view, lengths = outlet.srtp, self._view, self._lengths
        source = outlet.parameters.rtx_ssrc.to_bytes(4, "big")
        sent = 0
        for number, timestamp, marker, descriptor, chunk in lost:
            word = (outlet.rtx_word | MARKER if marker else outlet.rtx_word) << 16 | outlet.rtx_sequence & 0xFFFF
            outlet.rtx_sequence += 1
            extensions = outlet.extensions.at(self._clock.wall(self._monotonic()))
            outlet.pack_rtx(view, 0, word, timestamp, source, extensions, number, descriptor, chunk)
            lengths[0] = size = outlet.rtx_prefix + len(chunk)
            if protect(srtp.context, self._memory, lengths):
                outlet.drops += 1
            elif self._transmit_singly(outlet, size + srtp.tag_size, size + srtp.tag_size):
                sent += 1
                outlet.retransmissions += 1
                outlet.rtx_octets += OSN_SIZE + DESCRIPTOR_SIZE + len(chunk)
        return sent

    def _lay_out(self, shape: tuple[int, int]) -> _Layout:
        layout = self._layouts[shape] = _Layout(self._memory, *shape)
        return layout

    def _transmit_singly(self, outlet: Outlet, stride: int, end: int) -> int:
        path, view = outlet.path, self._view
        sent = 0
        for start in range(0, end, stride):
            packet = view[start : min(start + stride, end)]
            if path.is_tcp:
                left = path.send(bytes(packet))
            else:
                try:
                    path.socket.sendto(packet, path.address)
                    left = True
                except OSError:
                    left = False
            if left:
                sent += 1
            else:
                outlet.drops += 1
        return sent
