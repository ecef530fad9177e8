"""DtlsServer against a stock client of aiortc."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
import pytest_asyncio
from aiortc import RTCCertificate, RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport
from aiortc.rtcdtlstransport import SRTP_PROFILES
from OpenSSL import SSL

from tests.patience import until
from workers.transport.aiortc_compat import Certificate
from workers.transport.dtls import DtlsServer, SrtpKeys


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
    """A DtlsServer and a stock client."""

    def __init__(self, algorithm: str = "sha-256", fingerprint: str | None = None) -> None:
        self.keys: list[SrtpKeys] = []
        self.ends: list[str] = []
        self.cable = Cable()
        self.certificate = Certificate.generateCertificate()
        self.client_certificate = RTCCertificate.generateCertificate()
        announced = {one.algorithm: one.value for one in self.client_certificate.getFingerprints()}
        self.server = DtlsServer(
            self.certificate,
            (algorithm, fingerprint or announced[algorithm]),
            self.cable.waiting.put_nowait,
            self.keys.append,
            self.ends.append,
        )
        self.cable.deliver = self.server.feed
        self.client = RTCDtlsTransport(self.cable, [self.client_certificate])  # type: ignore[arg-type]
        self.client._set_role("client")

    async def connect(self) -> None:
        parameters = RTCDtlsParameters([RTCDtlsFingerprint("sha-256", self.certificate.fingerprint)])
        await asyncio.wait_for(self.client.start(parameters), 5)

    async def end(self) -> None:
        await self.client.stop()
        self.server.shutdown()


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-384", "sha-512"])
async def test_the_exported_keys_are_the_clients(algorithm: str) -> None:
    pair = Pair(algorithm)
    await pair.connect()
    assert pair.client._ssl is not None
    name = pair.client._ssl.get_selected_srtp_profile()
    profile = next(one for one in SRTP_PROFILES if one.openssl_profile == name)
    material = pair.client._ssl.export_keying_material(
        b"EXTRACTOR-dtls_srtp", 2 * (profile.key_length + profile.salt_length)
    )
    assert pair.keys == [
        SrtpKeys(profile.libsrtp_profile, profile.get_key_and_salt(material, 1), profile.get_key_and_salt(material, 0))
    ]
    assert pair.ends == []
    await pair.end()


async def test_the_cheapest_profile_is_chosen() -> None:
    pair = Pair()
    await pair.connect()
    assert pair.client._ssl is not None
    assert pair.client._ssl.get_selected_srtp_profile() == b"SRTP_AEAD_AES_128_GCM"
    await pair.end()


async def test_the_records_are_those_of_dtls_1_2() -> None:
    """The guard reads record headers; those of DTLS 1.3 look different."""
    pair = Pair()
    await pair.connect()
    assert pair.client._ssl is not None
    assert pair.client._ssl.get_protocol_version_name() == "DTLSv1.2"
    await pair.end()


async def test_a_fingerprint_in_lower_case_is_the_same() -> None:
    pair = Pair()
    pair.server._fingerprint = "sha-256", pair.server._fingerprint[1].lower()
    await pair.connect()
    assert len(pair.keys) == 1
    await pair.end()


@pytest.mark.parametrize("fingerprint", [":".join(["00"] * 32), "", "AB"])
async def test_another_certificate_than_the_announced_gives_no_keys(fingerprint: str) -> None:
    pair = Pair()
    pair.server._fingerprint = "sha-256", fingerprint
    await pair.connect()
    assert (pair.keys, pair.ends) == ([], ["failed"])
    pair.server.feed(b"\x17\xfe\xfd" + bytes(40))
    await pair.end()
    assert pair.ends == ["failed"]


class Hand:
    """A client that does nothing unasked, so that it repeats nothing either."""

    def __init__(self, server: DtlsServer, certificate: RTCCertificate | None, cipher: bytes | None = None) -> None:
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_tlsext_use_srtp(b"SRTP_AEAD_AES_128_GCM")
        if cipher is not None:
            context.set_cipher_list(cipher)
        if certificate is not None:
            context.use_certificate(certificate._cert)
            context.use_privatekey(certificate._key)
        self.ssl = SSL.Connection(context)
        self.ssl.set_connect_state()
        self.answers: list[bytes] = []
        self._server = server
        server._send = self.answers.append

    def speak(self) -> None:
        """Take the answers that there are, and say what follows."""
        for data in self.answers:
            self.ssl.bio_write(data)
        self.answers.clear()
        with contextlib.suppress(SSL.Error):
            self.ssl.do_handshake()
        with contextlib.suppress(SSL.Error):
            self._server.feed(self.ssl.bio_read(1500))

    def connect(self) -> None:
        for _ in range(3):
            self.speak()
        assert self.is_connected

    @property
    def is_connected(self) -> bool:
        return self.ssl.get_state_string() == b"SSL negotiation finished successfully"

    def goodbye(self) -> bytes:
        self.ssl.shutdown()
        return self.ssl.bio_read(1500)


CIPHERS = [b"ECDHE-ECDSA-AES128-GCM-SHA256", b"ECDHE-ECDSA-CHACHA20-POLY1305", b"ECDHE-ECDSA-AES128-SHA"]


@pytest_asyncio.fixture(params=CIPHERS, ids=bytes.decode)
async def joined(request: pytest.FixtureRequest) -> tuple[Pair, Hand]:
    """A pair whose client says what the test says, after the handshake."""
    pair = Pair()
    hand = Hand(pair.server, pair.client_certificate, request.param)
    hand.connect()
    assert hand.ssl.get_cipher_name() == request.param.decode()
    assert (len(pair.keys), pair.ends) == (1, [])
    return pair, hand


async def test_a_client_without_a_certificate_gives_no_keys() -> None:
    pair = Pair()
    hand = Hand(pair.server, None)
    hand.speak()
    hand.speak()
    assert (pair.keys, pair.ends) == ([], ["failed"])
    assert hand.answers, "it is told so"


async def test_a_client_without_srtp_gives_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    monkeypatch.setattr(SSL.Connection, "get_selected_srtp_profile", lambda _: b"")
    await asyncio.wait([asyncio.ensure_future(pair.connect())])
    assert (pair.keys, pair.ends) == ([], ["failed"])
    await pair.end()


async def test_a_flight_that_is_lost_is_sent_again() -> None:
    pair = Pair()
    hand = Hand(pair.server, pair.client_certificate)
    hand.speak()
    assert len(hand.answers) == 1
    hand.answers.clear()
    await until(lambda: hand.answers)
    hand.speak()
    assert len(pair.keys) == 1


@pytest.mark.parametrize("cipher", CIPHERS)
async def test_the_last_flight_is_sent_again_to_a_client_that_repeats_its_own(cipher: bytes) -> None:
    pair = Pair()
    hand = Hand(pair.server, pair.client_certificate, cipher)
    hand.speak()
    hand.speak()
    assert len(pair.keys) == 1
    hand.answers.clear()
    assert not hand.is_connected
    await asyncio.sleep(hand.ssl.DTLSv1_get_timeout() or 0)
    assert hand.ssl.DTLSv1_handle_timeout()
    repeated = hand.ssl.bio_read(1500)
    pair.server.feed(repeated)
    assert len(hand.answers) == 1
    pair.server.feed(repeated)
    assert len(hand.answers) == 1, "whoever records it gets an answer each time"
    hand.speak()
    assert hand.is_connected
    assert len(pair.keys) == 1


async def test_a_goodbye_ends_the_connection_whatever_the_cipher(joined: tuple[Pair, Hand]) -> None:
    pair, hand = joined
    pair.server.feed(hand.goodbye())
    assert pair.ends == ["closed"]
    hand.answers.clear()
    pair.server.shutdown()
    assert hand.answers == []


async def test_our_goodbye_is_understood_whatever_the_cipher(joined: tuple[Pair, Hand]) -> None:
    pair, hand = joined
    pair.server.shutdown()
    [goodbye] = hand.answers
    hand.ssl.bio_write(goodbye)
    with pytest.raises(SSL.ZeroReturnError):
        hand.ssl.recv(1500)
    pair.server.shutdown()
    assert hand.answers == [goodbye]
    assert pair.ends == []


@pytest.mark.parametrize("cipher", CIPHERS[:2])
async def test_a_forged_goodbye_changes_nothing(cipher: bytes) -> None:
    pair = Pair()
    hand = Hand(pair.server, pair.client_certificate, cipher)
    hand.connect()
    goodbye = hand.goodbye()
    forged = [goodbye[:size] for size in range(len(goodbye))]
    for place in range(len(goodbye)):
        changed = bytearray(goodbye)
        changed[place] ^= 1
        forged.append(bytes(changed))
    for data in forged:
        pair.server.feed(data)
    assert pair.ends == []
    pair.server.feed(goodbye)
    assert pair.ends == ["closed"]


async def test_a_goodbye_behind_other_records_is_heard_whatever_the_cipher(joined: tuple[Pair, Hand]) -> None:
    pair, hand = joined
    hand.ssl.send(b"a word")
    pair.server.feed(hand.ssl.bio_read(1500) + hand.goodbye())
    assert pair.ends == ["closed"]


async def test_openssls_state_does_not_stay_where_browsers_choose_the_cipher() -> None:
    """It is most of what a viewer would take."""
    for cipher, stays in zip(CIPHERS, (False, False, True), strict=True):
        pair = Pair()
        Hand(pair.server, pair.client_certificate, cipher).connect()
        assert (pair.server._ssl is not None) == stays


async def test_a_client_that_falls_silent_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(_: object) -> bool:
        raise SSL.Error("too many timeouts")

    pair = Pair()
    monkeypatch.setattr(SSL.Connection, "DTLSv1_get_timeout", lambda _: 0.01)
    monkeypatch.setattr(SSL.Connection, "DTLSv1_handle_timeout", give_up)
    assert pair.server._ssl is not None
    pair.server._wait(pair.server._ssl)
    await until(lambda: pair.ends)
    assert pair.ends == ["failed"]
    await pair.end()


async def test_nothing_is_sent_again_after_the_handshake() -> None:
    pair = Pair()
    await pair.connect()
    assert pair.server._timer is None
    await pair.end()


async def test_the_clients_goodbye_is_heard_once() -> None:
    pair = Pair()
    await pair.connect()
    await pair.client.stop()
    assert pair.ends == ["closed"]
    await pair.end()
    assert pair.ends == ["closed"]


async def test_our_goodbye_is_heard_and_not_echoed() -> None:
    pair = Pair()
    await pair.connect()
    pair.server.shutdown()
    await until(lambda: pair.client.state == "closed")
    assert pair.ends == []
    pair.server._send = pair.ends.append  # type: ignore[assignment]
    pair.server.shutdown()
    assert pair.ends == []
    await pair.end()
