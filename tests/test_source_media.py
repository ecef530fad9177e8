"""Media sources with real clips: gapless loops, fitted sizes, and inputs that go away and come back."""

from __future__ import annotations

import itertools
import queue
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest

from broadcaster.errors import SourceError
from broadcaster.source import Picture, SharedSource, SourceStatus, open_source
from broadcaster.source.barcode import read_barcode
from broadcaster.source.canvas import plane
from broadcaster.source.feeds import Backoff, ReturnConfig
from broadcaster.source.fit import Fitter
from broadcaster.source.media import Decoded, Ended, Location, MediaConfig, Reader
from broadcaster.source.pattern import TestPattern
from tests.clips import FRAMES, make_clip

PATIENCE = 6.0
QUICK = ReturnConfig(stall_after=0.3, first_delay=0.05, longest_delay=0.2)


def read(path: Path, count: int) -> list[Decoded]:
    reader = Reader(Location.parse(str(path)))
    reader.start()
    decoded = []
    for _ in range(count):
        item = reader.take(PATIENCE)
        assert isinstance(item, Decoded), item
        decoded.append(item)
    reader.stop()
    reader.join(PATIENCE)
    return decoded


def index_of(frame: av.VideoFrame) -> int:
    barcode = read_barcode(plane(frame, 0))
    assert barcode is not None
    return barcode.index


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.h264", "libx264"), ("a.webm", "libvpx")],
)
def test_a_file_loops_without_a_gap(tmp_path: Path, name: str, codec: str) -> None:
    decoded = read(make_clip(tmp_path / name, codec), 3 * FRAMES + 5)
    assert [index_of(item.frame) for item in decoded] == [index % FRAMES for index in range(len(decoded))]
    times = [item.media_time for item in decoded]
    assert times == pytest.approx([index / 25 for index in range(len(decoded))], abs=0.002)
    assert all(item.paced for item in decoded)


def test_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.08, 0.4, 0.44, 0.8]
    decoded = read(make_clip(tmp_path / "a.mkv", "libvpx", frames=6, times=times), 8)
    assert [item.media_time for item in decoded[:6]] == pytest.approx(times, abs=0.002)
    assert decoded[6].media_time > 0.8
    assert decoded[7].media_time - decoded[6].media_time == pytest.approx(0.04, abs=0.002)


def watch(source: SharedSource, pictures: queue.Queue[Picture], count: int) -> list[Picture]:
    return [pictures.get(timeout=PATIENCE) for _ in range(count)]


def test_a_file_is_paced_to_real_time_across_its_loops(tmp_path: Path) -> None:
    source = open_source(str(make_clip(tmp_path / "a.mp4")), name="main")
    assert (source.width, source.height, source.fps) == (320, 180, 25.0)
    pictures: queue.Queue[Picture] = queue.Queue()
    source.subscribe(pictures.put)
    taken = watch(source, pictures, 55)
    source.close()
    times = [picture.captured for picture in taken]
    assert times == sorted(set(times))
    assert (times[-1] - times[0]) / 54 == pytest.approx(1 / 25, rel=0.1)
    assert [picture.index for picture in taken] == list(range(55))
    assert all(picture.frame.pict_type == 0 for picture in taken)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "size", "expected"),
    [
        ("ffv1", "yuv444p", (321, 181), (320, 180)),
        ("ffv1", "yuv422p", (320, 180), (320, 180)),
        ("mjpeg", "yuvj420p", (320, 180), (320, 180)),
        ("ffv1", "gray", (320, 180), (320, 180)),
    ],
)
def test_every_input_becomes_even_yuv420p(
    tmp_path: Path, codec: str, pix_fmt: str, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        for index in range(5):
            frame = TestPattern("clip", 640, 360, 25.0).draw(index, 1.0)
            frame = frame.reformat(width=size[0], height=size[1], format=pix_fmt)
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source = open_source(str(path), name="main")
    pictures: queue.Queue[Picture] = queue.Queue()
    source.subscribe(pictures.put)
    picture = watch(source, pictures, 1)[0]
    source.close()
    assert (source.width, source.height) == expected
    frame = picture.frame
    assert (frame.width, frame.height, frame.format.name) == (*expected, "yuv420p")
    assert index_of(frame) == 0
    assert plane(frame, 0).max() <= 238, "the range is limited, as encoders expect it"


IDENTITY = bytes.fromhex("00010000 00000000 00000000 00000000 00010000 00000000 00000000 00000000 40000000")
QUARTER = bytes.fromhex("00000000 00010000 00000000 FFFF0000 00000000 00000000 00000000 00000000 40000000")


def test_a_phone_held_upright_is_shown_upright(tmp_path: Path) -> None:
    """The matrix of the track header (ISO 14496-12, 8.3.2) says: show this a quarter turn clockwise."""
    path = make_clip(tmp_path / "a.mp4", size=(360, 640), turns=1)
    header, film, track = path.read_bytes().partition(b"tkhd")
    assert IDENTITY in track
    path.write_bytes(header + film + track.replace(IDENTITY, QUARTER, 1))
    source = open_source(str(path), name="main")
    assert (source.width, source.height) == (360, 640)
    pictures: queue.Queue[Picture] = queue.Queue()
    source.subscribe(pictures.put)
    picture = watch(source, pictures, 1)[0]
    source.close()
    assert (picture.frame.width, picture.frame.height) == (360, 640)
    assert index_of(picture.frame) == 0


def test_another_shape_gets_black_bars() -> None:
    square = TestPattern("clip", 256, 256, 25.0).draw(7, 1.0)
    fitted = Fitter(640, 360).fit(square)
    luma = plane(fitted, 0)
    assert luma.shape == (360, 640)
    assert luma[:, :139].max() <= 16 and luma[:, 501:].max() <= 16
    assert index_of_part(luma[:, 140:500]) == 7
    same = TestPattern("clip", 640, 360, 25.0).draw(7, 1.0)
    assert Fitter(640, 360).fit(same) is same


def index_of_part(luma: np.ndarray) -> int:
    barcode = read_barcode(luma)
    assert barcode is not None
    return barcode.index


class Station:
    """A TCP server that sends, to each connection in turn, a clip in real time, and then closes or falls silent."""

    def __init__(self, *programme: tuple[bytes, bool]) -> None:
        self._programme = list(programme)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._socket.getsockname()[1]}"
        self._off = threading.Event()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while not self._off.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            content, silent = self._programme.pop(0) if len(self._programme) > 1 else self._programme[0]
            thread = threading.Thread(target=self._send, args=(connection, content, silent), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _send(self, connection: socket.socket, content: bytes, silent: bool) -> None:
        with connection:
            try:
                connection.sendall(content)
                if silent:
                    self._off.wait(PATIENCE)
            except OSError:
                return

    def close(self) -> None:
        self._off.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in [self._accepting, *self._threads]:
            thread.join(PATIENCE)


@contextmanager
def watched(station: Station) -> Iterator[tuple[SharedSource, queue.Queue[Picture], queue.Queue[SourceStatus]]]:
    media = MediaConfig(open_timeout=3.0, read_timeout=1.0)
    source = open_source(station.url, name="main", media=media, returning=QUICK)
    pictures: queue.Queue[Picture] = queue.Queue()
    changes: queue.Queue[SourceStatus] = queue.Queue()
    source.on_change(changes.put)
    source.subscribe(pictures.put)
    try:
        yield source, pictures, changes
    finally:
        source.close()
        station.close()


def test_an_input_that_ends_is_replaced_by_a_slate_until_it_returns(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.ts", frames=60).read_bytes()
    other = make_clip(tmp_path / "b.ts", size=(256, 256), frames=60).read_bytes()
    station = Station((clip, True), (clip, False), (other, True))
    with watched(station) as (source, pictures, changes):
        away = changes.get(timeout=PATIENCE)
        assert not away.live
        assert away.detail
        back = changes.get(timeout=PATIENCE)
        assert back.live
        assert (back.width, back.height) == (320, 180), "what is delivered stays as it was described"
        assert (back.input_width, back.input_height) == (256, 256)
        seen = []
        while not pictures.empty():
            seen.append(pictures.get())
        assert {(picture.frame.width, picture.frame.height) for picture in seen} == {(320, 180)}
        assert [picture.index for picture in seen] == list(range(len(seen)))
        assert any(read_barcode(plane(picture.frame, 0)) is not None for picture in seen)
        assert any(read_barcode(plane(picture.frame, 0)) is None for picture in seen), "the slate"
        assert (source.width, source.height) == (320, 180)


def test_an_input_that_falls_silent_gets_a_slate_at_its_own_rate(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.ts", frames=40).read_bytes()
    station = Station((clip, True))
    with watched(station) as (source, pictures, changes):
        assert not changes.get(timeout=PATIENCE).live
        assert source.live is False
        while not pictures.empty():
            pictures.get()
        slates = watch(source, pictures, 10)
        times = [picture.captured for picture in slates]
        assert (times[-1] - times[0]) / 9 == pytest.approx(1 / source.fps, rel=0.5)


def test_pictures_that_cannot_be_fitted_end_the_input_and_not_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, fitted = Fitter.fit, itertools.count()

    def fails_once(self: Fitter, frame: av.VideoFrame, pixel_aspect: float = 1.0) -> av.VideoFrame:
        if next(fitted) == 5:
            raise ValueError("no such format")
        return fit(self, frame, pixel_aspect)

    monkeypatch.setattr(Fitter, "fit", fails_once)
    source = open_source(str(make_clip(tmp_path / "a.mkv", frames=30)), name="main", returning=QUICK)
    changes: queue.Queue[SourceStatus] = queue.Queue()
    source.on_change(changes.put)
    source.subscribe(lambda picture: None)
    away = changes.get(timeout=PATIENCE)
    assert not away.live and "no such format" in away.detail
    assert changes.get(timeout=PATIENCE).live
    source.close()


def test_the_end_of_an_input_has_a_reason(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.ts", frames=10).read_bytes()
    station = Station((clip, False))
    reader = Reader(Location.parse(station.url))
    reader.start()
    items = []
    while not isinstance(item := reader.take(PATIENCE), Ended):
        assert item is not None
        items.append(item)
    reader.join(PATIENCE)
    station.close()
    assert item.reason
    assert not any(decoded.paced for decoded in items)


def test_a_server_that_says_nothing_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/film.mp4"
        with pytest.raises(SourceError, match="it does not answer"):
            open_source(url, name="main", media=MediaConfig(open_timeout=0.2, read_timeout=0.2))


def test_a_file_that_vanishes_ends_with_a_reason(tmp_path: Path) -> None:
    reader = Reader(Location(str(tmp_path / "gone.mp4"), local=True))
    reader.start()
    assert reader.take(PATIENCE) == Ended("no such file or directory")
    reader.join(PATIENCE)


def test_delays_between_attempts_double_up_to_a_limit_with_jitter() -> None:
    config = ReturnConfig(first_delay=0.5, longest_delay=8.0)
    backoff = Backoff(config, random.Random(1))
    delays = [backoff.next() for _ in range(50)]
    for attempt, delay in enumerate(delays):
        full = min(8.0, 0.5 * 2**attempt)
        assert full / 2 <= delay <= full
    assert len(set(delays)) == len(delays)
    backoff.reset()
    assert backoff.next() <= 0.5
