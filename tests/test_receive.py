"""Both receivers: what viewers say arrives, the same by either, and what nobody should say costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import random
import socket
import struct
import subprocess
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from pylibsrtp import Policy, Session

from broadcaster.errors import ConfigurationError, StunError
from tests.handmade_viewer import Served, Viewer, check, session
from tests.rtp_viewer import CLOCK, KEY_SIZES, PARAMETERS, Keys
from tests.test_feedback import parts
from tests.test_rtcp import BYE, COMPOUND, PLI, nack, receiver_report, remb
from tests.transport_feedback import transport_feedback
from workers.forward import ExtensionIds, Outlet, OutletSettings, native
from workers.forward.history import LostPacket
from workers.forward.state import address_tuple, ffi, lib, socket_address
from workers.transport import Endpoint, SrtpKeys, receive, stun
from workers.transport.mux import Mux, TransportSettings
from workers.transport.path import Path as Way
from workers.transport.receive import CHOICE, NativeReceiver, PythonReceiver, default_receiver

ROOT = Path(__file__).parent.parent
WITH_TRANSPORT = replace(PARAMETERS, extensions=ExtensionIds(abs_send_time=2, transport_sequence=3))


class Listened(Served):
    """A viewer's peer whose reports an outlet takes, as in a worker."""

    outlet: Outlet

    def __init__(self, settings: OutletSettings) -> None:
        super().__init__()
        self.settings = settings
        self.asked: list[str] = []

    def connected(self, keys: SrtpKeys) -> None:
        assert self.peer.path is not None
        self.outlet = Outlet(WITH_TRANSPORT, keys, self.peer.path, CLOCK, settings=self.settings)
        self.outlet.listener = self
        self.peer.on_moved = self.moved
        self.peer.listen(self.outlet.open_inbox, self.hear)
        super().connected(keys)

    def received(self, data: bytes) -> None:
        self.outlet.receive_rtcp(data, self.now())
        super().received(data)

    def hear(self) -> None:
        self.outlet.hear(self.now())
        self.happened.set()

    def moved(self, path: Way) -> None:
        self.outlet.path = path

    def keyframe_needed(self, outlet: Outlet, patient: bool) -> None:
        self.asked.append("keyframe")

    def resend(self, outlet: Outlet, lost: list[LostPacket]) -> None:
        self.asked.append("packets")

    @staticmethod
    def now() -> float:
        return asyncio.get_running_loop().time()


class Connection:
    """One viewer, connected."""

    def __init__(self, endpoint: Endpoint, settings: OutletSettings | None = None, *, tcp: bool = False) -> None:
        self.endpoint = endpoint
        self.served = Listened(settings or OutletSettings())
        self.viewer = Viewer(("127.0.0.1", endpoint.port), "", "", tcp=tcp)
        self.served.peer = endpoint.accept(
            remote_fingerprint=self.viewer.fingerprint,
            on_connected=self.served.connected,
            on_rtcp=self.served.received,
            on_closed=self.served.closed,
        )
        self.viewer.ufrag, self.viewer.password = self.served.peer.ufrag, self.served.peer.password

    async def __aenter__(self) -> Connection:
        await self.viewer.__aenter__()
        await self.viewer.connect(self.endpoint.fingerprint)
        await self.served.until(lambda: self.served.keys)
        keys = self.served.keys[0]
        self.session = session(keys.profile, keys.rx_key, outbound=True)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.viewer.__aexit__(*error)

    @property
    def outlet(self) -> Outlet:
        return self.served.outlet

    async def say(self, *packets: bytes, plain: bool = False) -> None:
        """Send packets, protected unless `plain`, and wait until the server has read and heard them."""
        before = self.endpoint.statistics.datagrams
        for packet in packets:
            self.viewer.send(packet if plain else self.session.protect_rtcp(packet))
        async with asyncio.timeout(5):
            while self.endpoint.statistics.datagrams < before + len(packets):
                await asyncio.sleep(0.002)
        self.served.hear()


@pytest_asyncio.fixture
async def endpoint(receiver: str) -> AsyncIterator[Endpoint]:
    one = await Endpoint.open(range(1))
    kinds = {"native": NativeReceiver, "python": PythonReceiver}
    assert isinstance(one._mux.receiver, kinds[receiver])
    yield one
    await one.close()


@pytest_asyncio.fixture
async def connection(endpoint: Endpoint) -> AsyncIterator[Connection]:
    async with Connection(endpoint) as one:
        yield one


async def test_everything_that_a_viewer_reports_is_heard(connection: Connection) -> None:
    start = connection.outlet.sequence
    connection.outlet.left(1.0, 7, 4, 4000)
    report = receiver_report(packets_lost=5, highest_sequence=start + 99, jitter=900)
    await connection.say(report + remb(2_000_000), transport_feedback(7, 1, [3, None]), transport_feedback(9, 1, [0]))
    outlet = connection.outlet
    feedback = outlet.feedback
    assert (feedback.loss, feedback.packets_lost, feedback.jitter, feedback.remb) == (0.05, 5, 0.01, 2_000_000)
    assert feedback.reported_at == pytest.approx(connection.served.now(), abs=5)
    assert feedback.remb_at == feedback.reported_at
    assert outlet.estimator is not None
    state = outlet.estimator.state(connection.served.now())
    assert (state.measured, state.loss) == (2, pytest.approx(1 / 3))
    assert (outlet.rtcp_failures, outlet.rtcp_dropped, feedback.goodbye) == (0, 0, False)


@pytest.mark.parametrize("urgent", [PLI, nack([1, 2]), BYE, COMPOUND])
async def test_what_is_urgent_is_heard_at_once(connection: Connection, urgent: bytes) -> None:
    outlet = connection.outlet
    connection.viewer.send(connection.session.protect_rtcp(urgent))
    await connection.served.until(lambda: outlet.plis or outlet.nacks or outlet.feedback.goodbye)
    assert outlet.plis == (urgent in (PLI, COMPOUND))
    assert connection.served.asked == ["keyframe"] * outlet.plis
    assert outlet.nacks == (2 if urgent not in (PLI, BYE) else 0)


async def test_what_is_not_urgent_waits(endpoint: Endpoint, connection: Connection, receiver: str) -> None:
    before = endpoint.statistics.datagrams
    connection.viewer.send(connection.session.protect_rtcp(receiver_report()))
    async with asyncio.timeout(5):
        while endpoint.statistics.datagrams == before:
            await asyncio.sleep(0.002)
    assert (connection.outlet.feedback.reported_at is None) == (receiver == "native")
    connection.served.hear()
    assert connection.outlet.feedback.reported_at is not None


async def test_while_somebody_asks_for_something_the_sockets_are_looked_at_more_often(receiver: str) -> None:
    settings = TransportSettings(pause=0.001, idle_pause=60.0, glance=0.0)
    endpoint = await Endpoint.open(range(1), settings=settings)
    try:
        async with Connection(endpoint) as connection:

            async def say_between_frames(report: bytes) -> None:
                before = endpoint.statistics.datagrams
                connection.viewer.send(connection.session.protect_rtcp(report))
                while endpoint.statistics.datagrams == before:
                    endpoint.stir()
                    await asyncio.sleep(0)

            await say_between_frames(receiver_report())
            assert endpoint._pause() == (60.0 if receiver == "native" else 0.001)
            await say_between_frames(PLI)
            assert connection.outlet.plis == 1
            await connection.say(receiver_report())
            await connection.say(receiver_report())
            endpoint._mux.urgent_at -= settings.asking
            assert endpoint._pause() == 60.0
    finally:
        await endpoint.close()


async def test_forged_repeated_and_unreadable_reports_are_counted(connection: Connection) -> None:
    good = connection.session.protect_rtcp(PLI)
    keys = connection.served.keys[0]
    forger = session(keys.profile, bytes(len(keys.rx_key)), outbound=True)
    unreadable = connection.session.protect_rtcp(receiver_report() + b"\x00\x00\x00\x00")
    cuts = [good[:size] for size in range(2, len(good))]
    damaged = [good[:-1] + bytes([good[-1] ^ 1]), good[:8] + b"?" + good[9:]]
    await connection.say(forger.protect_rtcp(PLI), *cuts, *damaged, good, good, unreadable, plain=True)
    assert connection.outlet.plis == 1
    assert connection.outlet.rtcp_failures == 1 + len(cuts) + len(damaged) + 2
    assert connection.served.reasons == []


async def test_a_flood_is_dropped_unread(endpoint: Endpoint) -> None:
    async with Connection(endpoint, OutletSettings(rtcp_rate=20)) as flooding, Connection(endpoint) as other:
        for _ in range(10):
            await flooding.say(*[PLI] * 30)
        outlet = flooding.outlet
        assert outlet.plis + outlet.rtcp_dropped == 300
        assert 20 <= outlet.plis <= 200
        assert len(flooding.served.asked) <= outlet.plis
        await other.say(PLI)
        assert (other.outlet.plis, other.outlet.rtcp_dropped) == (1, 0)


async def test_pictures_of_a_viewer_are_dropped(endpoint: Endpoint, connection: Connection) -> None:
    before = endpoint.statistics.media_dropped
    await connection.say(b"\x80\x60" + bytes(200), b"\x80", b"\xbf\xff" + bytes(99), plain=True)
    assert endpoint.statistics.media_dropped == before + 3
    assert connection.outlet.rtcp_failures == 0


async def test_strangers_do_not_reach_the_cipher(endpoint: Endpoint, connection: Connection) -> None:
    data = connection.session.protect_rtcp(PLI)
    before = endpoint.statistics.datagrams
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(data, ("127.0.0.1", endpoint.port))
        async with asyncio.timeout(5):
            while endpoint.statistics.datagrams == before:
                await asyncio.sleep(0.002)
    assert endpoint.statistics.strangers == 1
    await connection.say(data, plain=True)
    assert (connection.outlet.plis, connection.outlet.rtcp_failures) == (1, 0)


async def test_a_viewer_that_moves_is_heard_from_both_addresses(connection: Connection) -> None:
    viewer, outlet = connection.viewer, connection.outlet
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.sendto(check(viewer.ufrag, viewer.password), viewer.server)
        await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, other.recv, 1500), 5)
        assert outlet.path.address == other.getsockname()
        other.sendto(connection.session.protect_rtcp(PLI), viewer.server)
        await connection.served.until(lambda: outlet.plis == 1)
    await connection.say(PLI)
    assert outlet.plis == 2


async def test_plain_checks_are_answered_without_python(
    endpoint: Endpoint, connection: Connection, receiver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []
    monkeypatch.setattr(
        endpoint._mux, "_check", lambda data, path, take=endpoint._mux._check: read.append(data) or take(data, path)
    )
    viewer, before = connection.viewer, endpoint.statistics.checks
    for how in ({}, {"use_candidate": False}):
        answer = await viewer.check(**how)
        assert answer.attributes["XOR-MAPPED-ADDRESS"] == viewer.address
    assert endpoint.statistics.checks == before + 2
    assert len(read) == (2 if receiver == "python" else 0)
    assert (await viewer.check(controlling=False)).attributes["ERROR-CODE"][0] == 487


async def test_checks_that_are_answered_without_python_keep_consent(endpoint: Endpoint, connection: Connection) -> None:
    peer, mux = connection.served.peer, endpoint._mux
    peer.deadline = 0.0
    await connection.viewer.check()
    now = asyncio.get_running_loop().time()
    mux.tick(now)
    assert peer.state == "connected"
    assert now < peer.deadline <= now + mux.settings.consent_timeout
    peer.deadline = 0.0
    mux.tick(now)
    assert (peer.state, connection.served.reasons) == ("closed", ["timeout"])


async def test_a_check_that_was_answered_without_python_is_no_news_from_elsewhere(
    endpoint: Endpoint, connection: Connection
) -> None:
    viewer, peer = connection.viewer, connection.served.peer
    recorded = [check(viewer.ufrag, viewer.password) for _ in range(TransportSettings().remembered_checks)]
    count = len(viewer.answers)
    for data in recorded:
        viewer.send(data)
    await viewer.until(lambda: len(viewer.answers) == count + len(recorded))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        for data in recorded:
            other.sendto(data, viewer.server)
        async with asyncio.timeout(5):
            while endpoint.statistics.replayed < len(recorded):
                await asyncio.sleep(0.002)
    assert peer.path is not None
    assert peer.path.address == viewer.address


async def test_after_a_restart_only_the_new_credentials_are_answered(connection: Connection) -> None:
    viewer, peer = connection.viewer, connection.served.peer
    await viewer.check()
    old, new = (viewer.ufrag, viewer.password), peer.restart()
    await viewer.check()
    viewer.ufrag, viewer.password = new
    await viewer.check()
    await viewer.check()
    viewer.ufrag, viewer.password = old
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(viewer.check(), 0.1)


async def test_a_viewer_that_moves_is_answered_in_both_places(connection: Connection) -> None:
    viewer, peer = connection.viewer, connection.served.peer
    first = viewer.address
    await viewer.check()
    viewer.hang_up()
    await viewer.open()
    for _ in range(2):
        assert (await viewer.check()).attributes["XOR-MAPPED-ADDRESS"] == viewer.address != first
    assert peer.path is not None
    assert peer.path.address == viewer.address


PASSWORD, UFRAG, VIEWER_AT = b"password" * 3, b"ufragufr", ("127.0.0.1", 4711)
attributes = st.one_of(
    st.tuples(st.sampled_from([0x0025, 0x0024, 0xC057, 0x8029, 0x802A]), st.binary(max_size=9)),
    st.tuples(
        st.just(0xC001), st.one_of(st.integers(0, 9).map(lambda value: value.to_bytes(4, "big")), st.binary(max_size=5))
    ),
    st.tuples(st.just(0x0006), st.sampled_from([UFRAG, UFRAG + b":x", UFRAG[:-1], UFRAG + b"x:y", b":" + UFRAG, b""])),
)


@settings(deadline=None, max_examples=500)
@given(
    st.lists(attributes, max_size=6),
    st.sampled_from([b"", b"f", b"F", b"more"]),
    st.one_of(st.none(), st.tuples(st.integers(0, 10_000), st.integers(1, 255))),
    st.sampled_from([VIEWER_AT, ("127.0.0.1", 4712), ("2001:db8::7", 4711, 0, 0), ("2001:db8::7", 4711, 5, 0)]),
)
def test_the_kernel_answers_as_python_does_or_leaves_it_to_python(
    listed: list[tuple[int, bytes]],
    end: bytes,
    damage: tuple[int, int] | None,
    address: Any,
) -> None:
    body = struct.pack("!HH", 6, len(UFRAG)) + UFRAG if not any(kind == 6 for kind, _ in listed) else b""
    for kind, value in listed:
        body += struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)
    transaction, head = b"transaction!", b"\x00\x01"
    digest = hmac.digest(PASSWORD, head + struct.pack("!H", len(body) + 24) + stun.COOKIE + transaction + body, "sha1")
    body += b"\x00\x08\x00\x14" + digest
    size = struct.pack("!H", len(body) + (8 if end else 0))
    check = head + size + stun.COOKIE + transaction + body
    if end:
        crc = zlib.crc32(check) ^ (0x5354554E if end == b"f" else 0)
        check += struct.pack("!HHI", 0x8028, 4, crc) if end != b"more" else b"12345678"
    if damage is not None:
        place = damage[0] % len(check)
        check = check[:place] + bytes([check[place] ^ damage[1]]) + check[place + 1 :]

    consent = ffi.new("bc_consent *", {"socket": 7, "nomination": 4})
    where = socket_address(VIEWER_AT if address == VIEWER_AT or len(address) == 2 else ("2001:db8::7", 4711, 0, 0))
    consent.address_size, consent.address[0 : len(where)] = len(where), where
    assert lib.bc_consent_open(consent, UFRAG, len(UFRAG), PASSWORD, len(PASSWORD))
    answer, came_from = ffi.new("uint8_t[96]"), socket_address(address)
    length = lib.bc_consent_answer(
        consent, check, len(check), 7, ffi.from_buffer(came_from), len(came_from), 5.0, answer
    )

    expected = b""
    with contextlib.suppress(StunError):
        request = stun.parse(check) if check[0] < 4 else None
        if request is not None and request.ufrag == UFRAG and stun.is_authentic(request, PASSWORD):
            moves = request.use_candidate and request.nomination > 4
            if came_from == where and not request.controlled and not moves:
                expected = stun.success(request.transaction, PASSWORD, address)
    assert bytes(answer)[:length] == expected
    assert (consent.checks, consent.checked_at) == ((1, 5.0) if expected else (0, 0.0))
    assert not lib.bc_consent_answer(
        consent, check, len(check), 8, ffi.from_buffer(came_from), len(came_from), 5.0, answer
    )


async def test_a_viewer_that_has_gone_is_a_stranger(endpoint: Endpoint, connection: Connection) -> None:
    connection.served.peer.close()
    before = endpoint.statistics.strangers
    await connection.say(PLI, PLI)
    assert endpoint.statistics.strangers == before + 2
    assert connection.outlet.plis == 0


async def test_one_viewers_failure_ends_nobody_else(
    endpoint: Endpoint, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("a fault")

    async with Connection(endpoint) as other:
        connection.served.keyframe_needed = fail  # type: ignore[method-assign]
        connection.viewer.send(connection.session.protect_rtcp(PLI))
        await other.say(PLI)
        await connection.served.until(lambda: connection.served.reasons)
        assert connection.served.reasons == ["failed"]
        assert (other.outlet.plis, other.served.reasons) == (1, [])
    assert "a fault" in caplog.text


async def test_reports_over_tcp_are_heard_too(endpoint: Endpoint) -> None:
    async with Connection(endpoint, tcp=True) as connection:
        connection.outlet.left(1.0, 1, 1, 1000)
        await connection.say(PLI + receiver_report() + nack([4]), transport_feedback(1, 0, [0]))
        assert (connection.outlet.plis, connection.outlet.nacks) == (1, 1)
        assert connection.outlet.estimator is not None
        assert connection.outlet.estimator.state(connection.served.now()).measured == 1


async def test_viewers_that_come_and_go_leave_nothing(endpoint: Endpoint) -> None:
    for _ in range(3):
        async with Connection(endpoint) as connection:
            await connection.say(PLI)
            connection.served.peer.close()
    receiver = endpoint._mux.receiver
    if isinstance(receiver, NativeReceiver):
        assert not receiver._listening
        assert not receiver._numbers


async def test_many_datagrams_at_once_are_all_heard(endpoint: Endpoint, connection: Connection) -> None:
    count = 3 * TransportSettings().drain
    reports = [connection.session.protect_rtcp(receiver_report()) for _ in range(90)]
    await connection.say(*reports, *[b"\x80\x60"] * count, plain=True)
    assert endpoint.statistics.media_dropped == count
    assert connection.outlet.rtcp_failures == connection.outlet.rtcp_dropped == 0


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(KEY_SIZES)),
    st.lists(st.tuples(parts, st.integers(0, 3)), min_size=1, max_size=12),
    st.sampled_from((socket.AF_INET, socket.AF_INET6)),
    st.integers(1, 12),
)
def test_an_outlet_learns_the_same_from_both_receivers(
    profile: int, packets: list[tuple[bytes, int]], family: socket.AddressFamily, rate: int
) -> None:
    """Each packet comes 1 tick later than the one before; some are damaged (1), repeated (2) or from a stranger (3)."""
    size = KEY_SIZES[profile]
    keys = Keys(profile, bytes(size), b"r" * size)
    say = Session(Policy(key=keys.rx_key, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile))
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with (
        socket.socket(family, socket.SOCK_DGRAM) as server,
        socket.socket(family, socket.SOCK_DGRAM) as viewer,
        socket.socket(family, socket.SOCK_DGRAM) as stranger,
    ):
        server.bind((host, 0))
        viewer.bind((host, 0))
        path: Any = type("Nowhere", (), {"is_tcp": True})()
        outlets = [
            Outlet(
                WITH_TRANSPORT,
                keys,
                path,
                CLOCK,
                settings=OutletSettings(rtcp_rate=rate),
                randbelow=lambda below: 9 % below,
            )
            for _ in range(2)
        ]
        one, two = outlets
        for outlet in outlets:
            outlet.left(49.0, 0, 0x8000, 0x8000 * 1000)
        mux = Mux(None, TransportSettings())  # type: ignore[arg-type]
        kernel = NativeReceiver(mux)._receiver
        inbox = two.open_inbox()
        where = socket_address(viewer.getsockname())
        assert lib.bc_learn(kernel, where, len(where), inbox.state)
        batch = ffi.new("bc_batch *")
        now = 50.0
        for packet, fate in packets:
            data = say.protect_rtcp(packet)
            if len(data) > TransportSettings().datagram_size:
                continue
            if fate == 1:
                data = data[:-1] + bytes([data[-1] ^ 1])
            now += 0.01
            for _ in range(2 if fate == 2 else 1):
                (stranger if fate == 3 else viewer).sendto(data, server.getsockname())
                assert lib.bc_drain(kernel, server.fileno(), 64, now, batch) == 1
                assert batch.left == 0
                assert batch.dropped_strangers == (fate == 3)
                two.hear(now)
                if fate != 3:
                    one.receive_rtcp(data, now)
        assert one.feedback == two.feedback
        for name in ("plis", "nacks", "rtcp_failures", "rtcp_dropped"):
            assert getattr(one, name) == getattr(two, name)
        size = ffi.sizeof("bc_path")
        assert bytes(ffi.buffer(one.state.path, size)) == bytes(ffi.buffer(two.state.path, size))


@pytest.mark.parametrize("address", [("127.0.0.1", 5), ("255.1.2.3", 65_535), ("fe80::1", 80, 7, 3), ("::", 1, 0, 0)])
def test_addresses_pass_through_the_kernels_form(address: Any) -> None:
    assert address_tuple(ffi.from_buffer(socket_address(address))) == address


def test_the_table_of_addresses_finds_each_and_forgets_each() -> None:
    luck = random.Random(1)
    kernel = NativeReceiver(Mux(None, TransportSettings()))._receiver  # type: ignore[arg-type]
    batch = ffi.new("bc_batch *")
    known: set[int] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        senders = []
        try:
            for _ in range(150):
                sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sender.bind(("127.0.0.1", 0))
                senders.append(sender)
            for _ in range(1500):
                number = luck.randrange(len(senders))
                where = socket_address(senders[number].getsockname())
                if luck.random() < 0.5:
                    lib.bc_learn(kernel, where, len(where), ffi.NULL)
                    known.add(number)
                else:
                    lib.bc_forget(kernel, where, len(where))
                    known.discard(number)
                asked = luck.randrange(len(senders))
                senders[asked].sendto(b"\x80\xc9", server.getsockname())
                assert lib.bc_drain(kernel, server.fileno(), 64, 0.0, batch) == 1
                assert (batch.left, batch.dropped_strangers) == ((1, 0) if asked in known else (0, 1))
        finally:
            for sender in senders:
                sender.close()


async def test_the_fastest_receiver_is_taken_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mux = Mux(None, TransportSettings())  # type: ignore[arg-type]
    caplog.clear()
    monkeypatch.delenv(CHOICE, raising=False)
    assert isinstance(default_receiver(mux), NativeReceiver)
    assert caplog.messages == ["datagrams are received by the C kernel"]
    monkeypatch.setenv(CHOICE, "python")
    assert isinstance(default_receiver(mux), PythonReceiver)
    monkeypatch.setenv(CHOICE, "fast")
    with pytest.raises(ConfigurationError, match="'fast'; it can be native or python"):
        default_receiver(mux)


@pytest.mark.parametrize(("name", "value", "reason"), [("lib", None, "not built"), ("DIRECT", False, "signatures")])
async def test_without_a_kernel_python_receives_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: Any, reason: str
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.delenv(CHOICE, raising=False)
    monkeypatch.setattr(native, name, value)
    mux = Mux(None, TransportSettings())  # type: ignore[arg-type]
    assert isinstance(mux.receiver, PythonReceiver)
    assert reason in caplog.messages[-1]
    monkeypatch.setenv(CHOICE, "native")
    with pytest.raises(ConfigurationError, match=reason):
        default_receiver(mux)


def test_both_languages_take_batches_of_the_same_size() -> None:
    header = (ROOT / "workers" / "forward" / "receive.h").read_text()
    assert f"#define BC_BATCH {receive._BATCH}\n" in header


def test_no_sanitizer_finds_anything(tmp_path: Path) -> None:
    harness, sources = tmp_path / "harness", ROOT / "workers" / "forward"
    flags = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all", f"-I{sources}"]
    parts = ("feedback.c", "estimate.c", "consent.c")
    files = [ROOT / "tests" / "receive_harness.c", *(sources / part for part in parts)]
    command: list[Any] = [
        os.environ.get("CC", "cc"),
        *flags,
        "-fsanitize=address,undefined",
        *files,
        "-lm",
        "-o",
        harness,
    ]
    subprocess.run(command, check=True)
    rounds = str(50 * int(os.environ.get("SANITIZER_ROUNDS", "600")))
    done = subprocess.run([harness, rounds, "1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
