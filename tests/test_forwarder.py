"""One stream's frames to its viewers: who gets what, and what is asked of the broadcaster."""

from __future__ import annotations

from tests.forward_stage import Selector, Stage
from tests.rtp_viewer import CLOCK, RtpViewer, frame
from tests.viewer_reports import PLI, nack
from workers.forward.fanout import PythonFanout
from workers.forward.forwarder import Forwarder


def test_a_frame_costs_nothing_to_viewers_of_other_rungs() -> None:
    stage = Stage()
    with RtpViewer() as one, RtpViewer() as two:
        low, high = Selector(2), Selector(0)
        stage.forwarder.attach(one.outlet, low)
        stage.forwarder.attach(two.outlet, high)
        for rung in (0, 1, 2):
            stage.forwarder.frame(frame(rung, rung=rung, keyframe=True))
        assert [seen.rung for seen in low.asked] == [2]
        assert [seen.rung for seen in high.asked] == [0]


def test_a_switch_asks_for_a_keyframe_and_keeps_the_old_rung_until_it_comes() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        selector = Selector(1)
        stage.forwarder.attach(viewer.outlet, selector)
        stage.forwarder.frame(frame(1, rung=1, keyframe=True))
        selector.waiting_for = 0
        stage.forwarder.reselect(viewer.outlet)
        assert stage.requests == [1, 0]
        stage.forwarder.frame(frame(2, rung=1))
        stage.forwarder.frame(frame(2, rung=0))
        stage.forwarder.frame(frame(3, rung=0, keyframe=True))
        stage.forwarder.frame(frame(4, rung=1))
        stage.forwarder.frame(frame(5, rung=0))
        assert [index for index, _ in stage.fanout.sent] == [1, 2, 3, 5]
        assert stage.demands == [{1: 1}, {0: 1, 1: 1}, {0: 1}]


def test_a_selector_that_begins_to_wait_on_its_own_is_noticed() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        selector = Selector(0)
        stage.forwarder.attach(viewer.outlet, selector)
        stage.forwarder.frame(frame(1, keyframe=True))
        selector.waiting_for = 0
        stage.forwarder.frame(frame(2))
        assert stage.requests == [0, 0]


def test_a_keyframe_that_does_not_come_is_asked_for_again() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        stage.forwarder.attach(viewer.outlet, Selector(0))
        stage.forwarder.tick(100.9)
        assert stage.requests == [0]
        stage.now = 101.0
        stage.forwarder.tick(101.0)
        assert stage.requests == [0, 0]
        stage.forwarder.frame(frame(1, keyframe=True))
        stage.forwarder.tick(110.0)
        assert stage.requests == [0, 0]


def test_lost_pictures_ask_for_the_viewers_rung_and_are_coalesced() -> None:
    stage = Stage()
    with RtpViewer() as one, RtpViewer() as two, RtpViewer() as fresh:
        for viewer in (one, two):
            stage.forwarder.attach(viewer.outlet, Selector(1))
        stage.forwarder.frame(frame(1, rung=1, keyframe=True))
        one.say(PLI, stage.now)
        two.say(PLI, stage.now)
        assert stage.requests == [1, 1]
        stage.forwarder.attach(fresh.outlet, Selector(0))
        fresh.say(PLI, stage.now)
        assert stage.requests == [1, 1, 0], "it has no picture that it could have lost"


def test_who_loses_pictures_without_end_waits_patiently_and_nobody_with_it() -> None:
    stage = Stage()
    with RtpViewer() as one, RtpViewer() as two:
        for viewer in (one, two):
            stage.forwarder.attach(viewer.outlet, Selector(1))
        for index in range(20):
            stage.forwarder.frame(frame(index, rung=1, keyframe=True))
            one.say(PLI, stage.now + index)
        assert (len(stage.requests), len(stage.patient)) == (6, 15), "the first was for the newcomers"
        two.say(PLI, stage.now + 20)
        assert len(stage.requests) == 7, "although a patient request is on its way"


def test_demand_is_told_when_it_changes_and_only_then() -> None:
    stage = Stage()
    with RtpViewer() as one, RtpViewer() as two:
        stage.forwarder.attach(one.outlet, Selector(0))
        stage.forwarder.attach(two.outlet, Selector(0))
        stage.forwarder.frame(frame(1, keyframe=True))
        stage.forwarder.reselect(one.outlet)
        assert stage.demands == [{0: 1}, {0: 2}]
        assert stage.forwarder.demand == {0: 2}
        stage.forwarder.detach(one.outlet)
        stage.forwarder.detach(two.outlet)
        assert stage.demands[2:] == [{0: 1}, {}]
        assert len(stage.forwarder) == 0


def test_the_departed_get_nothing_and_leave_twice_in_peace() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        stage.forwarder.attach(viewer.outlet, Selector(0))
        stage.forwarder.detach(viewer.outlet)
        stage.forwarder.detach(viewer.outlet)
        stage.forwarder.frame(frame(1, keyframe=True))
        viewer.say(PLI, stage.now)
        stage.forwarder.tick(stage.now + 5)
        assert stage.fanout.sent == []
        assert stage.requests == [0]


def test_an_empty_frame_is_not_sent() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        stage.forwarder.attach(viewer.outlet, Selector(0))
        stage.forwarder.frame(frame(1, keyframe=True))
        stage.forwarder.frame(frame(2, size=0))
        assert [index for index, _ in stage.fanout.sent] == [1]


def test_sender_reports_keep_their_rhythm() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        stage.forwarder.attach(viewer.outlet, Selector(0))
        stage.forwarder.tick(100.1)
        assert viewer.datagrams() == []
        counts = []
        for tenth in range(2, 80):
            if tenth < 40:
                stage.forwarder.frame(frame(tenth, keyframe=True))
                viewer.datagrams()
            stage.forwarder.tick(100 + tenth / 10)
            counts.append(len(viewer.datagrams()))
        assert sum(counts[:38]) == 4
        assert sum(counts[38:]) == 2, "one report too many or too few after the last packet"
        assert max(counts) == 1


def test_a_tick_each_second_reports_each_second_although_it_is_a_little_early_or_late() -> None:
    stage = Stage()
    with RtpViewer() as viewer:
        stage.forwarder.attach(viewer.outlet, Selector(0))
        reports = 0
        for second in range(20):
            stage.forwarder.frame(frame(second, keyframe=True))
            viewer.datagrams()
            stage.forwarder.tick(100.5 + second + (0.01 if second % 2 else -0.01))
            reports += len(viewer.datagrams())
        assert reports == 20


def test_a_newcomer_gets_sender_reports_sooner_after_one_another() -> None:
    fanout = PythonFanout(CLOCK, lambda: 100.0)
    forwarder = Forwarder(fanout, lambda rung, patient: None, lambda demand: None, monotonic=lambda: 100.0)
    with RtpViewer() as viewer:
        forwarder.attach(viewer.outlet, Selector(0))
        reported = []
        for second in range(30):
            forwarder.frame(frame(second, keyframe=True))
            viewer.datagrams()
            forwarder.tick(100.0 + second)
            reported += [second] * len(viewer.datagrams())
        assert reported == [0, 1, 3, 7, 12, 17, 22, 27]


def test_a_lost_packet_is_sent_again_on_the_wire() -> None:
    with RtpViewer() as viewer:
        forwarder = Forwarder(
            PythonFanout(CLOCK, lambda: 100.0), lambda rung, patient: None, lambda demand: None, monotonic=lambda: 100.0
        )
        forwarder.attach(viewer.outlet, Selector(0))
        forwarder.frame(frame(1, keyframe=True))
        received = viewer.received()
        viewer.say(nack([received[2].sequence]), 100.05)
        (again,) = viewer.received()
        assert again.payload == received[2].sequence.to_bytes(2, "big") + received[2].payload
        assert viewer.outlet.retransmissions == 1
