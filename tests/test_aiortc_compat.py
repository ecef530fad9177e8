"""A contract test for each private name of aiortc that workers/transport/aiortc_compat.py rests on.

When one fails after an upgrade, that module has to follow aiortc; the names of the tests say where.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
from aiortc import RTCCertificate, RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport, rtcdtlstransport
from aiortc.rtcdtlstransport import SRTP_PROFILES, State
from OpenSSL import SSL

from workers.transport import aiortc_compat
from workers.transport.aiortc_compat import Certificate, DtlsServer, SrtpKeys


class Cable:
    """What RTCDtlsTransport takes for an ICE transport; ends that are plugged together."""

    role = "controlling"

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self.deliver: Callable[[bytes], object] = lambda data: None

    async def _recv(self) -> bytes:
        return await self.waiting.get()

    async def _send(self, data: bytes) -> None:
        self.deliver(data)


class Pair:
    """A DtlsServer and a stock client of aiortc."""

    def __init__(self) -> None:
        self.closed: list[bool] = []
        self.cable = Cable()
        self.certificate = Certificate.generateCertificate()
        self.server = DtlsServer(
            self.certificate, self.cable.waiting.put_nowait, lambda: self.closed.append(True), queue=8
        )
        self.cable.deliver = self.server.feed
        self.client_certificate = RTCCertificate.generateCertificate()
        self.client = RTCDtlsTransport(self.cable, [self.client_certificate])  # type: ignore[arg-type]
        self.client._set_role("client")

    async def connect(self, fingerprint: str | None = None) -> SrtpKeys | None:
        mine = self.client_certificate.getFingerprints()[0]
        handshake = asyncio.create_task(self.server.handshake(mine.algorithm, fingerprint or mine.value))
        await asyncio.sleep(0)
        parameters = RTCDtlsParameters([RTCDtlsFingerprint("sha-256", self.certificate.fingerprint)])
        await asyncio.wait_for(self.client.start(parameters), 5)
        return await asyncio.wait_for(handshake, 5)

    async def end(self) -> None:
        await self.client.stop()
        task = self.server.shutdown()
        if task is not None:
            await asyncio.wait([task])


def source(name: str) -> str:
    return inspect.getsource(getattr(RTCDtlsTransport, name))


def test_the_transport_reads_role_recv_and_send_and_nothing_else_of_its_ice_transport() -> None:
    tree = ast.parse(inspect.getsource(rtcdtlstransport))
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "transport"
    }
    assert read == {"role", "_recv", "_send"}


def test_every_method_that_is_overridden_or_called_exists() -> None:
    assert list(inspect.signature(RTCDtlsTransport._setup_srtp).parameters) == ["self"]
    assert list(inspect.signature(RTCDtlsTransport._set_state).parameters) == ["self", "state"]
    assert list(inspect.signature(RTCDtlsTransport._set_role).parameters) == ["self", "role"]
    assert list(inspect.signature(RTCCertificate._create_ssl_context).parameters) == ["self", "srtp_profiles"]
    assert inspect.iscoroutinefunction(RTCDtlsTransport.start)


def test_start_uses_what_is_overridden() -> None:
    assert "self._setup_srtp()" in source("start")
    assert "_create_ssl_context(" in source("start")
    assert "srtp_profiles=self._srtp_profiles" in source("start")
    assert "self._task = " in source("start")


def test_the_states_that_are_compared_exist() -> None:
    assert {state.name for state in State} == {"NEW", "CONNECTING", "CONNECTED", "CLOSED", "FAILED"}


async def test_the_attributes_that_are_read_exist_on_a_stock_transport() -> None:
    stock = RTCDtlsTransport(Cable(), [RTCCertificate.generateCertificate()])  # type: ignore[arg-type]
    assert (stock._ssl, stock._task, stock._state, stock._role) == (None, None, State.NEW, "auto")
    assert stock._srtp_profiles == SRTP_PROFILES


async def test_the_pump_survives_without_srtp_sessions() -> None:
    """DtlsServer makes none, so the pump must not touch them for what reaches it."""
    pair = Pair()
    await pair.connect()
    assert [vars(pair.server)[name] for name in ("_rx_srtp", "_tx_srtp")] == [None, None]
    pump = pair.server._task
    pair.server.feed(b"\x80\xc9\x00\x01")
    await asyncio.sleep(0)
    assert pump is not None
    assert not pump.done()
    await pair.end()


async def test_the_exported_keys_are_those_of_a_stock_setup() -> None:
    pair = Pair()
    keys = await pair.connect()
    assert keys is not None
    assert pair.client._ssl is not None
    name = pair.client._ssl.get_selected_srtp_profile()
    profile = next(one for one in SRTP_PROFILES if one.openssl_profile == name)
    material = pair.client._ssl.export_keying_material(
        b"EXTRACTOR-dtls_srtp", 2 * (profile.key_length + profile.salt_length)
    )
    assert keys == SrtpKeys(
        profile.libsrtp_profile, profile.get_key_and_salt(material, 1), profile.get_key_and_salt(material, 0)
    )
    await pair.end()


async def test_the_cheapest_profile_is_chosen() -> None:
    pair = Pair()
    await pair.connect()
    assert pair.server._ssl is not None
    assert pair.server._ssl.get_selected_srtp_profile() == b"SRTP_AEAD_AES_128_GCM"
    await pair.end()


async def test_one_context_serves_all_and_keeps_no_sessions() -> None:
    certificate = Certificate.generateCertificate()
    context = certificate._create_ssl_context(SRTP_PROFILES)
    assert certificate._create_ssl_context(SRTP_PROFILES) is context
    assert context.get_session_cache_mode() == SSL.SESS_CACHE_OFF


async def test_the_records_are_those_of_dtls_1_2() -> None:
    """The guard reads record headers; those of DTLS 1.3 look different."""
    pair = Pair()
    await pair.connect()
    assert pair.server._ssl is not None
    assert pair.server._ssl.get_protocol_version_name() == "DTLSv1.2"
    await pair.end()


async def test_a_wrong_fingerprint_gives_no_keys() -> None:
    pair = Pair()
    assert await pair.connect("00:" * 31 + "00") is None
    assert pair.server.state == "failed"
    await pair.end()


async def test_the_peers_goodbye_is_heard_once() -> None:
    pair = Pair()
    await pair.connect()
    await pair.client.stop()
    async with asyncio.timeout(2):
        while not pair.closed:
            await asyncio.sleep(0.005)
    await pair.end()
    assert pair.closed == [True]


async def test_our_goodbye_is_heard_and_not_echoed() -> None:
    pair = Pair()
    await pair.connect()
    task = pair.server.shutdown()
    assert task is not None
    await asyncio.wait([task])
    async with asyncio.timeout(2):
        while pair.client.state != "closed":
            await asyncio.sleep(0.005)
    assert pair.closed == []
    assert pair.server.shutdown() is None


async def test_a_handshake_that_openssl_gives_up_on_is_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    async def give_up(*_: object) -> None:
        raise SSL.Error("too many timeouts")

    pair = Pair()
    monkeypatch.setattr(RTCDtlsTransport, "start", give_up)
    assert await pair.server.handshake("sha-256", "00") is None


def test_private_names_are_touched_in_one_module_only() -> None:
    """Names with an underscore on aiortc's or aioice's objects, anywhere in the project's packages."""
    root = Path(aiortc_compat.__file__).parents[2]
    private = {"_ssl", "_rx_srtp", "_tx_srtp", "_set_role", "_rtp_router", "_create_ssl_context", "_setup_srtp",
               "_srtp_profiles", "_set_state", "_recv_next", "_write_ssl"}  # fmt: skip
    found = {
        path.name
        for package in ("broadcaster", "workers", "gateway")
        for path in (root / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in private
    }
    assert found == {"aiortc_compat.py"}
