"""Viewers on one port: joining, media, moving, restarting, leaving."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from broadcaster.errors import ConfigurationError, OfferError
from tests.handmade_viewer import Served, Viewer, check, plays, serve
from tests.lossy_relay import Impairment, LossyRelay
from workers.transport import Endpoint, SrtpKeys, TransportSettings

IMPATIENT = TransportSettings(consent_timeout=0.3, connect_timeout=0.3, tick=0.05)


@pytest_asyncio.fixture
async def impatient(receiver: str) -> AsyncIterator[Endpoint]:
    one = await Endpoint.open(range(1), settings=IMPATIENT)
    yield one
    await one.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_viewer_joins_plays_and_leaves(endpoint: Endpoint, host: str) -> None:
    served, viewer = serve(endpoint, host)
    assert served.peer.state == "new"
    async with viewer:
        await viewer.check()
        assert (served.peer.state, served.keys) == ("checking", [])
        await viewer.handshake(endpoint.fingerprint)
        await served.until(lambda: served.keys)
        assert (viewer.dtls.state, served.peer.state) == ("connected", "connected")
        assert served.peer.path is not None
        assert served.peer.path.address == viewer.address
        assert not served.peer.path.is_tcp
        await plays(served, viewer)
    await served.until(lambda: served.reasons)
    assert (served.reasons, served.peer.state, endpoint.peers) == (["closed"], "closed", 0)


async def test_the_answer_tells_the_address_that_the_check_came_from(endpoint: Endpoint) -> None:
    for host in ("127.0.0.1", "::1"):
        _, viewer = serve(endpoint, host)
        async with viewer:
            assert (await viewer.check()).attributes["XOR-MAPPED-ADDRESS"] == viewer.address[:2]


async def test_each_answer_leaves_from_the_address_that_was_asked(endpoint: Endpoint) -> None:
    addresses = {candidate.address for candidate in await endpoint.candidates()}
    assert len(addresses) >= 2
    for address in addresses:
        _, viewer = serve(endpoint, address)
        async with viewer:
            viewer.socket.connect((address, endpoint.port))  # from now on it takes nothing from any other address
            await viewer.check()


async def test_twenty_viewers_share_the_port(endpoint: Endpoint) -> None:
    pairs = [serve(endpoint) for _ in range(20)]
    async with contextlib.AsyncExitStack() as all_of_them:
        for _, viewer in pairs:
            await all_of_them.enter_async_context(viewer)
        await asyncio.gather(*(viewer.connect(endpoint.fingerprint) for _, viewer in pairs))
        for served, viewer in pairs:
            await served.until(lambda served=served: served.keys)
            await plays(served, viewer)
        for served, viewer in pairs[:10]:
            await viewer.dtls.stop()
            await served.until(lambda served=served: served.reasons)
        for served, viewer in pairs[10:]:
            await plays(served, viewer)
    assert endpoint.statistics.strangers == endpoint.statistics.malformed == 0


async def test_we_close_and_the_viewer_hears_it_once(endpoint: Endpoint) -> None:
    served, viewer = serve(endpoint)
    async with viewer:
        await viewer.connect(endpoint.fingerprint)
        await served.until(lambda: served.keys)
        served.peer.close("draining")
        served.peer.close()
        assert served.reasons == ["draining"]
        await viewer.until(lambda: viewer.dtls.state == "closed")


async def test_a_silent_viewer_times_out_and_an_audible_one_does_not(impatient: Endpoint) -> None:
    served, viewer = serve(impatient)
    talkative, other = serve(impatient)
    async with viewer, other:
        await viewer.connect(impatient.fingerprint)
        await other.connect(impatient.fingerprint)
        started = asyncio.get_running_loop().time()
        while not served.reasons:
            talkative.peer.alive()
            await asyncio.sleep(0.02)
        assert served.reasons == ["timeout"]
        assert asyncio.get_running_loop().time() - started >= 0.25
        assert talkative.reasons == []
        await talkative.until(lambda: talkative.reasons)
        assert talkative.reasons == ["timeout"]


async def test_checks_keep_consent(impatient: Endpoint) -> None:
    served, viewer = serve(impatient)
    async with viewer:
        await viewer.connect(impatient.fingerprint)
        for _ in range(10):
            await viewer.check()
            await asyncio.sleep(0.06)
        assert served.reasons == []


async def test_a_viewer_that_never_comes_fails(impatient: Endpoint) -> None:
    served, _ = serve(impatient)
    await served.until(lambda: served.reasons)
    assert served.reasons == ["failed"]


async def test_checks_alone_do_not_hold_a_place(impatient: Endpoint) -> None:
    served, viewer = serve(impatient)
    async with viewer:
        while not served.reasons:
            viewer.send(check(viewer.ufrag, viewer.password))
            await asyncio.sleep(0.05)
        assert viewer.answers
        assert served.reasons == ["failed"]


async def test_another_certificate_than_announced_fails(endpoint: Endpoint) -> None:
    served, viewer = serve(endpoint)
    _, impostor = serve(endpoint)
    impostor.ufrag, impostor.password = viewer.ufrag, viewer.password
    async with impostor:
        await impostor.check()
        handshake = asyncio.create_task(impostor.handshake(endpoint.fingerprint))
        await served.until(lambda: served.reasons)
        await handshake
        assert (served.reasons, served.keys) == (["failed"], [])


async def test_a_new_port_of_the_viewer_keeps_its_session(endpoint: Endpoint) -> None:
    served, viewer = serve(endpoint)
    async with viewer:
        await viewer.connect(endpoint.fingerprint)
        await served.until(lambda: served.keys)
        before = viewer.address
        await viewer.open()
        assert served.peer.path is not None
        assert viewer.address != before == served.peer.path.address
        await viewer.check()
        assert served.peer.path.address == viewer.address
        await plays(served, viewer)
        assert (len(served.keys), served.reasons) == (1, [])


async def test_a_nat_rebinding_keeps_the_session(endpoint: Endpoint) -> None:
    async with LossyRelay(("127.0.0.1", endpoint.port), seed=1) as relay:
        served, viewer = serve(endpoint, port=relay.port)
        async with viewer:
            await viewer.connect(endpoint.fingerprint)
            await served.until(lambda: served.keys)
            relay.rebind()
            await viewer.check()
            await plays(served, viewer)


async def test_a_check_without_nomination_does_not_move_the_path(endpoint: Endpoint) -> None:
    served, viewer = serve(endpoint)
    async with viewer:
        await viewer.connect(endpoint.fingerprint)
        path = served.peer.path
        elsewhere = Viewer(viewer.server, viewer.ufrag, viewer.password)
        async with elsewhere:
            await elsewhere.check(use_candidate=False)
            assert served.peer.path is path
            await elsewhere.check(use_candidate=True)
            assert served.peer.path is not None
            assert served.peer.path.address == elsewhere.address


async def test_what_one_viewer_makes_us_remember_is_bounded(endpoint: Endpoint) -> None:
    served, viewer = serve(endpoint)
    async with viewer:
        await viewer.connect(endpoint.fingerprint)
        await served.until(lambda: served.keys)
        for _ in range(20):
            async with Viewer(viewer.server, viewer.ufrag, viewer.password) as elsewhere:
                await elsewhere.check(use_candidate=False)
        assert len(served.peer.addresses) == TransportSettings().addresses_per_peer
        await plays(served, viewer)


async def test_an_ice_restart_keeps_the_session_and_retires_the_old_pair_at_the_first_new_check(
    endpoint: Endpoint,
) -> None:
    served, viewer = serve(endpoint)
    async with viewer:
        await viewer.connect(endpoint.fingerprint)
        await served.until(lambda: served.keys)
        old = (viewer.ufrag, viewer.password)
        new = served.peer.restart()
        assert new == (served.peer.ufrag, served.peer.password) != old
        await viewer.check()
        viewer.ufrag, viewer.password = new
        await viewer.open()
        await viewer.check()
        await plays(served, viewer)
        viewer.ufrag, viewer.password = old
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(viewer.check(), 0.1)


async def test_three_restarts_in_a_row_leave_two_pairs(endpoint: Endpoint) -> None:
    served, viewer = serve(endpoint)
    pairs = [(viewer.ufrag, viewer.password), *(served.peer.restart() for _ in range(3))]
    async with viewer:
        for pair, valid in zip(pairs, (False, False, True, True), strict=True):
            viewer.ufrag, viewer.password = pair
            if valid:
                await viewer.check()
            else:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(viewer.check(), 0.1)


@pytest.mark.parametrize("seed", range(3))
async def test_a_handshake_survives_loss_in_both_directions(endpoint: Endpoint, seed: int) -> None:
    """The last flight included, which is repeated only because the viewer repeats its own after our handshake."""
    bad = Impairment(loss_down=0.25, loss_up=0.25, delay=0.005)
    async with LossyRelay(("127.0.0.1", endpoint.port), seed=seed) as relay:
        served, viewer = serve(endpoint, port=relay.port)
        async with viewer:
            await viewer.check()
            relay.impairment = bad
            await asyncio.wait_for(viewer.handshake(endpoint.fingerprint), 30)
            relay.impairment = Impairment()
            assert viewer.dtls.state == "connected"
            await served.until(lambda: served.keys)
            await plays(served, viewer)


async def test_the_lost_last_flight_is_sent_again(endpoint: Endpoint) -> None:
    async with LossyRelay(("127.0.0.1", endpoint.port), seed=1) as relay:
        served, viewer = serve(endpoint, port=relay.port)
        connected = served.connected

        def connected_in_the_dark(keys: SrtpKeys) -> None:
            relay.impairment = Impairment(loss_down=1.0)
            connected(keys)

        served.peer._on_connected = connected_in_the_dark
        relay.impairment = Impairment(delay=0.01)
        async with viewer:
            await viewer.check()
            handshake = asyncio.create_task(viewer.handshake(endpoint.fingerprint))
            await served.until(lambda: served.keys)
            while relay.down.lost == 0:
                await asyncio.sleep(0.005)
            assert viewer.dtls.state == "connecting"
            relay.impairment = Impairment()
            await asyncio.wait_for(handshake, 5)
            await plays(served, viewer)


@pytest.mark.parametrize("where", ["on_connected", "on_rtcp", "on_closed"])
async def test_an_exception_in_a_callback_ends_that_viewer_alone(
    endpoint: Endpoint, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    good, other = serve(endpoint)
    served, viewer = serve(endpoint)
    setattr(served.peer, f"_{where}", fail)
    async with viewer, other:
        await other.connect(endpoint.fingerprint)
        await viewer.connect(endpoint.fingerprint)
        await viewer.dtls._send_rtp(bytes.fromhex("80c90001000000ff"))
        if where == "on_closed":
            served.peer.close()
        else:
            await served.until(lambda: served.reasons)
            assert served.reasons == ["failed"]
        await plays(good, other)
    assert served.peer.state == "closed"
    assert [record.exc_info is not None for record in caplog.records if record.levelno >= logging.ERROR] == [True]


async def test_an_address_that_cannot_be_reached_is_a_counted_drop(endpoint: Endpoint) -> None:
    served, viewer = serve(endpoint)
    async with viewer:
        await viewer.connect(endpoint.fingerprint)
        path = served.peer.path
        assert path is not None
        for address in (("127.0.0.1", 0), ("255.255.255.255", 9), ("127.0.0.1", 9)):
            path.address = address
            path.send(b"nobody")
        assert endpoint.statistics.sends_dropped >= 2
        path.address = viewer.address
        assert path.send(bytearray(b"\x80 a buffer"))
        assert path.send(memoryview(b"\x80 a view"))
        await viewer.until(lambda: len(viewer.datagrams) == 2)


async def test_too_large_a_datagram_and_a_closed_socket_are_counted_drops() -> None:
    endpoint = await Endpoint.open(range(1))
    served, viewer = serve(endpoint)
    async with viewer:
        await viewer.connect(endpoint.fingerprint)
        path = served.peer.path
        assert path is not None
        assert not path.send(bytes(70_000))
        await endpoint.close()
        assert not path.send(b"late")
        assert endpoint.statistics.sends_dropped == 2
        assert served.reasons == ["closed"]


async def test_the_first_free_port_of_the_range_is_taken_and_freed_again() -> None:
    first = await Endpoint.open(range(1))
    ports = range(first.port, first.port + 1)
    with pytest.raises(ConfigurationError, match=rf"port {first.port} must be free for UDP and TCP"):
        await Endpoint.open(ports)
    wider = range(first.port, min(first.port + 50, 65536))
    second = await Endpoint.open(wider)
    assert second.port in wider[1:]
    await first.close()
    again = await Endpoint.open(ports)
    assert again.port == first.port
    await again.close()
    await second.close()


async def test_certificates_differ_between_endpoints_and_have_the_usual_form(endpoint: Endpoint) -> None:
    other = await Endpoint.open(range(1))
    await other.close()
    assert endpoint.fingerprint != other.fingerprint
    assert len(bytes.fromhex(endpoint.fingerprint.replace(":", ""))) == 32


async def test_a_fingerprint_that_nobody_can_verify_is_refused(endpoint: Endpoint) -> None:
    served = Served()
    with pytest.raises(OfferError, match=r"uses md5: offer one of sha-256"):
        endpoint.accept(
            remote_fingerprint=("md5", "00"),
            on_connected=served.connected,
            on_rtcp=served.received,
            on_closed=served.closed,
        )
    assert endpoint.peers == 0


@pytest.mark.parametrize(("glance", "seen"), [(0.0, 2), (60.0, 1)])
async def test_a_frame_is_an_occasion_to_look_at_the_sockets(receiver: str, glance: float, seen: int) -> None:
    settings = TransportSettings(pause=60.0, idle_pause=60.0, glance=glance)
    endpoint = await Endpoint.open(range(1), announce=["127.0.0.1"], settings=settings)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(bytes([200]), ("127.0.0.1", endpoint.port))
            async with asyncio.timeout(5):
                while endpoint.statistics.datagrams < 1:
                    await asyncio.sleep(0.001)
            stranger.sendto(bytes([200]), ("127.0.0.1", endpoint.port))
            endpoint.stir()
            assert endpoint.statistics.datagrams == seen
    finally:
        await endpoint.close()
