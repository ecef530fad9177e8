"""Both receivers: what viewers say arrives, the same by either, and what nobody should say costs nothing."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.handmade_viewer import check, seen, session
from tests.listened_viewer import Connection
from tests.transport_feedback import transport_feedback
from tests.viewer_reports import BYE, COMPOUND, PLI, nack, receiver_report, remb
from workers.forward import OutletSettings
from workers.forward.outlet import Outlet
from workers.transport import Endpoint
from workers.transport.mux import TransportSettings
from workers.transport.receive import NativeReceiver


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
    assert state.measured == 2
    assert state.loss == pytest.approx(1 / 3)
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
    await seen(endpoint, before + 1)
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
        await seen(endpoint, before + 1)
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


async def test_a_viewer_that_has_gone_is_a_stranger(endpoint: Endpoint, connection: Connection) -> None:
    connection.served.peer.close()
    before = endpoint.statistics.strangers
    await connection.say(PLI, PLI)
    assert endpoint.statistics.strangers == before + 2
    assert connection.outlet.plis == 0


async def test_one_viewers_failure_ends_nobody_else(
    endpoint: Endpoint, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(outlet: Outlet, patient: bool) -> None:
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
    mux, receiver = endpoint._mux, endpoint._mux.receiver
    assert not (mux.by_ufrag or mux.by_address or mux.peers)
    if isinstance(receiver, NativeReceiver):
        assert not receiver._listening
        assert not receiver._numbers


async def test_many_datagrams_at_once_are_all_heard(endpoint: Endpoint, connection: Connection) -> None:
    count = 3 * TransportSettings().drain
    reports = [connection.session.protect_rtcp(receiver_report()) for _ in range(90)]
    await connection.say(*reports, *[b"\x80\x60"] * count, plain=True)
    assert endpoint.statistics.media_dropped == count
    assert connection.outlet.rtcp_failures == connection.outlet.rtcp_dropped == 0
