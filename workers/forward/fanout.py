"""The fan-out: one packetised frame to many viewers, everything per packet behind one call."""

from __future__ import annotations

import errno
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby, repeat
from typing import Any, Protocol

from pylibsrtp._binding import ffi

from broadcaster.clock import WallClock
from broadcaster.stream import EncodedFrame, EncodedSound
from workers.forward.history import HISTORY_LIMITS, LostPacket
from workers.forward.outlet import Outlet
from workers.forward.packets import (
    CHUNK_SIZE,
    DESCRIPTOR_SIZE,
    MARKER,
    MAX_DATAGRAM,
    MAX_SOUND,
    OSN_SIZE,
    packetise,
    packets_of,
)
from workers.forward.srtp import SrtpSession, protect
from workers.forward.state import ffi as state_ffi
from workers.forward.state import lib

UDP_SEGMENT = 103
"""Linux's socket option to cut one send into datagrams of equal size (udp(7), include/uapi/linux/udp.h)."""

MAX_BATCH = 48
"""Datagrams in one send: Linux takes 64, and 65,507 octets."""

_SEGMENTATION_REFUSED = {errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.EOPNOTSUPP}

_INT: int = ffi.sizeof("int")

Ancillary = list[tuple[int, int, bytes]]


class Audience(tuple[Outlet, ...]):
    """Outlets that get frames together, kept for as long as they do: the kernel's list of them is made but once."""

    @classmethod
    def of(cls, outlets: Iterable[Outlet]) -> Audience:
        """An audience ordered by socket, because what goes through one socket leaves in one call."""
        return cls(sorted(outlets, key=_socket))

    @cached_property
    def states(self) -> Any:
        """The outlets' states as an array of pointers."""
        return state_ffi.new("bc_outlet *[]", [outlet.state for outlet in self])

    @cached_property
    def _parts(self) -> dict[int, list[Audience]]:
        return {}

    def parts(self, size: int) -> list[Audience]:
        """The audience in parts of at most `size` outlets: by a power of two, so that few divisions are kept."""
        if len(self) <= size:
            return [self]
        size = 1 << size.bit_length() - 1
        if size not in self._parts:
            self._parts[size] = [Audience(self[start : start + size]) for start in range(0, len(self), size)]
        return self._parts[size]


def _socket(outlet: Outlet) -> int:
    return int(outlet.state.socket)


class Fanout(Protocol):
    """What sends. An implementation never raises for one viewer's sake: it counts in that viewer's `drops`."""

    def send(self, frame: EncodedFrame, outlets: Audience) -> int:
        """Send a frame, which is not empty, to every outlet; return the number of packets that left."""

    def shelve(self, frame: EncodedFrame) -> int:
        """Keep a frame that will be sent in parts; return its serial number."""

    def send_part(self, frame: EncodedFrame, serial: int, outlets: Audience, first: int, end: int) -> int:
        """Send packets `first` to `end` - 1 of a shelved frame; return the number that left.

        An outlet gets all parts of a frame, in order, before it gets another frame. A part that does not continue what
        it was sent last counts in its `drops`.
        """

    def send_sound(self, sound: EncodedSound, outlets: Audience) -> int:
        """Send a packet of sound, of 1 to MAX_SOUND octets, to outlets that have sound; return the number that left.

        It may come between the parts of a frame."""

    def resend(self, outlet: Outlet, lost: Sequence[LostPacket]) -> int:
        """Send lost packets again on the outlet's RTX stream (RFC 4588); return the number that left."""

    def probe(self, outlet: Outlet, octets: int) -> int:
        """Send about so many octets of what was sent last again, though nobody asked: to learn what the path carries.
        Returns the number of packets that left, none where RTX was not negotiated or nothing is remembered.
        """


class Shelf:
    """The frames sent in the last `age` seconds, by serial number; all viewers' retransmissions come from here."""

    def __init__(self, age: float) -> None:
        self._age = age
        self._frames: deque[tuple[float, EncodedFrame]] = deque()
        self._first = 0

    def put(self, frame: EncodedFrame, now: float) -> int:
        """Keep `frame`; return its serial number."""
        frames = self._frames
        while frames and now - frames[0][0] > self._age:
            frames.popleft()
            self._first += 1
        frames.append((now, frame))
        return self._first + len(frames) - 1

    def get(self, serial: int) -> EncodedFrame | None:
        place = serial - self._first
        return self._frames[place][1] if 0 <= place < len(self._frames) else None


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
        self.octets = [len(chunk) + DESCRIPTOR_SIZE for chunk in chunks]
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

    Loops over packets are left to `struct` and `map`, because that is where the time of a Python sender goes. `age` is
    how many seconds a frame can be sent again.
    """

    def __init__(
        self, clock: WallClock, monotonic: Callable[[], float] = time.monotonic, *, age: float = HISTORY_LIMITS.age
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self.shelf = Shelf(age)
        self._memory = ffi.new("char[]", MAX_BATCH * MAX_DATAGRAM)
        self._view = memoryview(ffi.buffer(self._memory))
        self._lengths = ffi.new("int[]", MAX_BATCH)
        self._lengths_view = memoryview(ffi.buffer(self._lengths))
        self._length_pointers = [self._lengths + number for number in range(MAX_BATCH)]
        self._layouts: dict[tuple[int, int], _Layout] = {}

    def send(self, frame: EncodedFrame, outlets: Audience) -> int:
        return self.send_part(frame, self.shelve(frame), outlets, 0, packets_of(frame))

    def shelve(self, frame: EncodedFrame) -> int:
        return self.shelf.put(frame, self._monotonic())

    def send_sound(self, sound: EncodedSound, outlets: Iterable[Outlet]) -> int:
        monotonic, offset = self._monotonic, self._clock.offset
        if not 0 < len(sound.payload) <= MAX_SOUND:
            return 0
        sent = 0
        for outlet in outlets:
            now = monotonic()
            if self._send_sound(outlet, sound, now, now + offset):
                sent += 1
            else:
                outlet.state.drops += 1
        return sent

    def _send_sound(self, outlet: Outlet, sound: EncodedSound, now: float, wall: float) -> bool:
        """Whether the packet left."""
        own = outlet.sound
        if own is None:
            return False
        packet = own.packet(sound, wall)
        size, state, transport = len(packet), own.state, outlet.state.transport_sequence
        self._view[:size] = packet
        if state.transport_at:
            outlet.number_transport(self._view, 0, state.transport_at)
        self._lengths[0] = size
        if protect(outlet.srtp.context, self._memory, self._lengths):
            return False
        end = size + outlet.srtp.tag_size
        if not self._transmit(outlet, self._view[:end]):
            return False
        state.packets += 1
        state.octets += len(sound.payload)
        if state.transport_at:
            outlet.left(now, transport, 1, end)
        return True

    def send_part(self, frame: EncodedFrame, serial: int, outlets: Iterable[Outlet], first: int, end: int) -> int:
        monotonic, offset, layouts = self._monotonic, self._clock.offset, self._layouts
        now = monotonic()
        chunks = packetise(frame, first, end)
        ends_frame = end == packets_of(frame)
        batches = [
            _Batch(chunks[start : start + MAX_BATCH], ends_frame and start + MAX_BATCH >= len(chunks))
            for start in range(0, len(chunks), MAX_BATCH)
        ]
        sent = 0
        for outlet in outlets:
            pictures = outlet.pictures
            if first == 0:
                head, rest = pictures.begin(frame, serial, now, monotonic() + offset)
            elif (again := pictures.resume(frame, serial, first, monotonic() + offset)) is not None:
                head = rest = again
            else:
                outlet.state.drops += end - first
                continue
            layout = layouts.get(pictures.shape) or self._lay_out(pictures.shape)
            for batch in batches:
                if batch.layout is not layout:
                    batch.fit(layout)
                sent += self._send_batch(outlet, batch, layout, head, rest, now)
                head = rest
        return sent

    def _send_batch(self, outlet: Outlet, batch: _Batch, layout: _Layout, head: bytes, rest: bytes, now: float) -> int:
        """Send one batch; `head` stands between sequence number and chunk in its first packet, `rest` in the others."""
        count, values, sizes, state = batch.count, batch.values, batch.sizes, outlet.state
        sequence = state.sequence
        state.sequence = sequence + count
        first = outlet.pictures.header_word << 16 | sequence & 0xFFFF
        if (sequence & 0xFFFF) + count > 0x10000:
            values[0::3] = [first & 0xFFFF0000 | number & 0xFFFF for number in range(sequence, sequence + count)]
        else:
            values[0::3] = range(first, first + count)
        if batch.ends_frame:
            values[-3] |= MARKER << 16
        values[1::3] = (rest,) * count
        values[1] = head
        batch.pack(self._view, 0, *values)
        transport = state.transport_sequence
        if state.transport_at:
            for start in range(0, batch.end, layout.stride):
                outlet.number_transport(self._view, start)
        self._lengths_view[: len(sizes)] = sizes
        if any(self._protect(outlet.srtp, layout, sequence, count)):
            state.drops += count
            return 0
        path = outlet.path
        sent = None
        if count > 1 and state.segmentation and not path.is_tcp:
            try:
                path.socket.sendmsg((self._view[: batch.end],), layout.ancillary, 0, path.address)
                sent = batch.octets
                outlet.left(now, transport, count, batch.end)
            except OSError as error:
                if error.errno in _SEGMENTATION_REFUSED:
                    state.segmentation = False
                else:
                    sent = []
        if sent is None:
            left = self._transmit_singly(outlet, layout.stride, batch.end, now, transport)
            sent = [octets for octets, one in zip(batch.octets, left, strict=True) if one]
        state.packets += len(sent)
        state.octets += sum(sent)
        if len(sent) < count:
            state.drops += count - len(sent)
        return len(sent)

    def _protect(self, srtp: SrtpSession, layout: _Layout, sequence: int, count: int) -> Iterator[int]:
        """Protect what was packed, from number `sequence` on; of each packet an error, or 0."""
        if srtp.cipher is None:
            return map(protect, repeat(srtp.context, count), layout.pointers, self._length_pointers)
        numbers, headers = range(sequence, sequence + count), repeat(layout.prefix - DESCRIPTOR_SIZE)
        ciphers, nothing = repeat(srtp.cipher), repeat(ffi.NULL)
        return map(lib.bc_seal, ciphers, numbers, headers, layout.pointers, nothing, self._length_pointers)

    def resend(self, outlet: Outlet, lost: Sequence[LostPacket]) -> int:
        sent = self._resend(outlet, lost)
        outlet.retransmissions += len(sent)
        outlet.rtx_octets += sum(sent)
        return len(sent)

    def probe(self, outlet: Outlet, octets: int) -> int:
        if outlet.parameters.rtx_payload_type is None:
            return 0
        recent = outlet.history.recent(octets, now=self._monotonic())
        sent = self._resend(outlet, recent)
        outlet.probe_packets += len(sent)
        outlet.probe_octets += sum(sent)
        return len(sent)

    def _resend(self, outlet: Outlet, lost: Sequence[LostPacket]) -> list[int]:
        """Send packets again; the octets of RTP payload of each that left.

        The estimator is told of them together: it remembers so many departures, and with one for each of a probe's
        packets it would have forgotten them when a distant viewer's feedback comes.
        """
        srtp, pictures, view, lengths = outlet.srtp, outlet.pictures, self._view, self._lengths
        source = pictures.rtx_source
        sent: list[int] = []
        sizes: list[int] = []
        began, first = self._monotonic(), outlet.state.transport_sequence
        for number, timestamp, marker, descriptor, serial, place in lost:
            frame = self.shelf.get(serial)
            if frame is None:
                continue
            chunk = frame.payload[place * CHUNK_SIZE : (place + 1) * CHUNK_SIZE]
            word = (pictures.rtx_word | MARKER if marker else pictures.rtx_word) << 16 | pictures.rtx_sequence & 0xFFFF
            pictures.rtx_sequence += 1
            now = self._monotonic()
            extensions = pictures.extensions.at(self._clock.wall(now))
            pictures.pack_rtx(view, 0, word, timestamp, source, extensions, number, descriptor, chunk)
            if outlet.state.transport_at:
                outlet.number_transport(view, 0)
            lengths[0] = size = pictures.rtx_prefix + len(chunk)
            end = size + srtp.tag_size
            if not protect(srtp.context, self._memory, lengths) and self._transmit(outlet, view[:end]):
                sent.append(OSN_SIZE + DESCRIPTOR_SIZE + len(chunk))
                sizes.append(end)
            else:
                outlet.state.drops += 1
                sizes.append(0)
        for left, places in groupby(range(len(sizes)), key=lambda place: sizes[place] > 0):
            if left:
                together = list(places)
                octets = sum(sizes[place] for place in together)
                outlet.left(began, first + together[0] & 0xFFFF, len(together), octets)
        return sent

    def _lay_out(self, shape: tuple[int, int]) -> _Layout:
        layout = self._layouts[shape] = _Layout(self._memory, *shape)
        return layout

    def _transmit_singly(self, outlet: Outlet, stride: int, end: int, now: float, transport: int) -> list[bool]:
        """Of each packet, whether it left; `transport` is the transport-wide number of the first."""
        view = self._view
        left = []
        for place, start in enumerate(range(0, end, stride)):
            packet = view[start : min(start + stride, end)]
            went = self._transmit(outlet, packet)
            left.append(went)
            if went:
                outlet.left(now, transport + place & 0xFFFF, 1, len(packet))
        return left

    def _transmit(self, outlet: Outlet, packet: memoryview) -> bool:
        """Whether the datagram left."""
        path = outlet.path
        try:
            return path.send(bytes(packet)) if path.is_tcp else path.socket.sendto(packet, path.address) > 0
        except OSError:
            return False
