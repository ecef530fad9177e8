"""What strangers can do to a stock connection, and cannot do to ours; and what a viewer cannot do to another."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import SRTP_PROFILES
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from tests.handmade_viewer import Served, Viewer, check, plays, seen, serve
from workers.transport import Endpoint, TransportSettings
from workers.transport.dtls import DtlsServer
from workers.transport.records import permitted


def record(kind: int, body: bytes, *, epoch: int = 0, number: int = 0, version: int = 0xFEFD) -> bytes:
    head = struct.pack("!BHHHIH", kind, version, epoch, number >> 32, number & 0xFFFFFFFF, len(body))
    return head + body


FATAL_ALERT = record(21, b"\x02\x28")
CLOSE_NOTIFY = record(21, b"\x01\x00")
FORGED = [
    FATAL_ALERT,
    CLOSE_NOTIFY,
    record(21, b"\x02\x28", number=2**40),
    record(23, b"plain application data"),
    record(22, b"\x02" + bytes(40)),
    record(22, b"\x14" + bytes(40)),
    record(22, b""),
    record(99, b"?"),
    FATAL_ALERT * 50,
]
"""Unprotected records that no viewer needs, and that an implementation may end a session for."""

PROTECTED = [record(21, os.urandom(26), epoch=1, number=n) for n in (1, 2**47)] + [
    record(22, os.urandom(60), epoch=1, number=3),
    record(21, b"\x02\x28", epoch=1, number=4),
]
"""Records that pretend to be protected."""


def client_hello() -> bytes:
    """A ClientHello, new each time."""
    context = RTCCertificate.generateCertificate()._create_ssl_context(SRTP_PROFILES)
    client = SSL.Connection(context)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    return client.bio_read(1500)


def junk(seed: int, count: int) -> Iterator[bytes]:
    """Datagrams of every class of first byte and of all sorts of sizes, the empty one first."""
    luck = random.Random(seed)
    yield b""
    for n in range(count):
        yield bytes([n % 256]) + luck.randbytes(luck.choice((0, 1, 12, 19, 40, 1200)))


class Stranger:
    """A socket that the server does not know."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(("127.0.0.1", endpoint.port))
        self.socket.setblocking(False)

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *datagrams: bytes) -> None:
        for data in datagrams:
            self.socket.send(data)

    @property
    def answered(self) -> bool:
        try:
            self.socket.recv(1)
        except BlockingIOError:
            return False
        return True


@pytest_asyncio.fixture
async def playing(endpoint: Endpoint) -> AsyncIterator[tuple[Served, Viewer]]:
    served, viewer = serve(endpoint)
    async with viewer:
        await viewer.connect(endpoint.fingerprint)
        await served.until(lambda: served.keys)
        yield served, viewer


async def test_an_empty_datagram_harms_nobody(endpoint: Endpoint, playing: tuple[Served, Viewer]) -> None:
    """One of them closes a stock connection."""
    served, viewer = playing
    before = endpoint.statistics.datagrams
    with Stranger(endpoint) as stranger:
        stranger.send(b"", b"")
        viewer.send(b"")
        await seen(endpoint, before + 3)
        assert not stranger.answered
    assert endpoint.statistics.malformed == 3
    await plays(served, viewer)


async def test_a_flood_of_junk_from_strangers_is_counted_and_unanswered(
    endpoint: Endpoint, playing: tuple[Served, Viewer]
) -> None:
    served, viewer = playing
    before = endpoint.statistics.datagrams
    with Stranger(endpoint) as stranger:
        for n, data in enumerate(junk(1, 1999)):
            stranger.send(data)
            if n % 20 == 0:  # no more than the socket's buffer takes
                await seen(endpoint, before + n)
        await seen(endpoint, before + 2000)
        assert not stranger.answered
    counts = endpoint.statistics
    assert counts.strangers + counts.malformed + counts.takeovers >= 1990
    assert counts.dtls_dropped == counts.media_dropped == 0, "a stranger's datagram was taken for the viewer's"
    await plays(served, viewer)
    assert served.reasons == []


@pytest.mark.parametrize("source", ["a stranger's address", "the viewer's address"])
async def test_forged_records_do_not_end_a_session(
    endpoint: Endpoint, playing: tuple[Served, Viewer], source: str
) -> None:
    served, viewer = playing
    before = endpoint.statistics.datagrams
    with Stranger(endpoint) as stranger:
        forger = stranger if source == "a stranger's address" else viewer
        forged = [*FORGED, *PROTECTED, client_hello()]
        for data in forged:
            forger.send(data)
        await seen(endpoint, before + len(forged))
        assert not stranger.answered
    await plays(served, viewer)
    assert (served.reasons, viewer.dtls.state) == ([], "connected")
    assert len(served.keys) == 1


async def test_only_protected_records_reach_the_dtls_implementation_of_a_session(
    endpoint: Endpoint, playing: tuple[Served, Viewer], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, viewer = playing
    passed: list[bytes] = []
    monkeypatch.setattr(DtlsServer, "feed", lambda _, data: passed.append(data))
    before = endpoint.statistics.datagrams
    for data in [*FORGED, PROTECTED[0], FATAL_ALERT + PROTECTED[1]]:
        viewer.send(data)
    await seen(endpoint, before + len(FORGED) + 2)
    monkeypatch.undo()
    assert passed == [PROTECTED[0], PROTECTED[1]]
    assert endpoint.statistics.dtls_dropped + endpoint.statistics.malformed == len(FORGED)


@pytest.mark.parametrize("source", ["a stranger's address", "the viewer's address"])
async def test_forged_alerts_during_set_up_do_not_prevent_it(endpoint: Endpoint, source: str) -> None:
    """Sent before, after and between the viewer's own datagrams; with a stock connection 0 of 5 sessions ever play."""
    with Stranger(endpoint) as stranger:
        for _ in range(5):
            served, viewer = serve(endpoint)
            send = viewer.send

            def forging(data: bytes, viewer_sends=send, forged=stranger.send) -> None:  # type: ignore[no-untyped-def]
                forge = forged if source == "a stranger's address" else viewer_sends
                for record in FORGED:
                    forge(record)
                viewer_sends(data)
                for record in FORGED:
                    forge(record)

            viewer.send = forging  # type: ignore[method-assign]
            async with viewer:
                await asyncio.wait_for(viewer.connect(endpoint.fingerprint), 5)
                viewer.send = send  # type: ignore[method-assign]
                await served.until(lambda served=served: served.keys)
                await plays(served, viewer)


async def test_a_flood_of_client_hellos_does_not_prevent_set_up(endpoint: Endpoint) -> None:
    hellos = [client_hello() for _ in range(10)]
    with Stranger(endpoint) as stranger:
        for _ in range(5):
            served, viewer = serve(endpoint)
            async with viewer:
                stranger.send(*hellos)
                await viewer.check()
                stranger.send(*hellos)
                handshake = asyncio.create_task(viewer.handshake(endpoint.fingerprint))
                for _ in range(20):
                    stranger.send(*hellos)
                    await asyncio.sleep(0)
                await asyncio.wait_for(handshake, 5)
                await served.until(lambda served=served: served.keys)
                await plays(served, viewer)
        assert not stranger.answered


async def test_what_a_viewer_can_make_the_handshake_do_is_bounded(endpoint: Endpoint) -> None:
    served, viewer = serve(endpoint)
    async with viewer:
        await viewer.check()
        path = served.peer.path
        assert path is not None
        hello = client_hello()
        limit = TransportSettings().dtls_rate
        for _ in range(10 * limit):
            endpoint._mux.datagram(hello, path)
        assert endpoint.statistics.dtls_dropped == 9 * limit


async def test_media_from_viewers_is_dropped_and_reports_pass_after_the_handshake_only(endpoint: Endpoint) -> None:
    served, viewer = serve(endpoint)
    async with viewer:
        await viewer.check()
        viewer.send(b"\x80\xc9 too early")
        await seen(endpoint, 2)
        await viewer.handshake(endpoint.fingerprint)
        await served.until(lambda: served.keys)
        before = endpoint.statistics.datagrams
        for data in (b"\x80\x60 a picture", b"\x80", b"\xbf\xff", b"\x90\xce feedback", b"\x4f\xce", b"\xff\xce"):
            viewer.send(data)
        await seen(endpoint, before + 6)
        assert served.rtcp == [b"\x90\xce feedback"]
        assert endpoint.statistics.media_dropped == 4
        assert endpoint.statistics.malformed == 2


async def test_oversized_datagrams_are_dropped(endpoint: Endpoint, playing: tuple[Served, Viewer]) -> None:
    served, viewer = playing
    before = endpoint.statistics.datagrams
    limit = TransportSettings().datagram_size
    for size in (limit + 1, 9000, 65_000):
        viewer.send(b"\x80\xc9" + bytes(size - 2))
    viewer.send(b"\x80\xc9" + bytes(limit - 2))
    await seen(endpoint, before + 4)
    assert [len(data) for data in served.rtcp] == [limit]
    assert endpoint.statistics.malformed == 3


async def test_stun_that_is_not_authentic_stays_unanswered(endpoint: Endpoint) -> None:
    _, viewer = serve(endpoint)
    good = check(viewer.ufrag, viewer.password)
    with Stranger(endpoint) as stranger:
        cuts = [good[:size] for size in range(1, len(good))]
        stranger.send(*cuts, good[:-1] + b"?", good + b"\x00")
        stranger.send(check("nobody", viewer.password), check(viewer.ufrag[:-1], viewer.password))
        stranger.send(check(viewer.ufrag, "x" * 24), check(viewer.ufrag, viewer.password[:-1]))
        stranger.send(b"\x00\x11" + good[2:], b"\x01\x01" + good[2:], b"\x00\x03" + good[2:])
        await seen(endpoint, len(cuts) + 9)
        assert not stranger.answered
        counts = endpoint.statistics
        assert (counts.strangers, counts.bad_auth, counts.checks) == (2, 2, 0)
        assert counts.malformed >= len(cuts)
        stranger.send(good)
        await seen(endpoint, len(cuts) + 10)
        await asyncio.sleep(0)
        assert stranger.answered


async def test_a_viewer_that_believes_to_be_controlled_is_corrected(endpoint: Endpoint) -> None:
    served, viewer = serve(endpoint)
    async with viewer:
        answer = await viewer.check(controlling=False)
        assert answer.attributes["ERROR-CODE"][0] == 487
        assert served.peer.state == "new"


async def test_a_replayed_check_does_not_divert_the_media(endpoint: Endpoint, playing: tuple[Served, Viewer]) -> None:
    served, viewer = playing
    recorded = [check(viewer.ufrag, viewer.password) for _ in range(TransportSettings().remembered_checks)]
    for data in recorded:
        viewer.send(data)
    await viewer.until(lambda: len(viewer.answers) == len(recorded) + 1)
    before = endpoint.statistics.datagrams
    with Stranger(endpoint) as stranger:
        for data in recorded:
            stranger.send(data)
        await seen(endpoint, before + len(recorded))
        assert not stranger.answered
    assert endpoint.statistics.replayed == len(recorded)
    assert served.peer.path is not None
    assert served.peer.path.address == viewer.address
    await plays(served, viewer)


async def test_a_repeated_check_from_the_same_address_is_answered_again(endpoint: Endpoint) -> None:
    _, viewer = serve(endpoint)
    async with viewer:
        data = check(viewer.ufrag, viewer.password)
        viewer.send(data)
        viewer.send(data)
        await viewer.until(lambda: len(viewer.answers) == 2)


async def answered_check(endpoint: Endpoint, sender: Stranger, viewer: Viewer) -> None:
    """A check in the viewer's name from the sender's address."""
    before = endpoint.statistics.checks
    sender.send(check(viewer.ufrag, viewer.password))
    await seen(endpoint, before + 1, "checks")


async def test_who_diverts_the_media_cannot_keep_it_flowing_from_elsewhere(
    endpoint: Endpoint, playing: tuple[Served, Viewer]
) -> None:
    """A viewer that forges a check from a victim's address must not feed the victim with his own address's reports."""
    served, viewer = playing
    with Stranger(endpoint) as victim:
        await answered_check(endpoint, victim, viewer)
        assert served.peer.path is not None
        assert served.peer.path.address != viewer.address
        deadline = served.peer.deadline
        heard, answered = len(served.rtcp), len(viewer.answers)
        viewer.send(b"\x80\xc9" + bytes(30))
        await served.until(lambda: len(served.rtcp) > heard)
        served.peer.alive()
        viewer.send(check(viewer.ufrag, viewer.password, use_candidate=False))
        await viewer.until(lambda: len(viewer.answers) > answered)
        assert served.peer.deadline == deadline
        await answered_check(endpoint, victim, viewer)
        assert served.peer.deadline > deadline


async def test_nobody_takes_over_the_address_of_another_viewer(
    endpoint: Endpoint, playing: tuple[Served, Viewer]
) -> None:
    """With a session of one's own and a forged source address."""
    served, viewer = playing
    attacker, _ = serve(endpoint)
    viewer.send(check(attacker.peer.ufrag, attacker.peer.password))
    await seen(endpoint, endpoint.statistics.datagrams + 1)
    assert endpoint.statistics.takeovers == 1
    assert attacker.peer.path is None
    await plays(served, viewer)
    assert (served.reasons, attacker.reasons) == ([], [])


async def test_an_address_that_is_free_again_goes_to_the_next_viewer(
    endpoint: Endpoint, playing: tuple[Served, Viewer]
) -> None:
    served, viewer = playing
    served.peer.close()
    following, _ = serve(endpoint)
    viewer.ufrag, viewer.password = following.peer.ufrag, following.peer.password
    await viewer.check()
    assert following.peer.path is not None


async def test_a_closed_viewer_is_a_stranger(endpoint: Endpoint, playing: tuple[Served, Viewer]) -> None:
    served, viewer = playing
    served.peer.close()
    before = endpoint.statistics.datagrams
    viewer.send(check(viewer.ufrag, viewer.password))
    viewer.send(b"\x80\xc9 report")
    viewer.send(PROTECTED[0])
    await seen(endpoint, before + 3)
    assert endpoint.statistics.strangers >= 3
    assert (served.rtcp, served.reasons) == ([], ["closed"])
    assert not (endpoint._mux.by_ufrag or endpoint._mux.by_address or endpoint._mux.peers)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_filtered(data: bytes, established: bool) -> None:
    passed = permitted(data, established=established)
    assert len(passed) <= len(data)
    assert permitted(passed, established=established) == passed


@given(st.lists(st.tuples(st.integers(18, 30), st.binary(max_size=20), st.integers(0, 2)), max_size=6), st.booleans())
def test_records_are_judged_one_by_one(records: list[tuple[int, bytes, int]], established: bool) -> None:
    wanted = []
    for kind, body, epoch in records:
        plain = not established and ((kind == 22 and body[:1] in (b"\x01", b"\x0b", b"\x0f", b"\x10")) or
                                     (kind == 20 and body != b""))  # fmt: skip
        if (epoch > 0 and 20 <= kind <= 23) or (epoch == 0 and plain):
            wanted.append(record(kind, body, epoch=epoch))
    data = b"".join(record(kind, body, epoch=epoch) for kind, body, epoch in records)
    assert permitted(data, established=established) == b"".join(wanted)
    assert permitted(data + record(22, b"\x01" + bytes(30))[:-1], established=established) == b"".join(wanted)
