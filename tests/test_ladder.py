"""The ladder: what is encoded, when, and what happens when an encoder is late."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import av
import pytest

from broadcaster.errors import EncoderError
from broadcaster.ladder import Ladder, LadderSettings, RungStatistics, derive_rungs
from broadcaster.ladder.encoder import Encoded, RungEncoder
from broadcaster.source import Picture
from broadcaster.source.barcode import read_barcode
from broadcaster.source.canvas import plane
from broadcaster.source.pattern import TestPattern
from broadcaster.stream import EncodedFrame, Rung, timestamp_at

PATIENCE = 10.0
NOW = 1_767_225_600.0
RUNGS = (Rung("360p", 640, 360, 30.0, 800_000, 2), Rung("180p", 320, 180, 30.0, 200_000, 3))


class Stage:
    """A ladder on a clock that the test turns, fed with pictures of the test pattern."""

    def __init__(self, settings: LadderSettings | None = None) -> None:
        self.now = 100.0
        self.frames: queue.Queue[EncodedFrame] = queue.Queue()
        self.on_frame: Callable[[EncodedFrame], None] = self.frames.put
        self.ladder = Ladder(RUNGS, self._hand_over, clock=lambda: self.now, settings=settings)
        self._pattern = TestPattern("main", 640, 360, 30.0)
        self._index = 0

    def _hand_over(self, frame: EncodedFrame) -> None:
        self.on_frame(frame)

    def picture(self) -> Picture:
        captured = NOW + self._index / 30
        picture = Picture(self._pattern.draw(self._index, captured), captured, self._index)
        self._index += 1
        return picture

    def push(self) -> Picture:
        picture = self.picture()
        self.ladder.push(picture)
        return picture

    def take(self) -> EncodedFrame:
        return self.frames.get(timeout=PATIENCE)

    def step(self, seconds: float = 1 / 30) -> EncodedFrame:
        """Push a picture `seconds` after the last and return its frame; one rung is active."""
        self.now += seconds
        self.push()
        return self.take()

    def statistics(self, rung: int) -> RungStatistics:
        return self.ladder.statistics()[rung]


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.ladder.close()


def test_nothing_is_encoded_without_demand(stage: Stage) -> None:
    for _ in range(3):
        stage.push()
    stage.ladder.set_demand(1, active=True)
    frame = stage.take()
    assert (frame.rung, frame.index, frame.keyframe) == (1, 0, True)
    assert stage.statistics(0) == RungStatistics(
        name="360p",
        active=False,
        encoded=0,
        dropped=0,
        keyframes=0,
        requests=0,
        failures=0,
        encode_seconds=0.0,
        bitrate=0,
        target_bitrate=800_000,
    )


def test_an_activated_rung_starts_at_once_with_the_newest_picture(stage: Stage) -> None:
    stage.push()
    newest = stage.push()
    stage.ladder.set_demand(0, active=True)
    frame = stage.take()
    assert frame.keyframe
    assert frame.timestamp == timestamp_at(newest.captured)


def test_an_old_picture_is_no_start(stage: Stage) -> None:
    stage.push()
    stage.now += 5.0
    stage.ladder.set_demand(0, active=True)
    fresh = stage.push()
    assert stage.take().timestamp == timestamp_at(fresh.captured)


def test_all_rungs_carry_the_same_picture_and_time(stage: Stage) -> None:
    for rung in range(2):
        stage.ladder.set_demand(rung, active=True)
    decoders = [av.CodecContext.create("vp8", "r") for _ in RUNGS]
    for _ in range(10):
        pushed = stage.push()
        frames = {frame.rung: frame for frame in (stage.take(), stage.take())}
        assert sorted(frames) == [0, 1]
        for rung, frame in frames.items():
            assert frame.timestamp == timestamp_at(pushed.captured)
            assert frame.index == pushed.index
            (picture,) = decoders[rung].decode(av.Packet(frame.payload))
            assert isinstance(picture, av.VideoFrame)
            assert (picture.width, picture.height) == (RUNGS[rung].width, RUNGS[rung].height)
            barcode = read_barcode(plane(picture, 0))
            assert barcode is not None and barcode.index == pushed.index
        assert pushed.frame.pts is None, "a shared picture is not written to"


def test_layers_are_marked(stage: Stage) -> None:
    stage.ladder.set_demand(1, active=True)
    frames = [stage.step() for _ in range(6)]
    assert [(frame.layer, frame.sync) for frame in frames] == [
        (0, True), (2, True), (1, True), (2, False), (0, False), (2, True),
    ]  # fmt: skip


def test_a_requested_keyframe_is_the_next_picture_and_requests_are_merged(stage: Stage) -> None:
    stage.ladder.set_demand(1, active=True)
    assert stage.step().keyframe
    assert not stage.step(1.0).keyframe
    stage.ladder.request_keyframe(1)
    stage.ladder.request_keyframe(1)
    assert stage.step().keyframe
    stage.ladder.request_keyframe(1)
    assert not stage.step(0.2).keyframe, "too soon"
    assert not stage.step(0.2).keyframe, "too soon"
    assert stage.step(0.2).keyframe, "remembered"
    assert not stage.step(1.0).keyframe
    statistics = stage.statistics(1)
    assert (statistics.keyframes, statistics.requests, statistics.encoded) == (3, 3, 7)


def test_a_patient_request_waits_longer(stage: Stage) -> None:
    stage.ladder.set_demand(1, active=True)
    assert stage.step().keyframe
    stage.ladder.request_keyframe(1, patient=True)
    assert not stage.step(3.0).keyframe
    assert stage.step(0.6).keyframe


def test_a_late_encoder_drops_pictures_and_blocks_nobody(stage: Stage) -> None:
    stage.ladder.set_demand(0, active=True)
    busy, release = threading.Event(), threading.Event()

    def slow(frame: EncodedFrame) -> None:
        busy.set()
        assert release.wait(PATIENCE)
        stage.frames.put(frame)

    stage.on_frame = slow
    first = stage.push()
    assert busy.wait(PATIENCE)
    pushed = [stage.push() for _ in range(4)]
    stage.ladder.set_demand(1, active=True)
    release.set()
    frames = [stage.take() for _ in range(3)]
    of_late_rung = [frame.timestamp for frame in frames if frame.rung == 0]
    assert of_late_rung == [timestamp_at(first.captured), timestamp_at(pushed[-1].captured)]
    assert stage.statistics(0).dropped == 3
    assert stage.statistics(1).dropped == 0


def test_a_rung_that_lost_its_demand_is_quiet_and_comes_back_with_a_keyframe(stage: Stage) -> None:
    stage.ladder.set_demand(1, active=True)
    assert stage.step().index == 0
    stage.ladder.set_demand(1, active=False)
    stage.push()
    assert not stage.statistics(1).active
    stage.now += 60.0
    stage.ladder.set_demand(1, active=True)
    frame = stage.step()
    assert (frame.index, frame.keyframe) == (1, True)
    assert stage.statistics(1).dropped == 0


def test_no_picture_is_encoded_twice(stage: Stage) -> None:
    stage.ladder.set_demand(1, active=True)
    first = stage.step()
    stage.ladder.set_demand(1, active=False)
    stage.ladder.set_demand(1, active=True)
    second = stage.step()
    assert second.timestamp > first.timestamp
    assert second.keyframe, "those who come now know nothing of before"
    assert stage.statistics(1).encoded == 2


def test_the_bitrate_follows_the_demand_at_most_every_ten_seconds(stage: Stage) -> None:
    stage.ladder.set_demand(1, active=True, bitrate=150_000)
    assert stage.step().keyframe
    stage.ladder.set_demand(1, active=True, bitrate=100_000)
    assert not stage.step(5.0).keyframe
    assert not stage.step(4.0).keyframe
    assert stage.step(2.0).keyframe, "reopened"
    assert stage.statistics(1).target_bitrate == 100_000
    stage.ladder.set_demand(1, active=True, bitrate=105_000)
    assert not stage.step(20.0).keyframe, "not worth a keyframe"
    stage.ladder.set_demand(1, active=True)
    assert stage.step().keyframe
    assert stage.statistics(1).target_bitrate == 200_000


@pytest.mark.parametrize(("asked", "given"), [(1, 60_000), (10_000_000, 200_000), (0, 60_000), (-5, 60_000)])
def test_the_bitrate_has_bounds(stage: Stage, asked: int, given: int) -> None:
    stage.ladder.set_demand(1, active=True, bitrate=asked)
    stage.step()
    assert stage.statistics(1).target_bitrate == given


def test_the_measured_bitrate_is_that_of_the_last_seconds(stage: Stage) -> None:
    stage.ladder.set_demand(1, active=True)
    octets = sum(len(stage.step().payload) for _ in range(30))
    assert stage.statistics(1).bitrate == octets * 8 // 2
    stage.now += 10.0
    assert stage.statistics(1).bitrate == 0


def test_a_receiver_that_fails_does_not_end_the_rung(stage: Stage) -> None:
    stage.ladder.set_demand(1, active=True)
    failed = threading.Event()

    def fails(_: EncodedFrame) -> None:
        failed.set()
        raise RuntimeError("no")

    stage.on_frame = fails
    stage.push()
    assert failed.wait(PATIENCE)
    stage.on_frame = stage.frames.put
    assert stage.step().index == 1


def test_an_encoder_that_fails_is_opened_again_after_a_while(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    encode, failed = RungEncoder.encode, threading.Event()

    def fails(self: RungEncoder, frame: av.VideoFrame, captured: float, *, keyframe: bool = False) -> Encoded:
        if not failed.is_set():
            failed.set()
            raise EncoderError("out of order")
        return encode(self, frame, captured, keyframe=keyframe)

    monkeypatch.setattr(RungEncoder, "encode", fails)
    stage.ladder.set_demand(1, active=True)
    stage.push()
    assert failed.wait(PATIENCE)
    frame = stage.step(2.0)
    assert frame.keyframe
    assert stage.statistics(1).failures == 1


def test_a_picture_that_cannot_be_scaled_does_not_end_the_rung(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    failed = threading.Event()

    def fails(scaler: object, *arguments: object, **options: object) -> av.VideoFrame:
        failed.set()
        raise av.error.MemoryError(12, "cannot allocate")

    stage.ladder.set_demand(1, active=True)
    with monkeypatch.context() as patched:
        patched.setattr("broadcaster.ladder.ladder._Scaler.scale", fails)
        stage.push()
        assert failed.wait(PATIENCE)
    frame = stage.step(2.0)
    assert frame.keyframe
    assert stage.statistics(1).failures == 1


def test_closing_ends_all_threads_and_frames() -> None:
    stage = Stage()
    for rung in range(2):
        stage.ladder.set_demand(rung, active=True)
    stage.push()
    stage.ladder.close()
    while not stage.frames.empty():
        stage.frames.get()
    stage.push()
    assert stage.frames.empty()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encoder-")]
    stage.ladder.close()


def test_a_ladder_that_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(EncoderError):
        Ladder((Rung("x", 320, 180, 30.0, 100_000, 9),), lambda _: None)


def test_the_derived_ladder_can_be_opened() -> None:
    Ladder(derive_rungs(1280, 720, 59.94), lambda _: None).close()
