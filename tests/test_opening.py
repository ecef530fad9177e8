"""What somebody who comes later starts with: few enough frames, and enough to decode."""

from __future__ import annotations

import av
import numpy as np
import pytest

from broadcaster.ladder import KeyframeGate
from broadcaster.ladder.encoder import RungEncoder
from broadcaster.opening import Opening, OpeningSettings
from broadcaster.source.canvas import plane
from broadcaster.source.pattern import TestPattern
from broadcaster.stream import EncodedFrame, Rung

SLOTS = {1: ((0, False),), 2: ((0, False), (1, True)), 3: ((0, False), (2, True), (1, True), (2, False))}


def frames(count: int, layers: int = 3, size: int = 100) -> list[EncodedFrame]:
    """A keyframe and what follows it, in the pattern of `layers` layers."""
    pattern = SLOTS[layers]
    return [
        EncodedFrame(0, index, index * 3000, index == 0, *pattern[index % len(pattern)], bytes(size))
        for index in range(count)
    ]


def opened(given: list[EncodedFrame], settings: OpeningSettings | None = None) -> Opening:
    opening = Opening(settings or OpeningSettings())
    for number, frame in enumerate(given):
        opening.add(frame, number / 30)
    return opening


def indexes(opening: Opening, now: float) -> list[int]:
    return [frame.index for frame in opening.frames(now)]


@pytest.mark.parametrize(
    ("layers", "count", "expected"),
    [
        (3, 8, [0, 4, 5, 6, 7]),
        (3, 9, [0, 4, 8]),
        (3, 1, [0]),
        (2, 6, [0, 2, 4, 5]),
        (1, 3, [0, 1, 2]),
    ],
)
def test_only_the_newest_frames_of_higher_layers_are_kept(layers: int, count: int, expected: list[int]) -> None:
    assert indexes(opened(frames(count, layers)), 0.3) == expected


def test_the_frames_are_dated_with_the_newest() -> None:
    newest = 10 * 3000
    assert [frame.timestamp for frame in opened(frames(11)).frames(0.4)] == [newest - 4 + place for place in range(5)]


@pytest.mark.parametrize("bitrate", [60_000, 200_000, 800_000, 3_000_000])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_where_there_is_no_start_a_keyframe_is_made_at_once(bitrate: int, layers: int) -> None:
    """So nobody who comes waits for the gate: by the time that it is closed there is a young start."""
    opening, gate, size = Opening(), KeyframeGate(), bitrate // 240
    gate.made(0.0)
    without = 0
    for index in range(5 * 30):
        now, slots = index / 30, SLOTS[layers]
        octets = 4 * size if index == 0 else size
        opening.add(EncodedFrame(0, index, index * 3000, index == 0, *slots[index % len(slots)], bytes(octets)), now)
        if not opening.frames(now):
            without += 1
            gate.request()
            assert gate.due(now), f"{now:.2f} s after a keyframe"
    assert without, "in the end there is none"


def test_nothing_comes_before_a_keyframe() -> None:
    assert indexes(opened(frames(5)[1:]), 0.2) == []


def test_a_layer_that_began_before_is_not_waited_for() -> None:
    first, *_, last = frames(4)
    assert not last.sync
    assert indexes(opened([first, last]), 0.1) == []


def test_age_and_size_have_bounds_of_two_kinds() -> None:
    settings = OpeningSettings(age=0.6, octets=900, late_age=3.5, late_octets=250)
    large = opened(frames(8), settings)
    assert len(indexes(large, 0.6)) == 5
    assert indexes(large, 0.61) == []
    small = opened(frames(2), settings)
    assert indexes(small, 3.5) == [0, 1]
    assert indexes(small, 3.6) == []
    assert indexes(opened(frames(2, size=451), settings), 0.1) == []


def test_the_smallest_rung_can_be_joined_for_seconds() -> None:
    """200 kbit/s, of which two fifths count."""
    assert len(indexes(opened(frames(105, size=833)), 3.5)) > 20


@pytest.mark.parametrize("layers", [2, 3])
def test_a_real_decoder_comes_to_the_same_pictures(layers: int) -> None:
    encoder = RungEncoder(Rung("180p", 320, 180, 30.0, 200_000, layers))
    pattern = TestPattern("main", 320, 180, 30.0)
    encoded = []
    for index in range(40):
        one = encoder.encode(pattern.draw(index, 1e9 + index / 30), 1e9 + index / 30)
        encoded.append(EncodedFrame(0, index, index * 3000, one.keyframe, one.layer, one.sync, one.payload))

    def decoded(given: list[EncodedFrame]) -> list[np.ndarray]:
        decoder = av.CodecContext.create("vp8", "r")
        pictures = [picture for frame in given for picture in decoder.decode(av.Packet(frame.payload))]
        return [plane(picture, 0).copy() for picture in pictures]

    whole = decoded(encoded)
    for joined in range(20, 28):
        started = decoded(opened(encoded[:joined]).frames(joined / 30) + encoded[joined:])
        assert len(started) < len(whole) - 8
        for index in range(joined, 40):
            assert np.array_equal(started[index - 40], whole[index - 40])
