"""AdaptiveVideoTrack: timing on a clock of the test's own, frames that share planes, the followed stream."""

from __future__ import annotations

import asyncio
import gc
import math
import selectors
from collections.abc import Coroutine
from fractions import Fraction
from itertools import pairwise
from typing import Any, TypeVar

import av
import pytest
from aiortc.mediastreams import MediaStreamError
from av.video.frame import PictureType
from hypothesis import example, given
from hypothesis import strategies as st

from broadcaster.errors import ConfigurationError
from broadcaster.stream import EncodedFrame, Rung, StreamDescription
from broadcaster.track import AdaptiveVideoTrack, FrameCopier, Pacer
from tests.still_source import FakeSource

T = TypeVar("T")


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting, 0.3 ms late as real ones are."""

    def __init__(self) -> None:
        self.now = 1000.0
        loop = self

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> Any:
                if timeout:
                    loop.now += timeout + 0.0003
                return super().select(0)

        super().__init__(Selector())

    def time(self) -> float:
        return self.now


def on_fake_time(body: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(body)


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("fps", [1, 24, 29.97, 30, 240])
def test_a_minute_has_the_right_number_of_frames(fps: float) -> None:
    async def minute() -> tuple[int, float, int]:
        track = AdaptiveVideoTrack(fps, source=FakeSource())  # type: ignore[arg-type]
        await track.recv()
        start, count, pts = now(), 0, 0
        while now() - start < 59.999:
            pts = (await track.recv()).pts or 0
            count += 1
        return count, now() - start, pts

    count, elapsed, pts = on_fake_time(minute())
    assert count / elapsed == pytest.approx(fps, rel=1e-4)
    assert pts == pytest.approx(elapsed * 90_000, abs=90)


def test_pts_grow_with_the_wall_clock_across_changes() -> None:
    async def play() -> list[tuple[float, int]]:
        track = AdaptiveVideoTrack(30, source=FakeSource())
        found = []
        for fps in (30, 7, 240, 1, 60):
            track.set_fps(fps)
            for _ in range(5):
                frame = await track.recv()
                assert frame.time_base == Fraction(1, 90_000)
                assert frame.pts is not None
                found.append((now(), frame.pts))
        return found

    found = on_fake_time(play())
    start = found[0][0]
    for (_, earlier), (at, later) in pairwise(found):
        assert later > earlier
        assert later / 90_000 == pytest.approx(at - start, abs=0.002)


def test_a_stall_is_skipped_and_not_replayed() -> None:
    async def play() -> tuple[list[float], list[int]]:
        track = AdaptiveVideoTrack(30, source=FakeSource())
        for _ in range(10):
            await track.recv()
        await asyncio.sleep(2.0)
        times, stamps = [], []
        for _ in range(10):
            stamps.append((await track.recv()).pts or 0)
            times.append(now())
        return times, stamps

    times, stamps = on_fake_time(play())
    assert all(later - earlier > 0.8 / 30 for earlier, later in pairwise(times))
    assert stamps[0] == pytest.approx((0.3 + 2.0) * 90_000, abs=0.04 * 90_000)


def waited(fps: float, other: float, after: float) -> float:
    """How long a recv() waits that began at `fps`, when `other` comes that many seconds later."""

    async def play() -> float:
        track = AdaptiveVideoTrack(fps, source=FakeSource())  # type: ignore[arg-type]
        await track.recv()
        start = now()
        waiting = asyncio.ensure_future(track.recv())
        await asyncio.sleep(after)
        track.set_fps(other)
        await waiting
        return now() - start

    return on_fake_time(play())


def test_a_waiting_recv_follows_a_new_rate_at_once() -> None:
    assert waited(1, 30, 0.1) == pytest.approx(0.1, abs=0.01)


def test_slowing_down_delays_a_waiting_recv() -> None:
    assert waited(30, 2, 0.01) == pytest.approx(0.5, abs=0.01)


def test_the_first_picture_is_awaited() -> None:
    async def play() -> tuple[int | None, float]:
        source = FakeSource()
        picture, source.picture = source.picture, None
        track = AdaptiveVideoTrack(1, source=source)
        start = now()
        waiting = asyncio.ensure_future(track.recv())
        await asyncio.sleep(3.05)
        source.picture = picture
        return (await waiting).pts, now() - start

    pts, elapsed = on_fake_time(play())
    assert pts == 0
    assert elapsed == pytest.approx(3.05, abs=0.05)


@given(
    st.lists(
        st.one_of(st.floats(0.1, 240.0).map(lambda fps: ("fps", fps)), st.floats(0.0, 3.0).map(lambda s: ("go", s)))
    )
)
@example(
    [("fps", 88.5), ("go", 0.0), ("go", 2.5616921576650737), ("fps", 1 / 3), ("go", 0.0), ("go", 0.0), ("go", 3.0)]
)
def test_the_pacer_never_goes_back(steps: list[tuple[str, float]]) -> None:
    clock, last = 50.0, -1
    pacer = Pacer(30.0, clock)
    for step, value in steps:
        if step == "fps":
            pacer.set_fps(value)
            continue
        clock = max(clock, pacer.due) + value
        pts = pacer.take(clock)
        assert pts > last
        assert pts <= (clock - 50.0) * 90_000 + len(steps)
        assert clock < pacer.due
        last = pts


@pytest.mark.parametrize("fps", [0, -1, 241, math.nan, math.inf, "30", None, True, 10**400, [30]])
async def test_rates_that_make_no_sense(fps: Any) -> None:
    with pytest.raises(ValueError, match="is not a frame rate"):
        AdaptiveVideoTrack(fps)
    track = AdaptiveVideoTrack()
    with pytest.raises(ConfigurationError, match="is not a frame rate"):
        track.set_fps(fps)
    assert track.fps == 30


async def test_frames_are_objects_of_their_own_that_share_their_planes() -> None:
    source = FakeSource()
    tracks = [AdaptiveVideoTrack(240, source=source) for _ in range(2)]
    one, other = [await track.recv() for track in tracks]
    assert source.picture is not None
    shared = source.picture.frame
    assert one is not other
    assert one.planes[0].buffer_ptr == other.planes[0].buffer_ptr == shared.planes[0].buffer_ptr
    assert one.pict_type == PictureType.NONE
    one.pict_type = PictureType.I
    one.pts = 12345
    assert (other.pict_type, shared.pict_type, shared.pts) == (PictureType.NONE, PictureType.I, None)
    for track in tracks:
        track.stop()


def test_a_copier_follows_a_change_of_size() -> None:
    copier = FrameCopier()
    sizes = [(64, 48), (128, 96), (64, 48)]
    copies = [copier.copy(av.VideoFrame(*size, "yuv420p")) for size in sizes]
    assert [(copy.width, copy.height) for copy in copies] == sizes


async def test_stop_ends_a_waiting_recv_and_lets_the_source_go() -> None:
    source = FakeSource()
    track = AdaptiveVideoTrack(1, source=source)
    assert source.readers == 0
    await track.recv()
    assert (source.readers, source.attached) == (1, 1)
    waiting = asyncio.ensure_future(track.recv())
    await asyncio.sleep(0)
    track.stop()
    with pytest.raises(MediaStreamError):
        await waiting
    with pytest.raises(MediaStreamError):
        await track.recv()
    track.stop()
    assert (source.readers, source.attached) == (0, 1)


async def test_a_forgotten_track_lets_the_source_go() -> None:
    source = FakeSource()
    track = AdaptiveVideoTrack(30, source=source)
    await track.recv()
    del track
    gc.collect()
    assert source.readers == 0


async def test_tracks_share_one_lively_test_pattern_by_default() -> None:
    tracks = [AdaptiveVideoTrack(60) for _ in range(2)]
    first = await tracks[0].recv()
    assert first.format.name == "yuv420p"
    assert first.width >= 320
    seen = {bytes(first.planes[0])}
    for _ in range(30):
        seen.add(bytes((await tracks[1].recv()).planes[0]))
    assert len(seen) > 5
    for track in tracks:
        track.stop()


DESCRIPTION = StreamDescription(
    "main", 1, (Rung("720p", 1280, 720, 30.0, 2_500_000, 2), Rung("360p", 640, 360, 30.0, 800_000, 3))
)


async def test_the_frame_rate_caps_the_layers_of_a_followed_stream() -> None:
    levels = {(level.rung, level.layer): level for level in DESCRIPTION.levels()}
    track = AdaptiveVideoTrack(30)
    assert track.selector is None
    track.set_fps(15)
    track.follow(DESCRIPTION, levels[1, 2])
    assert track.selector is not None
    assert track.selector.target == levels[1, 1]
    track.set_fps(30)
    assert track.selector.target == levels[1, 2]
    assert track.selector.accepts(EncodedFrame(1, 0, 0, True, 0, False, b""))
    track.set_fps(7.5)
    assert track.selector.current == levels[1, 0]
    track.set_level(levels[0, 1])
    assert track.selector.target == levels[0, 0], "the top rung has nothing slower"
    assert track.selector.waiting_for == 0
    track.set_fps(240)
    assert track.selector.target == levels[0, 1]


async def test_a_new_description_keeps_the_selector_and_where_it_can_the_picture() -> None:
    track = AdaptiveVideoTrack(30)
    levels = {(level.rung, level.layer): level for level in DESCRIPTION.levels()}
    track.follow(DESCRIPTION, levels[1, 2])
    selector = track.selector
    assert selector is not None
    assert selector.accepts(EncodedFrame(1, 0, 0, True, 0, False, b""))
    slower = StreamDescription("main", 1, (DESCRIPTION.rungs[0], Rung("360p", 640, 360, 30.0, 500_000, 3)))
    track.follow(slower, next(level for level in slower.levels() if (level.rung, level.layer) == (1, 2)))
    assert track.selector is selector
    assert (selector.waiting_for, selector.current) == (None, slower.levels()[2])
    current = selector.current
    assert current is not None
    assert current.bitrate == 500_000
    assert selector.accepts(EncodedFrame(1, 1, 3000, False, 2, True, b""))
    rerun = StreamDescription("main", 2, DESCRIPTION.rungs)
    track.follow(rerun, levels[1, 2])
    assert track.selector is selector
    assert (selector.waiting_for, selector.current) == (1, None)
    assert not selector.accepts(EncodedFrame(1, 2, 6000, False, 0, False, b""))
    assert selector.accepts(EncodedFrame(1, 0, 9000, True, 0, False, b""))
