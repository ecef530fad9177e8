"""What is sent beyond the media: packets of a probe, how they are paced, and how resends heed the path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.forward_stage import Selector
from tests.history_sender import LIMITS, Sender
from tests.outlet_listener import NOW, listening
from tests.rtp_viewer import CLOCK, PARAMETERS, WITH_TRANSPORT, RtpViewer, frame
from tests.viewer_reports import nack
from workers.forward.fanout import Audience, Fanout, PythonFanout
from workers.forward.forwarder import Forwarder, ForwarderSettings

SIZE = 3000


def test_a_probe_is_made_of_what_was_sent_last(fanout: Callable[[], Fanout]) -> None:
    with RtpViewer() as viewer:
        sender = fanout()
        sender.send(frame(1, size=SIZE), Audience([viewer.outlet]))
        sent = viewer.received()
        octets = viewer.outlet.wire_octets
        assert sender.probe(viewer.outlet, 2 * SIZE) == 2 * len(sent)
        again = viewer.received()
        assert {packet.ssrc for packet in again} == {PARAMETERS.rtx_ssrc}
        assert [packet.payload[2:] for packet in again] == 2 * [packet.payload for packet in reversed(sent)]
        assert viewer.outlet.probe_packets == 2 * len(sent)
        assert viewer.outlet.wire_octets - octets == sum(packet.datagram_size for packet in again)


def test_no_probe_where_nothing_can_be_resent(fanout: Callable[[], Fanout]) -> None:
    with (
        RtpViewer() as new,
        RtpViewer(parameters=replace(PARAMETERS, rtx_payload_type=None)) as plain,
    ):
        sender = fanout()
        sender.send(frame(1), Audience([plain.outlet]))
        plain.received()
        assert sender.probe(new.outlet, 5000) == sender.probe(plain.outlet, 5000) == 0
        assert new.received() == plain.received() == []


def test_a_distant_viewers_feedback_on_a_probe_is_understood(fanout: Callable[[], Fanout]) -> None:
    with RtpViewer(parameters=WITH_TRANSPORT) as viewer:
        sender, estimator = fanout(), viewer.outlet.estimator
        assert estimator is not None
        numbers: list[int] = []
        for picture in range(20):
            sender.send(frame(picture, size=SIZE), Audience([viewer.outlet]))
            assert sender.probe(viewer.outlet, 24_000) > 20
            found = [int.from_bytes(packet.extensions[3], "big") for packet in viewer.received()]
            numbers = numbers or found
        estimator.arrived(NOW + 0.7, [(number, 4 * number) for number in numbers])
        assert estimator.state(NOW + 0.7).measured == 1
        assert estimator.state(NOW + 0.7).loss == 0.0


class Stream:
    """A viewer of 30 frames of 3000 octets a second: 720 kbit/s of media."""

    def __init__(self, viewer: RtpViewer) -> None:
        self.now, self.index, self.viewer = 100.0, 0, viewer
        sender = PythonFanout(CLOCK, lambda: self.now)
        self.forwarder = Forwarder(
            sender,
            lambda rung, patient: None,
            lambda demand: None,
            settings=ForwarderSettings(),
            monotonic=lambda: self.now,
        )
        self.forwarder.attach(viewer.outlet, Selector(0))

    def run(self, seconds: float) -> float:
        """The bit/s that left, in all."""
        before = self.viewer.outlet.wire_octets
        for _ in range(round(30 * seconds)):
            self.now += 1 / 30
            self.forwarder.frame(frame(self.index, size=SIZE, keyframe=self.index == 0))
            self.index += 1
            self.viewer.received()
        return 8 * (self.viewer.outlet.wire_octets - before) / seconds


def test_a_probe_makes_up_what_is_missing_and_no_more() -> None:
    with RtpViewer() as viewer:
        stream = Stream(viewer)
        media = stream.run(1.0)
        stream.forwarder.probe(viewer.outlet, 2 * media)
        assert stream.run(2.0) == pytest.approx(2 * media, rel=0.06)
        stream.forwarder.probe(viewer.outlet, 0.5 * media)
        stream.run(0.2)
        assert stream.run(1.0) == pytest.approx(media, rel=0.01)
        stream.forwarder.probe(viewer.outlet, 0.0)
        assert stream.run(1.0) == pytest.approx(media, rel=0.01)


def test_a_probe_may_be_limited_in_octets() -> None:
    with RtpViewer() as viewer:
        stream = Stream(viewer)
        media = stream.run(1.0)
        stream.forwarder.probe(viewer.outlet, 4 * media, octets=6000)
        for _ in range(10):
            stream.run(0.1)
            stream.forwarder.probe(viewer.outlet, 4 * media, octets=6000)
        assert 4500 <= viewer.outlet.probe_octets <= 7500


def test_whoever_has_left_is_probed_no_more() -> None:
    with RtpViewer() as viewer:
        stream = Stream(viewer)
        media = stream.run(1.0)
        stream.forwarder.probe(viewer.outlet, 3 * media)
        stream.forwarder.detach(viewer.outlet)
        stream.forwarder.probe(viewer.outlet, 3 * media)
        assert stream.run(1.0) == 0.0


def test_recent_packets_are_forgotten_with_their_age() -> None:
    sender = Sender()
    assert sender.history.recent(5000, now=1.0) == []
    numbers = sender.send(0, 1.0, size=SIZE)
    found = sender.history.recent(1, now=1.0)
    assert [packet.sequence for packet in found] == numbers[-1:]
    assert sender.history.recent(5000, now=1.0 + LIMITS.age + 0.01) == []
    assert sender.ask(numbers, 1.0), "what filled a probe may still be asked for"


def test_copies_are_made_while_there_is_much_to_spend() -> None:
    sender = Sender()
    numbers = sender.send(0, 1.0, size=SIZE)
    found = sender.history.choose(numbers, now=1.0, rtt=0.05, copies=2)
    assert len(found) == 2 * len(numbers)
    spent = sum(sender.octets_of([packet], SIZE) for packet in found)
    poor = Sender(replace(LIMITS, burst=2 * spent, share=0.0))
    lost = [poor.send(index, 1.0, size=SIZE) for index in range(4)]
    found = [packet for numbers in lost for packet in poor.history.choose(numbers, now=1.0, rtt=0.05, copies=2)]
    twice = [packet for packet in found if found.count(packet) == 2]
    assert 0 < poor.octets_of(twice, SIZE) <= spent, "half of the burst at most goes into copies"
    assert len(found) - len(twice) > len(twice)


def test_a_path_without_room_gets_few_resends_and_tells_what_it_could_not_afford() -> None:
    sender = Sender()
    numbers = [number for index in range(6) for number in sender.send(index, 1.0, size=SIZE)]
    found = sender.history.choose(numbers, now=1.0, rtt=0.05, tight=True)
    assert 0 < sender.octets_of(found, SIZE) <= LIMITS.tight_burst
    assert sender.history.unaffordable > 0


@pytest.mark.parametrize("congested", [False, True])
def test_what_cannot_be_repaired_asks_for_a_keyframe_unless_the_queue_would_take_it(congested: bool) -> None:
    with RtpViewer(start=500) as viewer:
        listener = listening(viewer)
        viewer.outlet.tight = True
        viewer.outlet.congested = congested
        sender = PythonFanout(CLOCK, lambda: NOW)
        for index in range(6):
            sender.send(frame(index, size=SIZE), Audience([viewer.outlet]))
        lost = [500 + number for number in range(len(viewer.received()))]
        viewer.say(nack(lost), NOW + 0.05)
        assert len(listener.resent) < len(lost)
        assert listener.keyframes == (0 if congested else 1)
