"""The relay that impairs: its core with a fake clock, its shell with real sockets."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket

import pytest

from tests.capacity import Capacity, Policer
from tests.lossy_relay import Counts, Impairment, Line, LossyRelay, through


def line(seed: int = 1) -> Line:
    return Line(random.Random(seed), Counts())


def run(one: Line, network: Impairment, *, loss: float = 0.0, packets: int = 1000) -> list[float | None]:
    """What becomes of packets of 1000 bytes that come in every millisecond."""
    return [one.accept(n / 1000, 1000, loss, network, network.bandwidth_bps) for n in range(packets)]


def test_without_impairment_everything_leaves_at_once() -> None:
    one = line()
    assert run(one, Impairment()) == [n / 1000 for n in range(1000)]
    assert one.counts == Counts(received=1000)


def test_loss_is_the_share_asked_for_and_the_same_for_the_same_seed() -> None:
    fates = run(line(), Impairment(), loss=0.1)
    assert 70 <= fates.count(None) <= 130
    assert fates == run(line(), Impairment(), loss=0.1)
    assert fates != run(line(2), Impairment(), loss=0.1)


def test_other_settings_leave_the_luck_of_a_packet_alone() -> None:
    plain = run(line(), Impairment(), loss=0.1)
    busy = run(line(), Impairment(delay=0.05, jitter=0.01, reorder=0.1), loss=0.1)
    assert [fate is None for fate in plain] == [fate is None for fate in busy]


def test_jitter_delays_and_keeps_the_order() -> None:
    fates = [fate for fate in run(line(), Impairment(delay=0.02, jitter=0.03)) if fate is not None]
    assert fates == sorted(fates)
    assert all(0.02 <= fate - n / 1000 <= 0.05 + 1e-9 for n, fate in enumerate(fates))
    assert max(fate - n / 1000 for n, fate in enumerate(fates)) > 0.04


def test_reordering_lets_later_packets_overtake() -> None:
    fates = [fate for fate in run(line(), Impairment(delay=0.02, reorder=0.05)) if fate is not None]
    late = sum(fate - n / 1000 > 0.03 for n, fate in enumerate(fates))
    assert 25 <= late <= 80
    assert fates != sorted(fates)


def test_bandwidth_spaces_packets_and_the_full_queue_drops_the_newest() -> None:
    one = line()
    fates = run(one, Impairment(bandwidth_bps=4_000_000, queue_bytes=10_000), packets=100)  # 8 Mbit/s into 4
    passed = [fate for fate in fates if fate is not None]
    gaps = {round(after - before, 6) for before, after in itertools.pairwise(passed)}
    assert gaps == {0.002}
    assert one.counts.overflowed == 100 - len(passed)
    assert max(fate - n / 1000 for n, fate in enumerate(fates) if fate is not None) == pytest.approx(0.02, abs=0.0021)


def test_a_capacity_is_read_integrated_and_crossed() -> None:
    capacity = Capacity([(0, 1_000_000), (1, 0), (1.5, 2_000_000)], began=10)
    assert [capacity.at(now) for now in (0, 10, 10.99, 11, 11.49, 11.5, 99)] == [1e6, 1e6, 1e6, 0, 0, 2e6, 2e6]
    assert capacity.mean(10, 12) == pytest.approx(1_000_000)
    assert capacity.through(10, 500_000) == 10.5
    assert capacity.through(10.5, 700_000) == pytest.approx(11.6)  # half a second of line, then none, then twice of it
    assert capacity.through(11.2, 2_000_000) == 12.5
    assert capacity.through(5, 1_000_000) == 6  # before it began the line is as it begins


@pytest.mark.parametrize("steps", [[], [(0, 5.0), (1, 0.0)], [(1, 5.0), (0, 5.0)], [(0, -1.0), (1, 5.0)]])
def test_what_can_never_drain_is_no_capacity(steps: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="is no capacity"):
        Capacity(steps)


def test_a_capacity_that_drops_builds_a_queue_up_to_its_bound_and_drains_when_it_rises() -> None:
    one = line()
    network = Impairment(bandwidth_bps=Capacity([(0, 16e6), (0.2, 4e6), (0.6, 16e6)]), queue_seconds=0.1)
    fates = run(one, network)  # 8 Mbit/s: half of the line, then twice, then half
    waits = [None if fate is None else fate - n / 1000 for n, fate in enumerate(fates)]
    assert [wait for wait in waits[:200] if wait != pytest.approx(0.0005)] == []
    kept = [wait for wait in waits[200:600] if wait is not None]
    assert 0.098 < max(kept) <= 0.1
    assert one.counts.overflowed == 400 - len(kept) == pytest.approx(100, abs=20)
    assert None not in waits[600:]
    assert waits[-1] == pytest.approx(0.0005)


def test_a_policer_drops_what_is_too_much_and_delays_nothing() -> None:
    one = line()
    fates = run(one, Impairment(bandwidth_bps=Policer(4_000_000, 10_000)))  # 8 Mbit/s
    passed = [(n, fate) for n, fate in enumerate(fates) if fate is not None]
    assert all(fate == n / 1000 for n, fate in passed)
    assert [n for n, _ in passed[:10]] == list(range(10))
    assert len(passed) == pytest.approx(510, abs=2)
    assert one.counts.overflowed == 1000 - len(passed)


def test_a_blackout_lets_nothing_pass_and_ends() -> None:
    one = line()
    assert run(one, Impairment(blackout=True), packets=5) == [None] * 5
    assert one.counts.blacked_out == 5
    assert one.accept(1.0, 100, 0.0, Impairment(), None) == 1.0


def test_through_leaves_one_candidate_per_media_section() -> None:
    section = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=candidate:1 1 udp 1 10.0.0.1 5 typ host\r\na=mid:{}\r\n"
    more = "a=candidate:2 1 tcp 1 10.0.0.1 5 typ host tcptype passive\r\n"
    answer = through("v=0\r\n" + section.format(0) + more + section.format(1), 4321)
    found = [text for text in answer.splitlines() if text.startswith("a=candidate")]
    assert found == ["a=candidate:1 1 udp 2130706431 127.0.0.1 4321 typ host"] * 2
    assert answer.endswith("a=mid:1\r\n")


def test_it_refuses_to_leave_the_machine() -> None:
    with pytest.raises(ValueError, match="not a loopback address"):
        LossyRelay(("192.0.2.1", 5000), seed=1)


class Echo(asyncio.DatagramProtocol):
    """Answers with what it got, and remembers from where."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, tuple[str, int]]] = []

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.seen.append((data, address))
        self.transport.sendto(data, address)


async def test_each_client_has_a_port_of_its_own_and_gets_its_own_answers() -> None:
    loop = asyncio.get_running_loop()
    transport, echo = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    target = transport.get_extra_info("sockname")
    async with LossyRelay(target, seed=1, impairment=Impairment(delay=0.01)) as relay:
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for n, client in enumerate(clients):
            client.setblocking(False)
            client.connect(("127.0.0.1", relay.port))
            client.send(b"%d" % n)
        before = loop.time()
        for n, client in enumerate(clients):
            assert await asyncio.wait_for(loop.sock_recv(client, 100), 2) == b"%d" % n
        assert loop.time() - before >= 0.019
        assert relay.clients == 2
        assert len({address for _, address in echo.seen}) == 2

        relay.rebind()
        clients[0].send(b"again")
        assert await asyncio.wait_for(loop.sock_recv(clients[0], 100), 2) == b"again"
        assert len({address for _, address in echo.seen}) == 3

        relay.impairment = Impairment(blackout=True)
        clients[0].send(b"into the dark")
        while relay.up.blacked_out == 0:
            await asyncio.sleep(0.005)
        assert (relay.up.sent, relay.down.sent) == (3, 3)
        for client in clients:
            client.close()
    transport.close()


async def test_clients_that_share_a_line_share_its_bandwidth() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    target = transport.get_extra_info("sockname")
    slow = Impairment(bandwidth_bps=Capacity([(0, 400_000)]))  # 20 ms for 1000 bytes
    async with LossyRelay(target, seed=1, impairment=slow, shared=True) as relay:
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for client in clients:
            client.setblocking(False)
            client.connect(("127.0.0.1", relay.port))
            for _ in range(3):
                client.send(bytes(1000))
        for client in clients:
            for _ in range(3):
                assert await asyncio.wait_for(loop.sock_recv(client, 2000), 2) == bytes(1000)
            client.close()
        waits = [wait for _, wait in relay.waits]
        assert len(waits) == len(relay.late) == 6
        assert max(waits) > 0.08  # six at 20 ms each, and no three of them at once
    transport.close()
