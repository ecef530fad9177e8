"""The test pattern and its barcode."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from broadcaster.source import barcode, jpeg
from broadcaster.source.barcode import Barcode, read_barcode
from broadcaster.source.canvas import plane
from broadcaster.source.pattern import TestPattern
from broadcaster.source.picture import Picture
from broadcaster.source.slate import Slate

NOW = 1_767_225_600.123


@pytest.mark.parametrize(
    "size", [(1920, 1080), (1280, 720), (640, 360), (320, 180), (720, 1280), (322, 182), (160, 120)]
)
def test_barcode_is_read_from_every_size(size: tuple[int, int]) -> None:
    pattern = TestPattern("main", *size, 30.0)
    for index in (0, 1, 0xFFFFFFFF, 1 << 32 | 5):
        frame = pattern.draw(index, NOW)
        assert read_barcode(plane(frame, 0)) == Barcode(index & 0xFFFFFFFF, int(NOW * 1000))


@pytest.mark.parametrize("size", [(640, 360), (320, 180), (180, 100), (854, 480)])
def test_barcode_survives_scaling(size: tuple[int, int]) -> None:
    frame = TestPattern("main", 1280, 720, 30.0).draw(77, NOW).reformat(width=size[0], height=size[1])
    assert read_barcode(plane(frame, 0)) == Barcode(77, int(NOW * 1000))


def test_barcode_survives_vp8_at_320x180_and_200_kbit() -> None:
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 320, 180, "yuv420p"
    encoder.time_base, encoder.framerate, encoder.bit_rate = Fraction(1, 30), Fraction(30), 200_000
    encoder.thread_count = 1
    encoder.options = {
        "deadline": "realtime",
        "cpu-used": "-6",
        "lag-in-frames": "0",
        "minrate": "200000",
        "maxrate": "200000",
        "bufsize": "200000",
        "error-resilient": "1",
    }
    decoder = av.CodecContext.create("vp8", "r")
    pattern = TestPattern("main", 1280, 720, 30.0)
    octets, read = 0, []
    for index in range(150):
        frame = pattern.draw(index, NOW + index / 30).reformat(width=320, height=180)
        frame.pts, frame.time_base = index, Fraction(1, 30)
        for packet in encoder.encode(frame):
            octets += packet.size
            read += [read_barcode(plane(decoded, 0)) for decoded in decoder.decode(packet)]
    assert read == [Barcode(index, int((NOW + index / 30) * 1000)) for index in range(150)]
    assert octets * 8 / 5 < 260_000


def test_pictures_without_a_barcode_have_none() -> None:
    noise = np.random.default_rng(3).integers(0, 256, (180, 320), np.uint8)
    assert read_barcode(noise) is None
    assert read_barcode(np.full((180, 320), 80, np.uint8)) is None
    assert read_barcode(plane(Slate("main", 320, 180).draw(NOW), 0)) is None


def test_one_wrong_cell_is_noticed() -> None:
    frame = TestPattern("main", 640, 360, 30.0).draw(1234, NOW)
    columns, rows = barcode.column_edges(640), barcode.row_edges(360)
    for row in range(barcode.ROWS):
        for column in range(barcode.COLUMNS):
            luma = plane(frame, 0).copy()
            cell = luma[rows[row] : rows[row + 1], columns[column] : columns[column + 1]]
            cell[...] = 251 - cell
            assert read_barcode(luma) is None, (row, column)


def test_a_drawn_frame_is_not_changed_by_the_next() -> None:
    pattern = TestPattern("main", 320, 180, 30.0)
    first = pattern.draw(1, NOW)
    before = plane(first, 0).copy()
    second = pattern.draw(2, NOW + 0.5)
    assert np.array_equal(plane(first, 0), before)
    moved = plane(second, 0) != before
    assert 0.005 < moved.mean() < 0.3, "things move, and most of the picture stands still"


def test_nothing_is_left_behind_by_what_moved() -> None:
    travelled, fresh = (TestPattern("main", 320, 180, 30.0) for _ in range(2))
    for index in range(60):
        travelled.draw(index, NOW + index / 30)
    assert np.array_equal(plane(travelled.draw(99, NOW + 9), 0), plane(fresh.draw(99, NOW + 9), 0))


@pytest.mark.parametrize("name", ["main", "x", "a-very-long-name-of-a-stream.with_everything-in-it-0123456789"])
def test_names_are_shown(name: str) -> None:
    named, other = (TestPattern(text, 640, 360, 30.0).draw(0, NOW) for text in (name, "k"))
    assert not np.array_equal(plane(named, 0), plane(other, 0))


def test_slate_moves_and_is_drawn_only_when_it_changes() -> None:
    slate = Slate("main", 640, 360)
    first = slate.draw(NOW)
    assert slate.draw(NOW + 0.001) is first
    assert not np.array_equal(plane(slate.draw(NOW + 0.4), 0), plane(first, 0))


def test_jpeg_of_a_picture() -> None:
    picture = Picture(TestPattern("main", 1280, 720, 30.0).draw(5, NOW), NOW, 5)
    data = jpeg(picture, width=320)
    assert data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9")
    assert 2_000 < len(data) < 40_000
    decoded = av.CodecContext.create("mjpeg", "r").decode(av.Packet(data))[0]
    assert isinstance(decoded, av.VideoFrame)
    assert (decoded.width, decoded.height) == (320, 180)
    assert read_barcode(plane(decoded, 0)) == Barcode(5, int(NOW * 1000))


def test_jpeg_never_enlarges() -> None:
    picture = Picture(TestPattern("main", 160, 120, 30.0).draw(5, NOW), NOW, 5)
    decoded = av.CodecContext.create("mjpeg", "r").decode(av.Packet(jpeg(picture, width=320)))[0]
    assert isinstance(decoded, av.VideoFrame)
    assert (decoded.width, decoded.height) == (160, 120)
