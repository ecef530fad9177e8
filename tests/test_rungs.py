"""Which rungs a source gets, and what a user may ask for."""

from __future__ import annotations

import pytest

from broadcaster.errors import ConfigurationError
from broadcaster.ladder import LadderConfig, derive_rungs, parse_rungs
from broadcaster.stream import Rung


def test_the_ladder_of_720p30() -> None:
    assert derive_rungs(1280, 720, 30.0) == (
        Rung("720p", 1280, 720, 30.0, 2_500_000, 2),
        Rung("360p", 640, 360, 30.0, 800_000, 3),
        Rung("180p", 320, 180, 30.0, 200_000, 3),
    )


def test_portrait_gets_the_same_ladder_turned() -> None:
    landscape, portrait = derive_rungs(1280, 720, 30.0), derive_rungs(720, 1280, 30.0)
    assert [(rung.name, rung.height, rung.width, rung.bitrate) for rung in portrait] == [
        (rung.name, rung.width, rung.height, rung.bitrate) for rung in landscape
    ]


@pytest.mark.parametrize(
    ("size", "names"),
    [
        ((3840, 2160), ["1080p", "720p", "360p", "180p"]),
        ((1920, 1080), ["1080p", "720p", "360p", "180p"]),
        ((854, 480), ["480p", "360p", "180p"]),
        ((640, 360), ["360p", "180p"]),
        ((320, 180), ["180p"]),
        ((100, 80), ["80p"]),
    ],
)
def test_rungs_follow_the_source(size: tuple[int, int], names: list[str]) -> None:
    assert [rung.name for rung in derive_rungs(*size, 30.0)] == names


@pytest.mark.parametrize("fps", [7.5, 15.0, 25.0, 29.97, 30.0, 60.0])
@pytest.mark.parametrize(
    "size", [(4096, 2160), (1920, 1080), (1440, 1080), (1080, 1920), (1000, 1000), (854, 480), (426, 240), (64, 64)]
)
def test_every_ladder_is_sound(size: tuple[int, int], fps: float) -> None:
    rungs = derive_rungs(*size, fps)
    assert 1 <= len(rungs) <= LadderConfig().max_rungs
    for rung in rungs:
        assert rung.width <= size[0] and rung.height <= size[1], "never enlarged"
        assert rung.width % 2 == 0 and rung.height % 2 == 0
        assert rung.fps == fps
        assert rung.width / rung.height == pytest.approx(size[0] / size[1], rel=0.02), "the source's shape"
        assert LadderConfig().floor <= rung.bitrate <= LadderConfig().ceiling
    bitrates = [rung.bitrate for rung in rungs]
    assert bitrates == sorted(set(bitrates), reverse=True)
    assert len({rung.name for rung in rungs}) == len(rungs)


def test_a_higher_rate_costs_more_but_less_than_in_proportion() -> None:
    slow, normal, fast = (derive_rungs(1280, 720, fps)[0].bitrate for fps in (15.0, 30.0, 60.0))
    assert slow < normal < fast
    assert fast < 2 * normal and slow > normal / 2


def test_a_ladder_written_by_hand() -> None:
    assert parse_rungs("640x360@800k, 1280x720@2.5M", 1280, 720, 25.0) == (
        Rung("720p", 1280, 720, 25.0, 2_500_000, 2),
        Rung("360p", 640, 360, 25.0, 800_000, 3),
    )


def test_two_rungs_of_one_size_have_two_names() -> None:
    rungs = parse_rungs("640x360@800k,640x360@400k", 640, 360, 30.0)
    assert [rung.name for rung in rungs] == ["360p-800k", "360p-400k"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is no rung"),
        ("640x360", "is no rung"),
        ("640x360@", "is no rung"),
        ("640x360@fast", "is no rung"),
        ("640x360@800k,", "is no rung"),
        ("-640x360@800k", "is no rung"),
        ("641x360@800k", "must be even"),
        ("0x0@800k", "must be even"),
        ("1920x1080@4M", "larger than the source, which is 1280x720"),
        ("640x360@1k", "the bitrate must be from"),
        ("640x360@900M", "the bitrate must be from"),
        ("640x360@800k,320x180@800k", "same bitrate"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        parse_rungs(text, 1280, 720, 30.0)
