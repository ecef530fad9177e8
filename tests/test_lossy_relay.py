"""The relay that impairs: its core with a fake clock, its shell with real sockets."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket

import pytest

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
