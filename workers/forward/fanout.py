"""The fan-out: one packetised frame to many viewers, everything per packet behind one call."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable, Sequence
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

Ancillary = list[tuple[int, int, bytes]]


class Fanout(Protocol):
    """What sends. An implementation never raises for one viewer's sake: it counts in that viewer's `drops`."""

    def send(self, packets: PacketisedFrame, outlets: Sequence[Outlet]) -> int:
        """Send a frame to every outlet; return the number of packets that left."""

    def resend(self, outlet: Outlet, lost: Sequence[LostPacket]) -> int:
        """Send lost packets again on the outlet's RTX stream (RFC 4588); return the number that left."""


class PythonFanout:
    """The fan-out in Python: packed, protected and sent out of one buffer that all viewers share."""

    def __init__(self, clock: WallClock, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._memory = ffi.new("char[]", MAX_BATCH * MAX_DATAGRAM + CHUNK_SIZE)
        self._view = memoryview(ffi.buffer(self._memory))
        self._length = ffi.new("int *")
        self._batches: dict[int, tuple[list[Any], Ancillary]] = {}

    def send(self, packets: PacketisedFrame, outlets: Sequence[Outlet]) -> int:
        monotonic, offset = self._monotonic, self._clock.offset
        now = monotonic()
        chunks = packets.chunks
        sent = 0
        for outlet in outlets:
            first, rest = outlet.begin(packets, now)
            prefix = outlet.timestamp.to_bytes(4, "big") + outlet.source + outlet.extensions.at(monotonic() + offset)
            if len(chunks) <= MAX_BATCH:
                sent += self._send_batch(outlet, chunks, True, prefix + first, prefix + rest)
                continue
            for start in range(0, len(chunks), MAX_BATCH):
                batch = chunks[start : start + MAX_BATCH]
                last = start + MAX_BATCH >= len(chunks)
                sent += self._send_batch(outlet, batch, last, prefix + (rest if start else first), prefix + rest)
        return sent

    def _send_batch(self, outlet: Outlet, chunks: Sequence[bytes], ends_frame: bool, head: bytes, rest: bytes) -> int:
        """Send chunks that follow each other; `head` and `rest` are what stands between number and chunk."""
        context, tag_size = outlet.srtp.context, outlet.srtp.tag_size
        view, length, pack = self._view, self._length, outlet.pack_media
        prefix, word, sequence = outlet.media_prefix, outlet.header_word, outlet.sequence
        count = len(chunks)
        stride = prefix + CHUNK_SIZE + tag_size
        pointers, ancillary = self._batch(stride)
        outlet.sequence = sequence + count
        final = sequence + count - 1 if ends_frame else -1
        start = octets = 0
        for chunk, pointer in zip(chunks, pointers, strict=False):
            if sequence == final:
                word |= MARKER
            pack(view, start, word, sequence & 0xFFFF, head, chunk)
            octets += len(chunk)
            length[0] = prefix + len(chunk)
            if protect(context, pointer, length):
                outlet.drops += count
                return 0
            head = rest
            sequence += 1
            start += stride
        end = start - stride + prefix + len(chunks[-1]) + tag_size
        if count > 1 and outlet.segmentation and not outlet.path.is_tcp:
            sent = self._transmit_segmented(outlet, count, stride, end, ancillary)
        else:
            sent = self._transmit_singly(outlet, stride, end)
        outlet.packets += sent
        outlet.octets += (octets + DESCRIPTOR_SIZE * count) * sent // count
        return sent

    def resend(self, outlet: Outlet, lost: Sequence[LostPacket]) -> int:
        srtp, view, length = outlet.srtp, self._view, self._length
        source = outlet.parameters.rtx_ssrc.to_bytes(4, "big")
        sent = 0
        for number, timestamp, marker, descriptor, chunk in lost:
            prefix = (
                timestamp.to_bytes(4, "big") + source + outlet.extensions.at(self._monotonic() + self._clock.offset)
            )
            word = outlet.rtx_word | (MARKER if marker else 0)
            outlet.pack_rtx(view, 0, word, outlet.rtx_sequence & 0xFFFF, prefix, number, descriptor, chunk)
            outlet.rtx_sequence += 1
            length[0] = size = outlet.rtx_prefix + len(chunk)
            if protect(srtp.context, self._memory, length):
                outlet.drops += 1
            elif self._transmit_singly(outlet, size + srtp.tag_size, size + srtp.tag_size):
                sent += 1
                outlet.retransmissions += 1
                outlet.rtx_octets += OSN_SIZE + DESCRIPTOR_SIZE + len(chunk)
        return sent

    def _batch(self, stride: int) -> tuple[list[Any], Ancillary]:
        """Pointers to the packets of a batch that stand `stride` octets apart, and the option that cuts them apart."""
        batch = self._batches.get(stride)
        if batch is None:
            pointers = [self._memory + number * stride for number in range(MAX_BATCH)]
            batch = pointers, [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", stride))]
            self._batches[stride] = batch
        return batch

    def _transmit_segmented(self, outlet: Outlet, count: int, stride: int, end: int, ancillary: Ancillary) -> int:
        path = outlet.path
        try:
            path.socket.sendmsg((self._view[:end],), ancillary, 0, path.address)
        except OSError as error:
            if error.errno in _SEGMENTATION_REFUSED:
                outlet.segmentation = False
                return self._transmit_singly(outlet, stride, end)
            outlet.drops += count
            return 0
        return count

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
