"""What the network stack alone costs: datagrams of given sizes to many sockets, by sendmmsg and UDP_SEGMENT."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Sequence
from typing import Any

from cffi import FFI

from workers.forward.fanout import UDP_SEGMENT
from workers.forward.state import socket_address
from workers.load.inbox import Inbox

MESSAGES = 64
"""In one sendmmsg, as the kernel has it."""

ARENA = 192 * 1024
"""Octets in one sendmmsg, likewise."""

ffi = FFI()
ffi.cdef("""
    struct iovec { void *base; size_t size; };
    struct msghdr { void *name; unsigned name_size; struct iovec *vectors; size_t count; void *control;
                    size_t control_size; int flags; };
    struct mmsghdr { struct msghdr header; unsigned size; };
    int sendmmsg(int, struct mmsghdr *, unsigned, int);
""")
libc: Any = ffi.dlopen(None)


class Messages:
    """One frame to each of these addresses: datagrams of the same sizes, all as large as the first but the last."""

    def __init__(self, sender: socket.socket, addresses: Sequence[Any], sizes: Sequence[int]) -> None:
        self._socket = sender.fileno()
        self._viewers = len(addresses)
        total = sum(sizes)
        self._step = step = max(1, min(len(addresses), MESSAGES, ARENA // total))
        segments = struct.pack("@QiiH6x", 18, socket.IPPROTO_UDP, UDP_SEGMENT, sizes[0])
        names = [ffi.new("char[]", socket_address(address)) for address in addresses]
        # As many payloads as leave together, so that the caches have the same to carry as a sender's.
        data, control = ffi.new("char[]", total * step), ffi.new("char[]", segments)
        vectors, self._messages = ffi.new("struct iovec[]", step), ffi.new("struct mmsghdr[]", len(addresses))
        for place in range(step):
            vectors[place].base, vectors[place].size = data + place * total, total
        for number, name in enumerate(names):
            header = self._messages[number].header
            header.name, header.name_size = name, len(name) - 1
            header.vectors, header.count = vectors + number % step, 1
            if len(sizes) > 1:
                header.control, header.control_size = control, len(control) - 1
        self._alive = names, data, control, vectors

    def send(self) -> None:
        for start in range(0, self._viewers, self._step):
            count = min(self._step, self._viewers - start)
            libc.sendmmsg(self._socket, self._messages + start, count, 0)


def paced(frames: Sequence[Sequence[int]], viewers: int, *, fps: float, core: int) -> float:
    """Seconds of CPU for a datagram, when these frames leave to so many sockets at the pace of a stream.

    The sockets are like those of `beamcast load`, and read as often. The sender is a thread on `core`.
    """
    shapes = {tuple(sizes) for sizes in frames}
    inbox = Inbox(viewers)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    sender.bind(("127.0.0.1", 0))
    receivers = []
    for viewer in range(viewers):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        inbox.prepare(one)
        one.connect(sender.getsockname())
        inbox.add(viewer, one)
        receivers.append(one)
    addresses = [one.getsockname() for one in receivers]
    messages = {sizes: Messages(sender, addresses, sizes) for sizes in shapes}
    used = 0.0
    done = threading.Event()

    def play() -> None:
        nonlocal used
        os.sched_setaffinity(0, {core})
        due = time.monotonic()
        try:
            for sizes in frames:
                due += 1.0 / fps
                time.sleep(max(0.0, due - time.monotonic()))
                frame = messages[tuple(sizes)]
                before = time.thread_time()
                frame.send()
                used += time.thread_time() - before
        finally:
            done.set()

    thread = threading.Thread(target=play)
    thread.start()
    while not done.wait(0.1):
        for _ in inbox.batches():
            pass
    thread.join()
    for one in (sender, *receivers):
        one.close()
    return used / (viewers * sum(map(len, frames)))
