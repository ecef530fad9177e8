"""FrameSelector: what is accepted can be decoded, in RTP time that only grows, whatever is aimed at."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.adaptation.levels import Level
from broadcaster.selection import LAG_LIMIT, FrameSelector
from broadcaster.stream import EncodedFrame
from tests.three_rungs import LADDER, LEVELS

PATTERNS = {2: ((0, False), (1, True)), 3: ((0, False), (2, True), (1, True), (2, False))}
TICKS = 3000


def level(rung: int, layer: int) -> Level:
    return next(level for level in LEVELS if (level.rung, level.layer) == (rung, layer))


class Encoder:
    """One rung as libvpx encodes it: layers by pattern since the last keyframe."""

    def __init__(self, rung: int) -> None:
        self.rung = rung
        self.pattern = PATTERNS[LADDER.rungs[rung].layers]
        self.slot = 0
        self.index = -1

    def encode(self, timestamp: int, keyframe: bool = False) -> EncodedFrame:
        self.index += 1
        self.slot = 0 if keyframe or self.index == 0 else (self.slot + 1) % len(self.pattern)
        layer, sync = self.pattern[self.slot]
        key = keyframe or self.index == 0
        return EncodedFrame(self.rung, self.index, timestamp & 0xFFFFFFFF, key, layer, sync, b"")


class Decoder:
    """Knows which frames it has, and what each one needs: the strictest reading of the layers.

    A sync frame needs the last base frame; any other frame needs the last frame of its layer and of all below it.
    """

    def __init__(self) -> None:
        self.newest: dict[tuple[int, int], int] = {}
        self.had: set[tuple[int, int]] = set()
        self.rung: int | None = None

    def encoded(self, frame: EncodedFrame, accepted: bool) -> None:
        needs = []
        if not frame.keyframe:
            layers = [0] if frame.sync else range(frame.layer + 1)
            needs = [index for layer in layers if (index := self.newest.get((frame.rung, layer))) is not None]
        if accepted:
            if frame.keyframe:
                self.rung = frame.rung
            assert frame.rung == self.rung, "a rung began without a keyframe"
            for index in needs:
                assert (frame.rung, index) in self.had, f"{frame} needs frame {index}, which was left out"
            self.had.add((frame.rung, frame.index))
        if frame.keyframe:
            for place in [place for place in self.newest if place[0] == frame.rung]:
                del self.newest[place]
        self.newest[frame.rung, frame.layer] = frame.index


picture = st.tuples(
    st.one_of(st.none(), st.sampled_from(LEVELS)),
    st.permutations([0, 1, 2]),
    st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(picture, min_size=1, max_size=80), st.sampled_from(LEVELS), st.integers(0, 2**32 - 1))
def test_whatever_is_accepted_can_be_decoded_and_time_grows(
    pictures: list[tuple[Level | None, list[int], bool]], start: Level, origin: int
) -> None:
    selector, decoder = FrameSelector(LEVELS, start), Decoder()
    encoders = [Encoder(rung) for rung in range(3)]
    last: int | None = None
    for number, (aim, order, on_demand) in enumerate(pictures):
        if aim is not None:
            selector.aim(aim)
        wanted = selector.waiting_for if on_demand else None
        for rung in order:
            frame = encoders[rung].encode(origin + number * TICKS, keyframe=rung == wanted)
            steady, current = selector.steady, selector.current
            accepted = selector.accepts(frame)
            decoder.encoded(frame, accepted)
            if steady is not None:
                assert current is not None
                assert accepted == (rung == current.rung and frame.layer <= steady), "it should have been asked"
                assert selector.steady == steady
                assert not accepted or selector.timestamp == frame.timestamp
            if accepted:
                assert selector.current is not None
                assert selector.current.rung == rung
                assert frame.layer <= selector.current.layer
                if last is not None:
                    assert 0 < (selector.timestamp - last) & 0xFFFFFFFF < 2**31, "RTP time went back"
                last = selector.timestamp


def feed(selector: FrameSelector, encoder: Encoder, timestamps: range) -> list[EncodedFrame]:
    return [frame for ts in timestamps if selector.accepts(frame := encoder.encode(ts))]


def test_nothing_before_the_first_keyframe() -> None:
    selector, encoder = FrameSelector(LEVELS, level(1, 2)), Encoder(1)
    assert (selector.current, selector.waiting_for) == (None, 1)
    first = encoder.encode(0)
    assert not selector.accepts(encoder.encode(3000))
    assert selector.accepts(first)
    assert (selector.current, selector.waiting_for) == (level(1, 2), None)


def test_layers_drop_at_once_and_climb_at_sync_frames() -> None:
    selector, encoder = FrameSelector(LEVELS, level(1, 2)), Encoder(1)
    assert len(feed(selector, encoder, range(0, 8 * TICKS, TICKS))) == 8
    selector.aim(level(1, 0))
    assert selector.current == level(1, 0)
    assert [frame.layer for frame in feed(selector, encoder, range(8 * TICKS, 16 * TICKS, TICKS))] == [0, 0]
    selector.aim(level(1, 1))
    assert [frame.layer for frame in feed(selector, encoder, range(16 * TICKS, 20 * TICKS, TICKS))] == [0, 1]
    selector.aim(level(1, 2))
    assert [frame.layer for frame in feed(selector, encoder, range(20 * TICKS, 24 * TICKS, TICKS))] == [0, 2, 1, 2]


def test_the_old_rung_goes_on_until_the_keyframe_and_is_no_faster_than_the_target() -> None:
    selector, old, new = FrameSelector(LEVELS, level(1, 2)), Encoder(1), Encoder(2)
    new.encode(0)
    feed(selector, old, range(0, 4 * TICKS, TICKS))
    selector.aim(level(2, 1))
    assert (selector.waiting_for, selector.current) == (2, level(1, 1))
    frames = feed(selector, old, range(4 * TICKS, 8 * TICKS, TICKS))
    assert [frame.layer for frame in frames] == [0, 1]
    assert not selector.accepts(new.encode(8 * TICKS))
    assert selector.accepts(new.encode(9 * TICKS, keyframe=True))
    assert (selector.waiting_for, selector.current) == (None, level(2, 1))
    assert not selector.accepts(old.encode(9 * TICKS)), "the picture was shown already"


def test_the_best_rung_has_fewer_frames_as_soon_as_its_successor_shall() -> None:
    selector, old = FrameSelector(LEVELS, level(0, 1)), Encoder(0)
    assert len(feed(selector, old, range(0, 4 * TICKS, TICKS))) == 4
    selector.aim(level(2, 0))
    assert (selector.waiting_for, selector.current) == (2, level(0, 0))
    frames = feed(selector, old, range(4 * TICKS, 8 * TICKS, TICKS))
    assert [frame.layer for frame in frames] == [0, 0]


def test_a_better_rung_that_lags_is_taken_at_once_one_tick_later() -> None:
    selector, old, new = FrameSelector(LEVELS, level(2, 2)), Encoder(2), Encoder(0)
    new.encode(0)
    feed(selector, old, range(0, 6 * TICKS, TICKS))
    selector.aim(level(0, 1))
    shown = 5 * TICKS
    assert selector.timestamp == shown
    stamps = []
    for ts in (4 * TICKS, 5 * TICKS, 6 * TICKS, 7 * TICKS):
        assert selector.accepts(new.encode(ts, keyframe=ts == 4 * TICKS))
        stamps.append((selector.timestamp, selector.steady))
    assert stamps == [(shown + 1, None), (shown + 2, None), (6 * TICKS, 1), (7 * TICKS, 1)]


@pytest.mark.parametrize(("lag", "accepted"), [(LAG_LIMIT, True), (LAG_LIMIT + 1, False), (90_000, False)])
def test_a_keyframe_that_lags_too_far_is_left(lag: int, accepted: bool) -> None:
    selector = FrameSelector(LEVELS, level(2, 2))
    assert selector.accepts(EncodedFrame(2, 0, 1000, True, 0, False, b""))
    selector.aim(level(0, 1))
    assert selector.accepts(EncodedFrame(0, 0, (1000 - lag) & 0xFFFFFFFF, True, 0, False, b"")) is accepted
    assert selector.waiting_for == (None if accepted else 0)


def test_turning_back_before_the_keyframe_came_needs_none() -> None:
    selector, encoder = FrameSelector(LEVELS, level(1, 2)), Encoder(1)
    feed(selector, encoder, range(0, 4 * TICKS, TICKS))
    selector.aim(level(2, 0))
    selector.aim(level(1, 2))
    assert selector.waiting_for is None
    frames = feed(selector, encoder, range(4 * TICKS, 12 * TICKS, TICKS))
    assert [frame.layer for frame in itertools.islice(frames, 4)] == [0, 2, 1, 2]


def test_time_wraps() -> None:
    selector, old, new = FrameSelector(LEVELS, level(1, 2)), Encoder(1), Encoder(2)
    feed(selector, old, range(2**32 - 4 * TICKS, 2**32 + 4 * TICKS, TICKS))
    assert selector.timestamp == 3 * TICKS
    selector.aim(level(2, 2))
    assert selector.accepts(new.encode(4 * TICKS))
    assert selector.timestamp == 4 * TICKS


def test_a_pause_takes_nothing_until_it_is_told_where_to_go_on() -> None:
    selector, encoder = FrameSelector(LEVELS, level(0, 1)), Encoder(0)
    assert selector.accepts(encoder.encode(0, keyframe=True))
    selector.pause()
    assert selector.paused
    assert (selector.current, selector.waiting_for, selector.steady) == (None, None, None)
    assert not selector.accepts(encoder.encode(TICKS, keyframe=True))
    selector.aim(level(0, 1))
    assert not selector.paused
    assert selector.waiting_for == 0
    assert not selector.accepts(encoder.encode(2 * TICKS))
    assert selector.accepts(encoder.encode(3 * TICKS, keyframe=True))
    assert selector.current == level(0, 1)


def test_a_start_on_another_rung_ends_with_the_keyframe_of_the_own_one() -> None:
    selector, decoder = FrameSelector(LEVELS, level(0, 1), entry=2), Decoder()
    own, entry = Encoder(0), Encoder(2)
    own.index = 5  # nobody needs a keyframe of it yet
    assert (selector.entry, selector.waiting_for, selector.current) == (2, 0, None)
    times = []
    for number in range(20):
        timestamp = number * TICKS
        for encoder in (entry, own):
            frame = encoder.encode(timestamp, keyframe=encoder is own and number == 11)
            accepted = selector.accepts(frame)
            decoder.encoded(frame, accepted)
            if accepted:
                times.append((frame.rung, selector.timestamp))
        if number == 5:
            assert (selector.entry, selector.waiting_for, selector.current) == (None, 0, level(2, 2))
            assert selector.steady is None
    assert [rung for rung, _ in times] == [2] * 12 + [0] * 9
    assert [stamp for _, stamp in times] == sorted({stamp for _, stamp in times})
    assert (selector.waiting_for, selector.current) == (None, level(0, 1))


def test_a_start_has_no_more_frames_than_the_target() -> None:
    selector = FrameSelector(LEVELS, level(0, 0), entry=2)
    assert selector.accepts(Encoder(2).encode(0))
    assert selector.current == level(2, 1)


def test_the_own_rung_is_a_start_too_and_after_a_restart_the_only_one() -> None:
    selector = FrameSelector(LEVELS, level(2, 2), entry=2)
    assert (selector.entry, selector.waiting_for) == (None, 2)
    selector = FrameSelector(LEVELS, level(1, 2), entry=2)
    selector.relevel(LEVELS, level(1, 2), restart=True)
    assert (selector.entry, selector.waiting_for) == (None, 1)
    assert not selector.accepts(Encoder(2).encode(0))
