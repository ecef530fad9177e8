"""A viewer's feedback, and how little of it is passed on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from aiortc.rtp import RtcpPacket, RtcpReceiverInfo, RtcpRrPacket, RtcpSdesPacket, RtcpSrPacket
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.ladder import KeyframeGate
from broadcaster.stream import timestamp_at
from tests.outlet_listener import NOW, listening
from tests.rtp_viewer import CLOCK, PARAMETERS, RtpViewer, frame
from tests.viewer_reports import BYE, COMPOUND, FIR, PLI, nack, remb
from workers.forward.fanout import Audience, PythonFanout
from workers.forward.outlet import OutletSettings


def report(lost: int, highest: int, *, jitter: int = 0, lsr: int = 0, dlsr: int = 0) -> bytes:
    info = RtcpReceiverInfo(
        ssrc=PARAMETERS.ssrc,
        fraction_lost=255,
        packets_lost=lost,
        highest_sequence=highest,
        jitter=jitter,
        lsr=lsr,
        dlsr=dlsr,
    )
    return bytes(RtcpRrPacket(ssrc=1, reports=[info]))


def test_loss_is_that_of_the_last_interval() -> None:
    with RtpViewer(start=1000) as viewer:
        feedback = viewer.outlet.feedback
        assert (feedback.loss, feedback.packets_lost, feedback.packets_expected) == (None, None, 0)
        viewer.say(report(5, 1099), NOW)
        assert (feedback.loss, feedback.packets_lost, feedback.packets_expected) == (0.05, 5, 100)
        viewer.say(report(5, 1299), NOW + 1)
        assert (feedback.loss, feedback.packets_lost, feedback.packets_expected) == (0.0, 5, 300)
        viewer.say(report(55, 1399), NOW + 2)
        assert feedback.loss == 0.5
        viewer.say(report(50, 1499), NOW + 3)
        assert (feedback.loss, feedback.packets_lost) == (0.0, 50), "duplicates make the count fall"
        assert feedback.reported_at == NOW + 3


def test_a_report_without_progress_keeps_the_last_loss() -> None:
    with RtpViewer(start=1000) as viewer:
        viewer.say(report(5, 1099), NOW)
        viewer.say(report(5, 1099), NOW + 1)
        viewer.say(report(9, 1050), NOW + 2)
        viewer.say(report(9, 1099 + 0x10000), NOW + 2)
        assert (viewer.outlet.feedback.loss, viewer.outlet.feedback.packets_expected) == (0.05, 100)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**23), 2**23 - 1), st.integers(0, 2**32 - 1))))
def test_loss_stays_a_fraction_whatever_is_reported(reports: list[tuple[int, int]]) -> None:
    with RtpViewer() as viewer:
        for number, (lost, highest) in enumerate(reports):
            viewer.say(report(lost, highest), NOW + number)
            loss = viewer.outlet.feedback.loss
            assert loss is None or 0.0 <= loss <= 1.0


def test_round_trip_time_comes_from_the_sender_report_that_is_echoed() -> None:
    with RtpViewer() as viewer:
        sent = CLOCK.ntp_middle(NOW)
        viewer.say(report(0, 0, lsr=sent, dlsr=int(0.5 * 65536), jitter=900), NOW + 0.58)
        assert viewer.outlet.feedback.rtt == pytest.approx(0.08, abs=1e-4)
        assert viewer.outlet.feedback.jitter == pytest.approx(0.01)


@pytest.mark.parametrize(("lsr", "dlsr"), [(0, 0), (0, 65536), (CLOCK.ntp_middle(NOW), 2 * 65536), (1, 0)])
def test_round_trip_times_that_cannot_be_are_ignored(lsr: int, dlsr: int) -> None:
    with RtpViewer() as viewer:
        viewer.say(report(0, 0, lsr=lsr, dlsr=dlsr), NOW + 1)
        assert viewer.outlet.feedback.rtt is None


def test_round_trip_time_survives_the_wrap_of_ntp() -> None:
    second = 65_536 - CLOCK.ntp(0.0) // 2**32 % 65_536
    with RtpViewer() as viewer:
        viewer.say(report(0, 0, lsr=CLOCK.ntp_middle(second - 0.05)), second + 0.05)
        assert viewer.outlet.feedback.rtt == pytest.approx(0.1, abs=1e-3)


def test_remb_is_kept_with_its_arrival() -> None:
    with RtpViewer() as viewer:
        viewer.say(remb(2_000_000), NOW)
        assert (viewer.outlet.feedback.remb, viewer.outlet.feedback.remb_at) == (2_000_000, NOW)


def test_an_absurd_remb_is_bounded() -> None:
    with RtpViewer() as viewer:
        viewer.say(remb(0x3FFFF << 45), NOW)
        assert viewer.outlet.feedback.remb == 10_000_000_000


def test_feedback_on_another_stream_is_ignored() -> None:
    with RtpViewer(number=1) as viewer:
        listener = listening(viewer)
        viewer.say(COMPOUND, NOW)
        outlet = viewer.outlet
        assert (outlet.plis, outlet.nacks, listener.keyframes) == (0, 0, 0)
        assert (outlet.feedback.remb, outlet.feedback.reported_at) == (None, None)


def test_a_storm_of_picture_losses_asks_for_one_keyframe_each_pause() -> None:
    with RtpViewer() as viewer:
        listener = listening(viewer)
        for number in range(100):
            viewer.say(FIR if number % 2 else PLI, NOW + number / 50)
        assert viewer.outlet.plis == 100
        assert listener.keyframes == 4


def test_who_asks_for_more_than_its_share_becomes_patient() -> None:
    with RtpViewer() as viewer:
        listener = listening(viewer)
        for number in range(60 * 50):
            viewer.say(PLI, NOW + number / 50)
        assert listener.patient[:5] == [False] * 4 + [True]
        assert listener.patient.count(False) in {9, 10}
        viewer.say(PLI, NOW + 200)
        assert not listener.patient[-1], "who has been quiet is served at once again"


def test_a_storm_of_picture_losses_costs_those_who_watch_what_newcomers_do() -> None:
    gate, made = KeyframeGate(), []
    with RtpViewer() as viewer:
        listener = listening(viewer)
        for picture in range(60 * 30):
            now = NOW + picture / 30
            viewer.say(PLI, now)
            while listener.patient:
                gate.request(patient=listener.patient.pop())
            if gate.due(now):
                made.append(now - NOW)
                gate.made(now)
    assert made[:4] == pytest.approx([0.0, 0.5, 1.0, 1.5], abs=0.05), "an honest viewer in trouble is helped"
    rate = len([at for at in made if at > 20]) / 40
    assert 3 * rate / 30 < 0.031, "a keyframe takes the place of four ordinary pictures of the smallest rung"


def test_a_nack_asks_for_what_was_sent() -> None:
    with RtpViewer(start=500) as viewer:
        listener = listening(viewer)
        fanout = PythonFanout(CLOCK, lambda: NOW)
        fanout.send(frame(1), Audience([viewer.outlet]))
        sent = viewer.received()
        viewer.say(nack([501, 503, 600]), NOW + 0.05)
        fanout.resend(viewer.outlet, listener.resent)
        again = viewer.received()
        assert [lost.sequence for lost in listener.resent] == [501, 503]
        assert [packet.payload[2:] for packet in again] == [sent[1].payload, sent[3].payload]
        assert viewer.outlet.nacks == 3


def test_losses_that_a_long_queue_made_too_old_ask_for_a_keyframe_once_it_is_gone() -> None:
    """Players wait for seconds before they ask by themselves."""
    with RtpViewer(start=500) as viewer:
        listener = listening(viewer)
        PythonFanout(CLOCK, lambda: NOW).send(frame(1, keyframe=True), Audience([viewer.outlet]))
        viewer.outlet.congested = True
        viewer.say(nack([501, 502]), NOW + 1.2)
        assert (listener.resent, listener.keyframes) == ([], 0)
        viewer.outlet.congested = False
        viewer.say(nack([501]), NOW + 1.4)
        assert listener.keyframes == 1
        PythonFanout(CLOCK, lambda: NOW + 1.5).send(frame(2, keyframe=True), Audience([viewer.outlet]))
        viewer.say(nack([501, 502]), NOW + 2.0)
        assert listener.keyframes == 1, "it has left"


def test_without_retransmission_nacks_are_only_counted() -> None:
    with RtpViewer(start=500, parameters=replace(PARAMETERS, rtx_payload_type=None)) as viewer:
        listener = listening(viewer)
        PythonFanout(CLOCK, lambda: NOW).send(frame(1), Audience([viewer.outlet]))
        viewer.say(nack([500]), NOW)
        assert (viewer.outlet.nacks, listener.resent) == (1, [])


def test_a_viewer_that_nobody_serves_may_speak() -> None:
    with RtpViewer() as viewer:
        viewer.say(COMPOUND, NOW)
        assert viewer.outlet.plis == 1


def test_goodbye_is_noticed() -> None:
    with RtpViewer() as viewer:
        assert not viewer.outlet.feedback.goodbye
        viewer.say(BYE, NOW)
        assert viewer.outlet.feedback.goodbye


def test_forged_and_malformed_rtcp_is_counted() -> None:
    with RtpViewer() as viewer:
        viewer.outlet.receive_rtcp(b"", NOW)
        viewer.outlet.receive_rtcp(PLI + bytes(20), NOW)
        viewer.outlet.receive_rtcp(bytes(3000), NOW)
        viewer.say(b"\x82" + report(0, 0)[1:], NOW)
        assert viewer.outlet.rtcp_failures == 4


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_hostile_datagrams_never_raise(datagram: bytes) -> None:
    with RtpViewer() as viewer:
        viewer.outlet.receive_rtcp(datagram, NOW)
        assert viewer.outlet.rtcp_failures == 1


def test_a_flood_of_rtcp_is_dropped_unread() -> None:
    with RtpViewer(settings=OutletSettings(rtcp_rate=50)) as viewer:
        for number in range(1000):
            viewer.say(PLI, NOW + number / 1000)
        assert 99 <= viewer.outlet.plis <= 101
        assert viewer.outlet.plis + viewer.outlet.rtcp_dropped == 1000


def test_a_sender_report_says_what_was_sent_and_when() -> None:
    with RtpViewer() as viewer:
        viewer.outlet.report(NOW)
        assert viewer.datagrams() == [], "there is nothing to report on"
        PythonFanout(CLOCK, lambda: NOW).send(frame(1), Audience([viewer.outlet]))
        viewer.received()
        viewer.outlet.report(NOW + 0.25)
        (datagram,) = viewer.datagrams()
        report, description = RtcpPacket.parse(viewer.decrypt_rtcp(datagram))
        assert isinstance(report, RtcpSrPacket)
        assert isinstance(description, RtcpSdesPacket)
        info = report.sender_info
        assert (info.packet_count, info.octet_count) == (4, 4000 + 4 * 6)
        assert info.ntp_timestamp == CLOCK.ntp(NOW + 0.25)
        assert info.rtp_timestamp == timestamp_at(CLOCK.wall(NOW + 0.25))
        assert description.chunks[0].items == [(1, b"beamcast")]
