"""The rung encoder: layers that can be dropped, keyframes on demand, the bitrate."""

from __future__ import annotations

import random

import av
import numpy as np
import pytest

from broadcaster.errors import EncoderError
from broadcaster.ladder.encoder import Encoded, RungEncoder
from broadcaster.ladder.layers import layer_pattern
from broadcaster.source.pattern import TestPattern
from broadcaster.stream import Rung

NOW = 1_767_225_600.0
KEYFRAMES = (0, 33)
COUNT = 80


def rung(layers: int, bitrate: int = 400_000) -> Rung:
    return Rung("180p", 320, 180, 30.0, bitrate, layers)


def moving_pictures(count: int) -> list[av.VideoFrame]:
    """A rough texture that moves in both directions."""
    texture = np.random.default_rng(1).integers(0, 255, (180, 320), np.uint8).repeat(4, 0).repeat(4, 1)
    pictures = []
    for index in range(count):
        pixels = np.full((270, 320), 128, np.uint8)
        pixels[:180] = texture[index * 3 : index * 3 + 180, index * 5 : index * 5 + 320]
        pictures.append(av.VideoFrame.from_ndarray(pixels, format="yuv420p"))
    return pictures


def encode(layers: int, keyframes: tuple[int, ...] = KEYFRAMES, count: int = COUNT) -> list[Encoded]:
    encoder = RungEncoder(rung(layers))
    return [
        encoder.encode(frame, NOW + index / 30, keyframe=index in keyframes)
        for index, frame in enumerate(moving_pictures(count))
    ]


def decode(frames: dict[int, Encoded]) -> dict[int, bytes]:
    decoder = av.CodecContext.create("vp8", "r")
    pictures = {}
    for index, frame in frames.items():
        for picture in decoder.decode(av.Packet(frame.payload)):
            assert isinstance(picture, av.VideoFrame)
            pictures[index] = picture.to_ndarray().tobytes()
    return pictures


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_dropping_layers_changes_no_remaining_picture(layers: int) -> None:
    frames = dict(enumerate(encode(layers)))
    full = decode(frames)
    assert len(full) == COUNT
    for highest in range(layers):
        kept = {index: frame for index, frame in frames.items() if frame.layer <= highest}
        assert decode(kept) == {index: full[index] for index in kept}
        assert len(kept) == pytest.approx(COUNT / 2 ** (layers - 1 - highest), abs=2)


@pytest.mark.parametrize("layers", [2, 3])
def test_climbing_at_any_sync_frame_is_clean(layers: int) -> None:
    frames = dict(enumerate(encode(layers)))
    full = decode(frames)
    climbed = 0
    for low in range(layers - 1):
        for start in range(38, 50):
            if not frames[start].sync or frames[start].layer <= low:
                continue
            climbed += 1
            high = frames[start].layer
            kept = {i: frame for i, frame in frames.items() if frame.layer <= (high if i >= start else low)}
            assert decode(kept) == {index: full[index] for index in kept}, (low, start)
    assert climbed >= 6


def test_climbing_at_a_slot_without_sync_is_not_clean() -> None:
    frames = dict(enumerate(encode(3)))
    full = decode(frames)
    start = next(i for i in range(38, 50) if frames[i].layer == 2 and not frames[i].sync)
    kept = {i: frame for i, frame in frames.items() if frame.layer == 0 or i >= start}
    assert decode(kept) != {index: full[index] for index in kept}, "else sync could be set more often"


@pytest.mark.parametrize(("layers", "expected"), [(1, [0] * 5), (2, [0, 1, 0, 1, 0]), (3, [0, 2, 1, 2, 0])])
def test_the_pattern_starts_anew_at_every_keyframe(layers: int, expected: list[int]) -> None:
    frames = encode(layers)
    for start in KEYFRAMES:
        assert [frame.layer for frame in frames[start : start + 5]] == expected
        assert frames[start].sync


def test_keyframes_are_where_they_were_asked_for() -> None:
    frames = encode(3, keyframes=(10, 11, 40))
    assert [index for index, frame in enumerate(frames) if frame.keyframe] == [0, 10, 11, 40]


def test_a_picture_marked_by_its_decoder_forces_nothing() -> None:
    encoder = RungEncoder(rung(3))
    frames = []
    for index, picture in enumerate(moving_pictures(10)):
        picture.pict_type = 1
        frames.append(encoder.encode(picture, NOW + index / 30))
    assert [frame.keyframe for frame in frames] == [True] + [False] * 9


def bitrate_of(encoder: RungEncoder, times: list[float]) -> float:
    pattern = TestPattern("main", 320, 180, 30.0)
    frames = [encoder.encode(pattern.draw(index, NOW + time), NOW + time) for index, time in enumerate(times)]
    return sum(len(frame.payload) for frame in frames) * 8 / (times[-1] - times[0])


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("layers", [2, 3])
def test_the_bitrate_is_kept_while_pictures_are_lost(layers: int, loss: float) -> None:
    chance = random.Random(5)
    times = [index / 30 for index in range(240) if chance.random() >= loss]
    assert bitrate_of(RungEncoder(rung(layers, 200_000)), times) == pytest.approx(200_000, rel=0.1)


def test_the_bitrate_is_kept_at_a_rate_other_than_announced() -> None:
    times = [index / 15 for index in range(120)]
    assert bitrate_of(RungEncoder(rung(3, 200_000)), times) == pytest.approx(200_000, rel=0.2)


def test_a_new_bitrate_comes_with_a_keyframe() -> None:
    encoder = RungEncoder(rung(3))
    times = [index / 30 for index in range(90)]
    assert bitrate_of(encoder, times) == pytest.approx(400_000, rel=0.2)
    encoder.retarget(150_000)
    assert encoder.encode(moving_pictures(1)[0], NOW + 4.0).keyframe
    assert bitrate_of(encoder, [5.0 + time for time in times]) == pytest.approx(150_000, rel=0.3)


@pytest.mark.parametrize("step", [0.0, -0.5, 1e6])
def test_times_that_jump_are_no_error(step: float) -> None:
    encoder = RungEncoder(rung(3))
    for index, picture in enumerate(moving_pictures(40)):
        assert encoder.encode(picture, NOW + index * step).payload


@pytest.mark.parametrize(
    "wrong", [Rung("0p", 0, 0, 30.0, 100_000, 3), Rung("x", 320, 180, 30.0, 100_000, 4), Rung("x", -2, 2, 30.0, 1, 1)]
)
def test_settings_that_cannot_be_encoded_are_refused(wrong: Rung) -> None:
    with pytest.raises(EncoderError):
        RungEncoder(wrong)


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(EncoderError, match="180p"):
        RungEncoder(rung(3)).encode(av.VideoFrame(640, 360, "yuv420p"), NOW)


@pytest.mark.parametrize("layers", [0, 4, -1])
def test_there_are_one_to_three_layers(layers: int) -> None:
    with pytest.raises(EncoderError, match="use 1, 2 or 3"):
        layer_pattern(layers)
