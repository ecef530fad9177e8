"""SharedSource: one thread for all readers, while there are any; and what open_source() accepts."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import pytest

from broadcaster.clock import WallClock
from broadcaster.errors import SourceError
from broadcaster.source import Picture, SharedSource, default_source, open_source
from broadcaster.source.barcode import Barcode, read_barcode
from broadcaster.source.canvas import plane

PATIENCE = 10.0


def small(name: str = "main") -> SharedSource:
    return open_source("pattern:320x180@60", name=name)


def take(pictures: queue.Queue[Picture], count: int) -> list[Picture]:
    return [pictures.get(timeout=PATIENCE) for _ in range(count)]


def threads_of(source: SharedSource) -> int:
    return sum(thread.name == f"source-{source.name}" for thread in threading.enumerate())


def test_pictures_come_in_order_and_say_what_they_are() -> None:
    source = small()
    pictures: queue.Queue[Picture] = queue.Queue()
    unsubscribe = source.subscribe(pictures.put)
    taken = take(pictures, 30)
    unsubscribe()
    source.close()
    assert [picture.index for picture in taken] == list(range(30))
    for picture in taken:
        assert read_barcode(plane(picture.frame, 0)) == Barcode(picture.index, int(picture.captured * 1000))
    times = [picture.captured for picture in taken]
    assert times == sorted(set(times))
    assert (times[-1] - times[0]) / 29 == pytest.approx(1 / 60, rel=0.5)


def test_the_first_reader_starts_it_and_the_last_stops_it() -> None:
    source = small("counted")
    assert source.latest() is None
    assert threads_of(source) == 0
    pictures: queue.Queue[Picture] = queue.Queue()
    first, second = source.subscribe(pictures.put), source.subscribe(lambda _: None)
    take(pictures, 1)
    assert threads_of(source) == 1
    assert source.latest() is not None
    first()
    first()
    assert threads_of(source) == 1, "one reader is left"
    thread = next(thread for thread in threading.enumerate() if thread.name == "source-counted")
    second()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert source.latest() is None


def test_it_starts_again_and_counts_on() -> None:
    source = small()
    pictures: queue.Queue[Picture] = queue.Queue()
    source.subscribe(pictures.put)()
    again = source.subscribe(pictures.put)
    taken = take(pictures, 5)
    again()
    source.close()
    indices, times = [p.index for p in taken], [p.captured for p in taken]
    assert indices == sorted(set(indices))
    assert times == sorted(set(times))


def test_many_fast_readers_leave_one_thread_at_most() -> None:
    source = small("busy")
    for _ in range(50):
        source.attach()
        source.detach()
    source.attach()
    pictures: queue.Queue[Picture] = queue.Queue()
    unsubscribe = source.subscribe(pictures.put)
    take(pictures, 3)
    assert threads_of(source) == 1
    unsubscribe()
    source.close()
    assert threads_of(source) == 0


def test_a_reader_may_leave_from_within() -> None:
    source = small("leaving")
    ready, calls = threading.Event(), []

    def once(picture: Picture) -> None:
        calls.append(picture)
        assert ready.wait(PATIENCE)
        unsubscribe()

    unsubscribe = source.subscribe(once)
    thread = next(thread for thread in threading.enumerate() if thread.name == "source-leaving")
    ready.set()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it was the last reader"
    assert len(calls) == 1


def test_a_failing_reader_harms_nobody_else() -> None:
    source = small()

    def fails(_: Picture) -> None:
        raise RuntimeError("no")

    pictures: queue.Queue[Picture] = queue.Queue()
    source.subscribe(fails)
    source.subscribe(pictures.put)
    assert len(take(pictures, 3)) == 3
    source.close()


def test_a_track_that_is_collected_while_the_source_is_busy_may_detach() -> None:
    source = small()
    source.attach()
    source.attach()
    done = threading.Event()

    def collected() -> None:
        with source._lock:
            source.detach()
        done.set()

    threading.Thread(target=collected, daemon=True).start()
    assert done.wait(PATIENCE)
    source.close()


def test_a_closed_source_says_so() -> None:
    source = small()
    source.close()
    with pytest.raises(SourceError, match="was closed"):
        source.subscribe(lambda _: None)
    with pytest.raises(SourceError, match="was closed"):
        source.attach()


def test_the_default_source_is_shared_and_replaced_when_closed() -> None:
    source = default_source()
    assert default_source() is source
    assert (source.width, source.height, source.fps, source.live) == (640, 360, 30.0, True)
    source.close()
    fresh = default_source()
    assert fresh is not source
    fresh.close()


@pytest.mark.parametrize(
    ("spec", "size", "fps"),
    [
        ("pattern", (1280, 720), 30.0),
        ("pattern:640x360", (640, 360), 30.0),
        ("pattern@25", (1280, 720), 25.0),
        ("pattern:720x1280@7.5", (720, 1280), 7.5),
    ],
)
def test_patterns_that_can_be_meant(spec: str, size: tuple[int, int], fps: float) -> None:
    source = open_source(spec, name="main")
    assert (source.width, source.height, source.fps) == (*size, fps)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("pattern:", "is no test pattern"),
        ("pattern:big", "is no test pattern"),
        ("pattern:640x", "is no test pattern"),
        ("pattern:641x360", "must be even"),
        ("pattern:0x0", "must be even"),
        ("pattern:99999x360", "must be even"),
        ("pattern@0", "from 1 to 60"),
        ("pattern@1000", "from 1 to 60"),
        ("", "no such file"),
        (".", "that is a folder"),
        ("no-such-file.mp4", "no such file"),
        ("http://127.0.0.1:1/nothing.mp4", "cannot open 'http://127.0.0.1:1/nothing.mp4': "),
        ("nosuchscheme://x", "cannot open"),
        ("v4l2:/dev/no-such-camera", "cannot open '/dev/no-such-camera': "),
    ],
)
def test_what_cannot_be_opened_is_said_in_one_sentence(spec: str, complaint: str) -> None:
    with pytest.raises(SourceError, match=complaint) as caught:
        open_source(spec, name="main")
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize("content", [b"", b"this is no film", bytes(5000)])
def test_files_that_are_no_film_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"cannot open '.*film\.mp4'"):
        open_source(str(path), name="main")


def test_a_step_of_the_system_clock_does_not_reach_capture_times(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = WallClock.anchored()
    before = clock.now()
    monkeypatch.setattr("time.time", lambda: 10.0)
    assert before <= clock.now() < before + 60.0
    assert WallClock(offset=995.0).wall(8.0) == 1003.0
