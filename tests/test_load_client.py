"""One viewer of the load generator at a worker's real endpoint, and what it makes of SDP and addresses."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from broadcaster.errors import ConfigurationError, LoadError
from tests.handmade_viewer import Served, session
from workers import sdp
from workers.answer import answer as answer_to
from workers.forward.packets import ExtensionIds
from workers.load import client as client_module
from workers.load.client import Client, Credentials, Identity
from workers.load.session import Answer, endpoint, is_loopback, offer, parse_answer
from workers.transport import Endpoint

IDENTITY = Identity()
CREDENTIALS = Credentials.new()
OFFER = sdp.parse_offer(offer(CREDENTIALS.ufrag, CREDENTIALS.password, IDENTITY.fingerprint))
REPORT = bytes.fromhex("80c9000100000001")


class Pair:
    """A client and the peer that serves it."""

    def __init__(self, server: Endpoint, **wrong: object) -> None:
        self.served = Served()
        self.served.peer = server.accept(
            remote_fingerprint=OFFER.fingerprints[0],
            on_connected=self.served.connected,
            on_rtcp=self.served.received,
            on_closed=self.served.closed,
        )
        peer = self.served.peer
        answer = Answer(("127.0.0.1", server.port), peer.ufrag, peer.password, server.fingerprint, 0xCAFE, None)
        answer = dataclasses.replace(answer, **wrong)  # type: ignore[arg-type]
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.client = Client(IDENTITY, answer, CREDENTIALS.ufrag, self.socket)

    async def receive(self, condition: Callable[[], object]) -> bytes | None:
        """Hand everything that comes to the client until `condition()`; the last RTCP packet in clear."""
        loop, clear = asyncio.get_running_loop(), None
        async with asyncio.timeout(2):
            while not condition():
                clear = self.client.receive(await loop.sock_recv(self.socket, 2048), loop.time()) or clear
        return clear


@pytest.fixture
async def server() -> AsyncIterator[Endpoint]:
    server = await Endpoint.open(range(1), announce=["127.0.0.1"])
    yield server
    await server.close()


@pytest.fixture
def connect(server: Endpoint) -> Callable[..., Pair]:
    return lambda **wrong: Pair(server, **wrong)


async def test_a_client_connects_and_both_sides_have_the_same_keys(connect: Callable[..., Pair]) -> None:
    pair = connect()
    await pair.client.connect()
    await pair.served.until(lambda: pair.served.keys)
    keys = pair.served.keys[0]
    pair.client.send(pair.client.protect_rtcp(REPORT))
    await pair.served.until(lambda: pair.served.rtcp)
    assert session(keys.profile, keys.rx_key, outbound=False).unprotect_rtcp(pair.served.rtcp[0]) == REPORT
    sender = session(keys.profile, keys.tx_key, outbound=True)
    packet = b"\x80\x60\x00\x01" + bytes(4) + (0xCAFE).to_bytes(4, "big") + b"picture"
    assert pair.client.unprotect(sender.protect(packet)) == packet
    assert pair.client.receive(sender.protect_rtcp(REPORT), 0.0) == REPORT
    assert pair.client.failures == 0
    pair.client.close()
    await pair.served.until(lambda: pair.served.reasons)
    assert pair.served.reasons == ["closed"]


async def test_forged_packets_are_counted(connect: Callable[..., Pair]) -> None:
    pair = connect()
    await pair.client.connect()
    assert pair.client.unprotect(b"\x80\x60\x00\x01" + bytes(40)) is None
    assert pair.client.receive(b"\x80\xc9\x00\x01" + bytes(40), 0.0) is None
    assert pair.client.failures == 2
    pair.client.close()


async def test_a_servers_goodbye_ends_the_connection(connect: Callable[..., Pair]) -> None:
    pair = connect()
    await pair.client.connect()
    await pair.served.until(lambda: pair.served.keys)
    pair.served.peer.close("draining")
    await pair.receive(lambda: pair.client.ended)
    assert pair.client.ended == "the server said goodbye"
    pair.client.close()


async def test_silence_ends_the_connection(connect: Callable[..., Pair]) -> None:
    pair = connect()
    await pair.client.connect()
    now = asyncio.get_running_loop().time()
    pair.client.check(now + client_module.CONSENT_TIMEOUT - 1)
    assert pair.client.ended is None
    pair.client.check(now + client_module.CONSENT_TIMEOUT + 1)
    assert pair.client.ended == "the server stopped answering"
    pair.client.close()


async def test_another_certificate_than_the_answers_is_refused(connect: Callable[..., Pair]) -> None:
    pair = connect(fingerprint=":".join(["00"] * 32))
    with pytest.raises(LoadError, match="certificate is not the one of its answer"):
        await pair.client.connect()
    pair.client.close()


async def test_a_server_that_does_not_answer_is_named(
    connect: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "CONNECT_TIMEOUT", 0.3)
    pair = connect(password="a" * 24)
    with pytest.raises(LoadError, match=r"no ICE check with 127.0.0.1 port \d+ within 0 s"):
        await pair.client.connect()
    pair.client.close()


def answer(*candidates: str) -> str:
    return answer_to(
        OFFER,
        ufrag="serv",
        password="p" * 24,
        fingerprint="AB:" * 31 + "CD",
        candidates=candidates,
        ssrc=77,
        rtx_ssrc=78,
        cname="x",
        session_id=1,
    )


HERE = "candidate:1 1 udp 2130706431 127.0.0.1 40000 typ host"
THERE = "candidate:2 1 udp 2130706175 192.0.2.1 40001 typ host"
TCP = "candidate:3 1 tcp 1675624447 127.0.0.1 40002 typ host tcptype passive"


def test_the_offer_takes_retransmissions_transport_wide_feedback_and_the_extensions() -> None:
    assert (OFFER.payload_type, OFFER.rtx_payload_type, OFFER.ufrag) == (96, 97, CREDENTIALS.ufrag)
    assert set(OFFER.feedback) == {"nack", "nack pli", "ccm fir", "transport-cc"}
    assert OFFER.extensions == ExtensionIds(abs_send_time=2, mid=9, playout_delay=5, transport_sequence=3)


def test_the_answer_is_read() -> None:
    read = parse_answer(answer(HERE, THERE, TCP), loopback=True)
    assert read == Answer(("127.0.0.1", 40_000), "serv", "p" * 24, "AB:" * 31 + "CD", 77, 78, 3)
    assert parse_answer(answer(HERE, THERE, TCP), loopback=False).address == ("192.0.2.1", 40_001)


@pytest.mark.parametrize("half", ["a=extmap:3", "a=rtcp-fb:96 transport-cc"])
def test_half_an_answer_to_transport_wide_feedback_is_none(half: str) -> None:
    text = "".join(line for line in answer(HERE).splitlines(True) if not line.startswith(half))
    assert parse_answer(text, loopback=True).transport is None


def test_a_server_on_loopback_sends_nobody_elsewhere() -> None:
    with pytest.raises(LoadError, match="no media on loopback"):
        parse_answer(answer(THERE), loopback=True)
    with pytest.raises(LoadError, match="no media over UDP"):
        parse_answer(answer(TCP), loopback=False)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("a=extmap:3 ", "a=extmap:15 ", "a=extmap:15, which cannot be"),
        ("a=ssrc:77", "a=ssrc:9999999977", "a=ssrc:9999999977, which cannot be"),
        ("a=ssrc:", "a=ssrc:999999999", "lacks a=ssrc"),
        ("40001", "70001", "no media over UDP"),
    ],
)
def test_numbers_that_cannot_be_are_refused(before: str, after: str, reason: str) -> None:
    text = answer(THERE)
    changed = text.replace(before, after)
    assert changed != text
    with pytest.raises(LoadError, match=reason):
        parse_answer(changed, loopback=False)


def test_an_answer_without_its_parts_is_named() -> None:
    with pytest.raises(LoadError, match="lacks a=ice-pwd"):
        parse_answer(answer(HERE).replace("a=ice-pwd", "a=pwd"), loopback=True)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/whep/main"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/whep/main"),
        ("https://[::1]:8080/whep/other", "https://[::1]:8080/whep/other"),
    ],
)
def test_the_endpoint_is_found(url: str, found: str) -> None:
    assert endpoint(url, "main") == found


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://127.0.0.1/", "http://", "main"])
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not the address of a server"):
        endpoint(url, "main")


def test_loopback_is_told_from_the_rest() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("127.8.9.1")
    assert is_loopback("localhost")
    assert is_loopback("::1")
    assert not is_loopback("192.0.2.1")
    with pytest.raises(LoadError, match="cannot be resolved"):
        is_loopback("nowhere.invalid")
