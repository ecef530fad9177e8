"""A UDP relay that loses, delays, reorders and throttles datagrams: a bad network in user space.

It stands between a viewer and a worker, on loopback only, because `tc netem` is missing from many kernels and needs
root where it is not. What happens to a datagram depends on the seed, its direction, its place in the order of arrival
and the time of its arrival alone, so a test that fails can be run again.

    async with LossyRelay(target=("127.0.0.1", worker_port), seed=7, impairment=Impairment(loss_down=0.08)) as relay:
        await viewer.setRemoteDescription(RTCSessionDescription(through(answer, relay.port), "answer"))
        ...
        relay.impairment = Impairment()     # the network recovers
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import ipaddress
import random
import socket
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType

from tests.capacity import Capacity, Policer

_DRAIN = 64
_REMEMBERED = 200_000
_RECEIVE_BUFFER = 4 << 20

Address = tuple[str, int]
Bandwidth = float | Capacity | Policer | None


@dataclass(frozen=True)
class Impairment:
    """What the network does. Down is from the server to the viewer, up is the other way.

    Every client has a line of its own (unless the relay is `shared`): `bandwidth_bps` and its queue are its access
    line, downwards.
    """

    loss_down: float = 0.0
    """The share of datagrams that are lost, 0 to 1."""
    loss_up: float = 0.0
    delay: float = 0.0
    """Seconds, each way."""
    jitter: float = 0.0
    """Up to so many seconds more, uniformly distributed; the order is kept."""
    reorder: float = 0.0
    """The share of datagrams that are held back by `reorder_by` seconds more, so that later ones overtake them."""
    reorder_by: float = 0.015
    bandwidth_bps: Bandwidth = None
    """Bits per second; None is unlimited. A Capacity changes over time (of the event loop), a Policer queues none."""
    queue_bytes: int = 64_000
    """What waits for the bandwidth; more than that is dropped at the tail."""
    queue_seconds: float = 0.5
    """In place of `queue_bytes` for a Capacity: what would not be through after so long is dropped at the tail."""
    blackout: bool = False
    """Nothing passes, in either direction."""


@dataclass
class Counts:
    """Datagrams of one direction, over all clients."""

    received: int = 0
    sent: int = 0
    lost: int = 0
    overflowed: int = 0
    """Dropped at the tail of the queue, or by the policer."""
    blacked_out: int = 0


@dataclass
class Line:
    """The pure core: one direction of one client's path."""

    random: random.Random
    counts: Counts
    free_at: float = 0.0
    """When the last bit that was accepted has left the queue."""
    newest: float = 0.0
    """The latest arrival so far, which later datagrams do not overtake."""
    waits: deque[tuple[float, float]] | None = None
    """Where (arrival, seconds until the last bit is on its way) is noted of each datagram that passes the bandwidth."""

    def accept(self, now: float, size: int, loss: float, network: Impairment, bandwidth: Bandwidth) -> float | None:
        """When a datagram of `size` bytes that comes in at `now` goes out, or None when it is dropped."""
        # Every datagram draws three numbers, whatever the settings are: changing one leaves the others' luck alone.
        lost, late, overtaken = (self.random.random() for _ in range(3))
        self.counts.received += 1
        if network.blackout:
            self.counts.blacked_out += 1
            return None
        if lost < loss:
            self.counts.lost += 1
            return None
        departs = self._depart(now, size, network, bandwidth)
        if departs is None:
            self.counts.overflowed += 1
            return None
        arrives = max(departs + network.delay + late * network.jitter, self.newest)
        if overtaken < network.reorder:
            return arrives + network.reorder_by
        self.newest = arrives
        return arrives

    def _depart(self, now: float, size: int, network: Impairment, bandwidth: Bandwidth) -> float | None:
        """When the last bit is on its way, None when the policer or the end of the queue takes it."""
        if bandwidth is None:
            return now
        if isinstance(bandwidth, Policer):
            return now if bandwidth.lets(now, size) else None
        start = max(now, self.free_at)
        if isinstance(bandwidth, Capacity):
            departs = bandwidth.through(start, size * 8)
            if departs - now > network.queue_seconds:
                return None
        else:
            if (start - now) * bandwidth / 8 + size > network.queue_bytes:
                return None
            departs = start + size * 8 / bandwidth
        self.free_at = departs
        if self.waits is not None:
            self.waits.append((now, departs - now))
        return departs


@dataclass
class _Client:
    address: Address
    upstream: socket.socket
    down: Line
    up: Line


@dataclass(order=True)
class _Parcel:
    due: float
    number: int
    client: _Client = field(compare=False)
    data: bytes = field(compare=False)
    downwards: bool = field(compare=False)


class LossyRelay:
    """Relays each client's datagrams to `target` from a socket of its own, and the answers back."""

    def __init__(
        self, target: Address, *, seed: int, impairment: Impairment = Impairment(), shared: bool = False
    ) -> None:
        """`target`: the worker's (host, port), a loopback address; anything else is a ValueError.

        `shared`: all clients are behind one line downwards, a household's.
        """
        if not ipaddress.ip_address(target[0]).is_loopback:
            raise ValueError(f"{target[0]} is not a loopback address: this relay never leaves the machine")
        self.target = target
        self.impairment = impairment
        """What happens to datagrams that arrive from now on; assign another one at any time."""
        self.down = Counts()
        self.up = Counts()
        self.waits: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        """(arrival, seconds until the last bit was on its way) of each datagram that the bandwidth let through."""
        self.late: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        """(delivery, seconds behind its time) of each datagram downwards: what the relay itself adds."""
        self._seed = seed
        self._common = self._line("down") if shared else None
        self._host = "::1" if ":" in target[0] else "127.0.0.1"
        self._clients: dict[Address, _Client] = {}
        self._parcels: list[_Parcel] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def clients(self) -> int:
        """How many client addresses have sent something."""
        return len(self._clients)

    async def __aenter__(self) -> LossyRelay:
        self._loop = asyncio.get_running_loop()
        self._front = self._open()
        self.port: int = self._front.getsockname()[1]
        self._loop.add_reader(self._front.fileno(), self._from_clients)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:  # fmt: skip
        if self._timer is not None:
            self._timer.cancel()
        self._parcels.clear()
        for one in [self._front, *(client.upstream for client in self._clients.values())]:
            self._loop.remove_reader(one.fileno())
            one.close()

    def rebind(self) -> None:
        """Change the port from which the server sees each client, as a NAT does that has forgotten its mapping."""
        for client in self._clients.values():
            self._loop.remove_reader(client.upstream.fileno())
            client.upstream.close()
            client.upstream = self._open_upstream(client)

    def _open(self) -> socket.socket:
        one = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET, socket.SOCK_DGRAM)
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        one.bind((self._host, 0))
        return one

    def _open_upstream(self, client: _Client) -> socket.socket:
        one = self._open()
        one.connect(self.target)
        self._loop.add_reader(one.fileno(), self._from_server, client)
        return one

    def _line(self, place: str) -> Line:
        return Line(random.Random(f"{self._seed}/{place}"), self.down, waits=self.waits)

    def _client(self, address: Address) -> _Client:
        client = self._clients.get(address)
        if client is None:
            place = f"{self._seed}/{len(self._clients)}"
            down = self._common or self._line(f"{len(self._clients)}/down")
            client = _Client(address, self._front, down, Line(random.Random(f"{place}/up"), self.up))
            client.upstream = self._open_upstream(client)
            self._clients[address] = client
        return client

    def _from_clients(self) -> None:
        network = self.impairment
        with contextlib.suppress(OSError):
            for _ in range(_DRAIN):
                data, address = self._front.recvfrom(65535)
                client = self._client(address)
                due = client.up.accept(self._loop.time(), len(data), network.loss_up, network, None)
                self._post(due, client, data, downwards=False)
        self._deliver()

    def _from_server(self, client: _Client) -> None:
        network = self.impairment
        with contextlib.suppress(OSError):
            for _ in range(_DRAIN):
                data = client.upstream.recv(65535)
                now = self._loop.time()
                due = client.down.accept(now, len(data), network.loss_down, network, network.bandwidth_bps)
                self._post(due, client, data, downwards=True)
        self._deliver()

    def _post(self, due: float | None, client: _Client, data: bytes, *, downwards: bool) -> None:
        if due is not None:
            self._number += 1
            heapq.heappush(self._parcels, _Parcel(due, self._number, client, data, downwards))

    def _deliver(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        while self._parcels and self._parcels[0].due <= now:
            parcel = heapq.heappop(self._parcels)
            with contextlib.suppress(OSError):  # a full buffer or a client that is gone: lost, as on any network
                if parcel.downwards:
                    self._front.sendto(parcel.data, parcel.client.address)
                    self.down.sent += 1
                    self.late.append((now, now - parcel.due))
                else:
                    parcel.client.upstream.send(parcel.data)
                    self.up.sent += 1
        if self._parcels:
            self._timer = self._loop.call_at(self._parcels[0].due, self._deliver)


def through(answer_sdp: str, relay_port: int) -> str:
    """`answer_sdp` with one candidate per media section: the relay, over UDP."""
    lines: list[str] = []
    replaced = False
    for line in answer_sdp.splitlines():
        if line.startswith("m="):
            replaced = False
        if not line.startswith("a=candidate:"):
            lines.append(line)
        elif not replaced:
            replaced = True
            lines.append(f"a=candidate:1 1 udp 2130706431 127.0.0.1 {relay_port} typ host")
    return "\r\n".join(lines) + "\r\n"
