"""Retransmission: the right bytes, and never more than is fair."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.history_sender import LIMITS, Sender
from workers.forward.history import HistoryLimits
from workers.forward.packets import CHUNK_SIZE


@settings(deadline=None)
@given(st.integers(0, 200_000), st.lists(st.integers(1, 5 * CHUNK_SIZE), min_size=1, max_size=30))
def test_every_recent_packet_is_found_with_its_first_bytes(start: int, sizes: list[int]) -> None:
    sender = Sender(HistoryLimits(burst=10**9), start)
    numbers = [number for index, size in enumerate(sizes) for number in sender.send(index, 1.0, size)]
    found = sender.ask(numbers, 1.5)
    assert [packet.sequence for packet in found] == numbers
    assert [packet[3:] for packet in found] == [sender.packets[number] for number in numbers]
    assert [packet.sequence for packet in found if packet.marker] == [
        packet.sequence
        for packet, after in zip(found, [*found[1:], None], strict=True)
        if after is None or after.timestamp != packet.timestamp
    ]


@settings(deadline=None)
@given(st.lists(st.integers(0, 0xFFFF)))
def test_what_was_never_sent_is_never_resent(lost: list[int]) -> None:
    sender = Sender(start=1000)
    sent = sender.send(0, 1.0)
    assert {packet.sequence for packet in sender.ask(lost, 1.1)} == set(lost) & set(sent)


def test_an_empty_history_has_nothing() -> None:
    assert Sender().ask([0, 1, 0xFFFF], 1.0) == []


def test_too_old_is_gone() -> None:
    sender = Sender()
    (number, *_) = sender.send(0, 1.0)
    assert sender.ask([number], 1.0 + LIMITS.age + 0.01) == []


def test_what_is_too_old_is_missed_until_a_keyframe_leaves() -> None:
    sender = Sender()
    lost = sender.send(0, 1.0)
    late = 1.0 + LIMITS.age + 0.01
    assert sender.ask(lost, late) == []
    assert (sender.history.ignored, sender.history.unaffordable) == (len(lost), len(lost))
    sender.state.key_index += 1
    assert sender.ask(lost, late + 0.1) == []
    assert (sender.history.ignored, sender.history.unaffordable) == (2 * len(lost), len(lost))


def test_more_frames_than_are_remembered_are_gone() -> None:
    sender = Sender()
    first = sender.send(0, 1.0)
    for index in range(LIMITS.frames):
        sender.send(index, 1.0, size=10)
    assert sender.ask(first, 1.0) == []


def test_repeats_wait_for_a_round_trip_and_stop_after_six() -> None:
    sender = Sender()
    (number, *_) = sender.send(0, 1.0)
    sent = [now for now in range(0, 600, 5) if sender.ask([number], 1.0 + now / 1000, rtt=0.0799)]
    assert sent == [0, 80, 160, 240, 320, 400]
    assert sender.history.ignored == 120 - 6


def test_what_was_repeated_in_vain_is_missed_once_its_last_repeat_can_be_there() -> None:
    sender = Sender()
    (number, *_) = sender.send(0, 1.0)
    times = [1.0 + 0.11 * turn for turn in range(LIMITS.resends)]
    assert all(sender.ask([number], now, rtt=0.1) for now in times)
    assert sender.ask([number], times[-1] + 0.09, rtt=0.1) == []
    assert sender.history.unaffordable == 0
    assert sender.ask([number], times[-1] + 0.11, rtt=0.1) == []
    assert sender.history.unaffordable == 1


def test_an_unknown_or_tiny_round_trip_still_makes_repeats_wait() -> None:
    for rtt, pause in ((None, LIMITS.unknown_rtt), (0.001, LIMITS.shortest)):
        sender = Sender()
        (number, *_) = sender.send(0, 1.0)
        assert len(sender.ask([number, number], 1.0, rtt)) == 1
        assert not sender.ask([number], 1.0 + pause - 0.001, rtt)
        assert sender.ask([number], 1.0 + pause + 0.001, rtt)


def test_what_pictures_wait_for_goes_first_and_on_a_tight_path_alone() -> None:
    for tight in (False, True):
        sender = Sender()
        before = sender.send(0, 1.0, CHUNK_SIZE)
        sender.state.key_index += 1
        higher = sender.send(1, 1.0, CHUNK_SIZE, layer=1)
        missed = sender.send(2, 1.0, 2 * CHUNK_SIZE)
        found = [packet.sequence for packet in sender.ask(before + higher + missed, 1.1, tight=tight)]
        assert found == (missed if tight else missed + before + higher)
        assert (sender.history.ignored, sender.history.unaffordable) == (2 if tight else 0, 0)


def test_a_keyframe_is_repaired_though_all_was_spent_on_what_came_before_it() -> None:
    sender = Sender()
    lost = sender.send(0, 1.0, 20 * CHUNK_SIZE)
    assert 0 < len(sender.ask(lost, 1.1, tight=True)) < len(lost)
    assert sender.ask(lost, 1.2, tight=True) == []
    sender.state.key_index += 1
    keyframe = sender.send(1, 1.2, 3 * CHUNK_SIZE)
    assert [packet.sequence for packet in sender.ask(lost + keyframe, 1.3, tight=True)] == keyframe


def test_a_tight_path_gets_no_copies() -> None:
    sender = Sender()
    lost = sender.send(0, 1.0, CHUNK_SIZE)
    assert [packet.sequence for packet in sender.ask(lost, 1.1, copies=2, tight=True)] == lost


def test_of_many_at_once_none_goes_twice() -> None:
    few, many = (Sender(HistoryLimits(burst=10**6)) for _ in range(2))
    lost = few.send(0, 1.0, LIMITS.few * CHUNK_SIZE)
    assert len(few.ask(lost, 1.1, copies=2)) == 2 * LIMITS.few
    lost = many.send(0, 1.0, (LIMITS.few + 1) * CHUNK_SIZE)
    assert len(many.ask(lost, 1.1, copies=2)) == LIMITS.few + 1


class LoopingViewer(RuleBasedStateMachine):
    """A viewer that asks for anything at any time gets its share, one burst and some for each keyframe, and each packet
    at most six times."""

    def __init__(self) -> None:
        super().__init__()
        self.sender = Sender(HistoryLimits(burst=20_000, share=0.5))
        self.now = 1.0
        self.index = 0
        self.resent = self.keyframes = 0
        self.times: dict[bytes, int] = {}
        self.sizes: dict[int, int] = {}

    @rule(size=st.integers(1, 20_000), pause=st.floats(0, 0.1), keyframe=st.booleans())
    def send(self, size: int, pause: float, keyframe: bool) -> None:
        self.now += pause
        self.keyframes += keyframe
        self.sender.state.key_index = (self.sender.state.key_index + keyframe) % 32
        self.index += 1
        self.sizes[self.index] = size
        self.sender.send(self.index, self.now, size)

    @rule(pause=st.floats(0, 0.3), times=st.integers(1, 4), copies=st.integers(1, 3), tight=st.booleans())
    def loop(self, pause: float, times: int, copies: int, tight: bool) -> None:
        for _ in range(times):
            self.now += pause
            everything = [(self.sender.following - back) & 0xFFFF for back in range(100)]
            found = self.sender.ask(everything, self.now, rtt=0.0, copies=copies, tight=tight)
            self.resent += sum(self.sender.octets_of([packet], self.sizes[packet.serial]) for packet in found)
            for packet in set(found):
                key = packet.sequence.to_bytes(2, "big") + packet.descriptor
                self.times[key] = self.times.get(key, 0) + 1

    @invariant()
    def fair(self) -> None:
        assert self.resent <= 20_000 + 0.5 * self.sender.octets + LIMITS.tight_burst * self.keyframes
        assert max(self.times.values(), default=0) <= LIMITS.resends


TestLoopingViewer = LoopingViewer.TestCase
TestLoopingViewer.settings = settings(deadline=None, max_examples=40)


def test_a_second_of_looped_nacks_returns_less_than_was_sent() -> None:
    sender = Sender()
    resent = 0
    for millisecond in range(1000):
        if millisecond % 33 == 0:
            sender.send(millisecond, 1.0 + millisecond / 1000)
        everything = [(sender.following - back) & 0xFFFF for back in range(1, 17)]
        found = sender.ask(everything, 1.0 + millisecond / 1000, rtt=0.001)
        resent += sender.octets_of(found, 3000)
    assert resent <= sender.octets + LIMITS.burst
