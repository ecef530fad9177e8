"""Big frames leave in slices, and every viewer still gets what it would have got, in the same order."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.adaptation.levels import Level
from broadcaster.selection import FrameSelector
from broadcaster.stream import EncodedFrame, EncodedSound, Rung, StreamDescription
from tests.rtp_viewer import CLOCK, RtpViewer, StreamPath, frame
from tests.viewer_reports import nack
from workers.forward.fanout import Audience, Fanout, PythonFanout
from workers.forward.forwarder import Forwarder, ForwarderSettings
from workers.forward.history import LostPacket
from workers.forward.native import NativeFanout
from workers.forward.outlet import Outlet
from workers.forward.pacing import Pacer, PacingSettings, call_at
from workers.forward.packets import CHUNK_SIZE

SETTINGS = PacingSettings(at_once=4, interval=0.005, least=3, rate=2.5, spread=0.025, turn=1000, backlog=3)
LADDER = StreamDescription("main", 1, tuple(Rung(f"r{rung}", 64, 36, 30.0, 100_000 - rung, 3) for rung in (0, 1)))
LEVELS = LADDER.levels()


class Loop:
    """A clock, and who is to be called when."""

    class Timer:
        def __init__(self, callback: Callable[[], None]) -> None:
            self.callback: Callable[[], None] | None = callback

        def cancel(self) -> None:
            self.callback = None

    def __init__(self) -> None:
        self.now = 100.0
        self._calls: list[tuple[float, int, Loop.Timer]] = []
        self._count = 0

    def call_at(self, when: float, callback: Callable[[], None]) -> Loop.Timer:
        self._count += 1
        timer = Loop.Timer(callback)
        heapq.heappush(self._calls, (when, self._count, timer))
        return timer

    @property
    def pending(self) -> int:
        return sum(timer.callback is not None for _, _, timer in self._calls)

    def turns(self, seconds: float = 10.0) -> Iterator[float]:
        """Let so much time pass; yields after each callback its time."""
        end = self.now + seconds
        while self._calls and self._calls[0][0] <= end:
            assert self.pending <= 1, "one timer is enough"
            when, _, timer = heapq.heappop(self._calls)
            self.now = max(self.now, when)
            if timer.callback is not None:
                timer.callback()
                yield self.now
        self.now = end

    def run(self, seconds: float = 10.0) -> None:
        for _ in self.turns(seconds):
            pass


class Recorder:
    """A fan-out that remembers what each send was: time, frame, packets, viewers."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.sent: list[tuple[int, int, int, int, tuple[Outlet, ...]]] = []

    def _remember(self, picture: EncodedFrame, first: int, end: int, outlets: Sequence[Outlet]) -> int:
        self.sent.append((round((self._loop.now - 100) * 1000), picture.index, first, end, tuple(outlets)))
        return (end - first) * len(outlets)

    def send(self, frame: EncodedFrame, outlets: Audience) -> int:
        return self._remember(frame, 0, -(-len(frame.payload) // CHUNK_SIZE), outlets)

    def shelve(self, frame: EncodedFrame) -> int:
        return frame.index

    def send_part(self, frame: EncodedFrame, serial: int, outlets: Audience, first: int, end: int) -> int:
        assert serial == frame.index
        return self._remember(frame, first, end, outlets)

    def send_sound(self, sound: EncodedSound, outlets: Audience) -> int:
        raise AssertionError("there is no sound")

    def resend(self, outlet: Outlet, lost: Sequence[LostPacket]) -> int:
        raise AssertionError("nobody asked for it")

    def probe(self, outlet: Outlet, octets: int) -> int:
        raise AssertionError("nobody asked for it")

    @property
    def slices(self) -> list[tuple[int, int, int, int]]:
        """Time in milliseconds, frame, first packet and the one after the last."""
        return [entry[:4] for entry in self.sent]


class Stage:
    """A pacer with everything around it at hand, and some viewers."""

    def __init__(self, stack: ExitStack, viewers: int = 1, settings: PacingSettings = SETTINGS) -> None:
        self.loop = Loop()
        self.fanout = Recorder(self.loop)
        self.pacer = Pacer(self.fanout, settings=settings, call_at=self.loop.call_at, monotonic=lambda: self.loop.now)
        self.outlets = [stack.enter_context(RtpViewer(number=number)).outlet for number in range(viewers)]
        self.audience = Audience.of(self.outlets)

    def send(self, index: int, packets: int, rung: int = 0) -> None:
        self.pacer.send(picture(index, packets, rung), self.audience, [])


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def picture(index: int, packets: int, rung: int = 0, *, keyframe: bool = False) -> EncodedFrame:
    return frame(index, rung=rung, size=packets * CHUNK_SIZE, keyframe=keyframe)


def test_a_small_frame_leaves_at_once_and_whole(stack: ExitStack) -> None:
    stage = Stage(stack)
    for index in (1, 2, 3):
        stage.send(index, 4)
    assert stage.fanout.slices == [(0, 1, 0, 4), (0, 2, 0, 4), (0, 3, 0, 4)]
    assert stage.loop.pending == 0


@pytest.mark.parametrize(
    ("packets", "bitrate", "expected"),
    [
        (7, 0, [(0, 0, 3), (5, 3, 6), (10, 6, 7)]),
        (24, 0, [(0, 0, 5), (5, 5, 10), (10, 10, 15), (15, 15, 20), (20, 20, 24)]),
        (24, 10 * CHUNK_SIZE * 8 * 80, [(0, 0, 10), (5, 10, 20), (10, 20, 24)]),
    ],
)
def test_a_slice_is_as_much_as_the_least_the_time_or_the_bitrate_wants(
    stack: ExitStack, packets: int, bitrate: int, expected: list[tuple[int, int, int]]
) -> None:
    stage = Stage(stack)
    stage.pacer.bitrates = {0: bitrate}
    stage.send(1, packets)
    stage.loop.run()
    assert [(at, first, end) for at, _, first, end in stage.fanout.slices] == expected
    assert stage.loop.pending == 0


def test_a_keyframe_of_100_kilobytes_takes_one_picture_by_default(stack: ExitStack) -> None:
    stage = Stage(stack, settings=PacingSettings())
    stage.pacer.bitrates = {0: 2_500_000}
    stage.pacer.send(frame(1, size=100_000, keyframe=True), stage.audience, [])
    stage.loop.run()
    times = [at for at, *_ in stage.fanout.slices]
    assert times == [0, 5, 10, 15, 20, 25, 30]
    assert max(end - first for _, _, first, end in stage.fanout.slices) == 14


def test_the_next_frames_of_the_rung_follow_in_order_and_other_rungs_do_not_wait(stack: ExitStack) -> None:
    stage = Stage(stack)
    stage.send(1, 7)
    stage.send(2, 1)
    stage.send(3, 7)
    stage.send(10, 2, rung=1)
    stage.loop.run(0.004)
    stage.send(11, 7, rung=1)
    stage.send(12, 1, rung=1)
    stage.loop.run()
    assert stage.fanout.slices[:3] == [(0, 1, 0, 3), (0, 10, 0, 2), (4, 11, 0, 3)]
    of_rungs = [[entry for entry in stage.fanout.slices if (entry[1] >= 10) == rung] for rung in (False, True)]
    assert of_rungs[0] == [
        (0, 1, 0, 3), (5, 1, 3, 6), (10, 1, 6, 7), (10, 2, 0, 1), (10, 3, 0, 3), (15, 3, 3, 6), (20, 3, 6, 7),
    ]  # fmt: skip
    assert of_rungs[1] == [(0, 10, 0, 2), (4, 11, 0, 3), (5, 11, 3, 6), (10, 11, 6, 7), (10, 12, 0, 1)]


@pytest.mark.parametrize("packets", [12, 3])
def test_no_turn_of_the_loop_sends_more_than_it_may(stack: ExitStack, packets: int) -> None:
    stage = Stage(stack, viewers=20, settings=PacingSettings(at_once=4, least=3, spread=0.02, turn=15))
    sent = stage.fanout.sent
    stage.send(1, packets)
    turns = [len(sent)]
    turns += [len(sent) for _ in stage.loop.turns()]
    costs = [(end - first) * len(outlets) for _, _, first, end, outlets in sent]
    assert max(sum(costs[before:after]) for before, after in pairwise([0, *turns])) <= 15
    assert sum(costs) == 20 * packets
    for outlet in stage.outlets:
        parts = [(first, end) for *_, first, end, outlets in sent if outlet in outlets]
        assert parts == [(first, first + 3) for first in range(0, packets, 3)]
    assert sorted({at for at, *_ in sent}) == list(range(0, 5 * packets // 3, 5))


def test_a_rung_with_a_big_audience_lets_others_in_between(stack: ExitStack) -> None:
    stage = Stage(stack, viewers=8, settings=PacingSettings(at_once=4, least=3, spread=0.02, turn=6))
    stage.send(1, 6)
    stage.send(10, 6, rung=1)
    stage.loop.run()
    order = [index for _, index, *_ in stage.fanout.sent]
    assert sorted(order) == [1] * 8 + [10] * 8
    assert max(len(run) for run in "".join("a" if index == 1 else "b" for index in order).split("ab")) < 5


def test_what_waits_is_bounded_and_leaves_in_order(stack: ExitStack) -> None:
    stage = Stage(stack)
    for index in range(1, 6):
        stage.send(index, 5)
    assert stage.fanout.slices == [(0, 1, 0, 3), (0, 1, 3, 5), (0, 2, 0, 5), (0, 3, 0, 5)]
    stage.loop.run()
    assert [entry[1:] for entry in stage.fanout.slices[4:]] == [(4, 0, 3), (4, 3, 5), (5, 0, 3), (5, 3, 5)]


def test_who_leaves_amid_a_frame_gets_no_more_of_it(stack: ExitStack) -> None:
    stage = Stage(stack, viewers=2)
    stage.send(1, 6)
    stage.send(2, 1)
    stage.pacer.forget(stage.outlets[0])
    stage.loop.run()
    assert [outlets for *_, outlets in stage.fanout.sent] == [tuple(stage.outlets), *[(stage.outlets[1],)] * 2]
    stage.send(3, 6)
    for outlet in stage.outlets:
        stage.pacer.forget(outlet)
    stage.loop.run()
    assert len(stage.fanout.sent) == 4
    assert stage.loop.pending == 0


def test_who_changes_rungs_amid_a_frame_gets_the_rest_of_it_first(stack: ExitStack) -> None:
    stage = Stage(stack, viewers=3, settings=PacingSettings(at_once=4, least=3, spread=1.0, turn=4))
    one, two, _ = stage.audience
    stage.send(1, 6)
    stage.send(2, 2)
    stage.pacer.send(picture(10, 1, rung=1), Audience(), [one, two])
    mine, others = ([entry[1:4] for entry in stage.fanout.sent if outlet in entry[4]] for outlet in (one, two))
    assert mine == [(1, 0, 3), (1, 3, 6), (2, 0, 2), (10, 0, 1)]
    assert others == [(1, 0, 6), (2, 0, 2), (10, 0, 1)], "its first slice was still to come"
    stage.loop.run()
    last = [entry[1:4] for entry in stage.fanout.sent if stage.audience[2] in entry[4]]
    assert last == [(1, 0, 3), (1, 3, 6), (2, 0, 2)]
    assert sum(one in entry[4] for entry in stage.fanout.sent) == 4


def test_a_packet_that_has_not_left_yet_is_not_sent_again() -> None:
    with RtpViewer(start=500) as viewer:
        loop = Loop()
        fanout = PythonFanout(CLOCK, lambda: loop.now)
        forwarder = Forwarder(
            fanout,
            lambda rung, patient: None,
            lambda demand: None,
            settings=ForwarderSettings(pacing=SETTINGS),
            monotonic=lambda: loop.now,
            call_at=loop.call_at,
        )
        forwarder.attach(viewer.outlet, FrameSelector(LEVELS, LEVELS[-1]))
        forwarder.frame(picture(1, 9, keyframe=True))
        assert [packet.sequence for packet in viewer.received()] == [500, 501, 502]
        viewer.say(nack([501, 503, 504, 508]), loop.now)
        again = viewer.received()
        assert [packet.payload[:2] for packet in again] == [(501).to_bytes(2, "big")]
        loop.run(0.02)
        assert [packet.sequence for packet in viewer.received()] == list(range(503, 509))
        viewer.say(nack([508]), loop.now)
        assert len(viewer.received()) == 1


async def test_the_event_loop_keeps_the_time() -> None:
    with RtpViewer() as viewer:
        loop = asyncio.get_running_loop()
        fanout = PythonFanout(CLOCK, loop.time)
        pacer = Pacer(fanout, settings=SETTINGS, call_at=call_at, monotonic=loop.time)
        pacer.send(picture(1, 24), Audience([viewer.outlet]), [])
        began, received = loop.time(), viewer.received()
        assert len(received) == 5
        while len(received) < 24:
            received.append(viewer.decrypt(await loop.sock_recv(viewer.socket, 2000)))
        assert loop.time() - began >= 0.015
        assert [packet.marker for packet in received] == [False] * 23 + [True]


UNPACED = PacingSettings(at_once=4096, turn=1_000_000)

frames = st.tuples(st.just("frame"), st.integers(0, 1), st.booleans(), st.integers(1, 14))
joins = st.tuples(st.just("join"), st.integers(0, 4), st.sampled_from(LEVELS), st.just(0))
leaves = st.tuples(st.just("leave"), st.integers(0, 4), st.none(), st.just(0))
aims = st.tuples(st.just("aim"), st.integers(0, 4), st.sampled_from(LEVELS), st.just(0))
waits = st.tuples(st.just("wait"), st.integers(0, 12), st.none(), st.just(0))
"""Kind, number of the rung, the viewer or the milliseconds, whether it is a keyframe or to which level, packets."""
SLOTS = ((0, False), (2, True), (1, True), (2, False))


@pytest.mark.parametrize("make", [PythonFanout, NativeFanout])
@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(LEVELS), min_size=3, max_size=3),
    st.lists(st.one_of(frames, frames, frames, joins, leaves, aims, aims, waits), min_size=10, max_size=60),
    st.builds(
        PacingSettings,
        at_once=st.integers(1, 6),
        least=st.integers(1, 5),
        spread=st.sampled_from([0.01, 0.05]),
        turn=st.integers(1, 30),
        backlog=st.integers(1, 5),
    ),
)
def test_however_it_is_sliced_every_viewer_gets_the_same_datagrams_in_the_same_order(
    make: Callable[[Any, Any], Fanout],
    starts: list[Level],
    steps: list[tuple[str, int, Any, int]],
    pacing: PacingSettings,
) -> None:
    loop = Loop()
    with ExitStack() as stack:
        forwarders = [
            Forwarder(
                make(CLOCK, lambda: 5.0),
                lambda rung, patient: None,
                lambda demand: None,
                settings=ForwarderSettings(pacing=settings),
                monotonic=lambda: loop.now,
                call_at=loop.call_at,
            )
            for settings in (pacing, UNPACED)
        ]
        viewers = [[stack.enter_context(RtpViewer(number=number, start=9)) for number in range(5)] for _ in forwarders]
        streams = [StreamPath(side[0].sender) for side in viewers]
        for (first, *_), stream in zip(viewers, streams, strict=True):
            first.outlet.path = stream
        selectors: list[dict[int, FrameSelector]] = [{}, {}]
        left: set[int] = set()

        def received(side: int, number: int) -> list[bytes]:
            return viewers[side][number].datagrams() if number else streams[side].sent

        got: list[list[list[bytes]]] = [[[] for _ in range(5)] for _ in forwarders]
        opening: list[tuple[str, int, Any, int]] = [("join", number, start, 0) for number, start in enumerate(starts)]
        opening += [("frame", rung, True, 9) for rung in (0, 1)]
        for index, (kind, number, what, packets) in enumerate([*opening, *steps], 10):
            if kind == "wait":
                loop.run(number / 1000)
            for side, forwarder in enumerate(forwarders):
                outlet, selector = viewers[side][number % 5].outlet, selectors[side].get(number)
                if kind == "frame":
                    layer, sync = (0, False) if what else SLOTS[index % 4]
                    payload = bytes([index]) * (packets * CHUNK_SIZE - index)
                    forwarder.frame(EncodedFrame(number, index, index * 3000, what, layer, sync, payload))
                elif kind == "join" and selector is None and number not in left:
                    selectors[side][number] = FrameSelector(LEVELS, what)
                    forwarder.attach(outlet, selectors[side][number])
                elif kind == "leave" and selector is not None:
                    forwarder.detach(outlet)
                    del selectors[side][number]
                    left.add(number)
                elif kind == "aim" and selector is not None:
                    selector.aim(what)
                    forwarder.reselect(outlet)
                for place in range(1, 5):
                    got[side][place] += received(side, place)
        loop.run()
        for number in range(5):
            paced, whole = (got[side][number] + received(side, number) for side in (0, 1))
            assert paced == (whole[: len(paced)] if number in left else whole)
        assert loop.pending == 0
        assert sum(viewer.outlet.drops for side in viewers for viewer in side) == 0
