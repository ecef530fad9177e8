"""What the benchmark `browser` makes of what it saw: pure figures, networks, plots."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import playing
from benchmarks.drawing import draw
from benchmarks.networks import NETWORKS, Network, stalls, walk
from benchmarks.playing import Second, Seen, Viewer, fitting
from broadcaster.adaptation.levels import Level
from tests.capacity import Policer

LOW = Level(1, 0, "180p", 320, 180, 30.0, 200_000)
MIDDLE = Level(1, 1, "360p", 640, 360, 30.0, 800_000)
HIGH = Level(0, 0, "720p", 1280, 720, 30.0, 2_500_000)
LEVELS = (LOW, MIDDLE, HIGH)


def second(at: float, level: Level | None = HIGH, **more: object) -> Second:
    values: dict[str, object] = {
        "at": at, "length": 1.0, "capacity": 4e6, "best": HIGH, "level": level, "received": 2e6, "resent": 0.0,
        "fps": 30.0, "freezes": 0, "frozen": 0.0, "gap": 0.05, "dropped": 0, "size": "1280x720",
        "lost": 0, "nacks": 0, "plis": 0, "buffer": 0.01, "queue": 0.01,
        "overflowed": 0, "estimate": None, "loss": None, "rtt": None,
    }  # fmt: skip
    return Second(**{**values, **more})  # type: ignore[arg-type]


def seen(
    *seconds: Second, network: Network = NETWORKS[0], changes: list[tuple[float, Level, str]] | None = None
) -> Seen:
    viewer = Viewer("v-1", list(seconds), changes or [(-5.0, HIGH, "start")], joined=-5.0)
    return Seen(network, [viewer], [(-5.0, LEVELS)])


def test_the_best_level_leaves_room_for_what_wraps_the_media() -> None:
    assert fitting(LEVELS, 4e6) is HIGH
    assert fitting(LEVELS, 2_500_000 * 1.05) is MIDDLE
    assert fitting(LEVELS, 100_000) is None


def test_the_line_counts_from_its_beginning_and_the_picture_from_joining() -> None:
    one = seen(second(-1, fps=20.0, freezes=1, frozen=0.5, received=9e6), second(0, received=9e6), second(1), second(2))
    figures = playing.picture(one)
    assert (figures["fps_mean"], figures["freezes"], figures["frozen_percent"]) == (27.5, 1, 12.5)
    assert playing.bitrate(one)["received_kbps"] == 2000


def test_a_freeze_that_never_ends_counts_too() -> None:
    ended = playing.picture(seen(second(1), second(2, freezes=1, frozen=0.5), second(3), second(4)))
    assert (ended["freezes"], ended["frozen_percent"]) == (1, 12.5)
    endless = playing.picture(seen(second(1), second(2), second(3, fps=0.0, gap=1.0), second(4, fps=0.0, gap=2.0)))
    assert (endless["freezes"], endless["frozen_percent"], endless["longest_gap_ms"]) == (1, 50.0, 2000.0)


def test_bitrates_are_held_against_the_line_and_the_best_level() -> None:
    one = seen(
        second(1, received=2.5e6),
        second(2, level=MIDDLE, received=0.5e6),  # a worse level than fits
        second(3, level=MIDDLE, received=2.4e6),  # the same, but it gets as much as the best
        second(4, best=MIDDLE, capacity=1e6, received=1e6),  # a level that does not fit
    )
    one.waits = [(-1.0, 9.0), (1.0, 0.01), (2.0, 0.02), (3.0, 0.3)]
    one.arrived, one.overflowed = 200, 3
    figures = playing.bitrate(one)
    assert figures["received_kbps"] == 1600
    assert figures["of_capacity_percent"] == pytest.approx(100 * 6.4 / 13)
    assert figures["of_best_level_percent"] == pytest.approx(100 * 6.4 / 8.3)
    assert figures["of_best_at_first_percent"] == figures["of_best_level_percent"]
    assert figures["level_of_best_percent"] == pytest.approx(100 * (2.5 + 0.8 + 0.8 + 0.8) / 8.3)
    assert (figures["at_best_percent"], figures["above_best_percent"]) == (75.0, 25.0)
    assert (figures["queue_p50_ms"], figures["queue_p95_ms"]) == (20.0, 300.0)
    assert figures["overflowed_percent"] == 1.5


def test_changes_are_timed_from_the_drop_and_from_the_rise() -> None:
    step = next(network for network in NETWORKS if network.name == "step")
    changes = [
        (-14.0, MIDDLE, "start"),
        (-4.0, HIGH, "headroom"),
        (22.5, LOW, "estimate-low"),
        (30.0, MIDDLE, "headroom"),
        (46.0, HIGH, "headroom"),
    ]
    one = seen(second(60), network=step, changes=changes)
    one.viewers[0].joined = -14.0
    figures = playing.levels(one)
    assert figures == {
        "network": "step",
        "changes_per_minute": pytest.approx(4 * 60 / 74),
        "first_best_s": 10.0,
        "fits_after_drop_s": 2.5,
        "best_after_rise_s": 6.0,
        "ends_at": ["720p30"],
    }
    one.viewers[0].changes = changes[:3]
    assert playing.levels(one)["best_after_rise_s"] is None


def test_a_rung_that_follows_its_audience_is_the_same_level() -> None:
    step = next(network for network in NETWORKS if network.name == "step")
    narrower = replace(HIGH, bitrate=1_000_000)
    one = seen(second(60), network=step, changes=[(-5.0, HIGH, "start")])
    one.ladders.append((10.0, (LOW, MIDDLE, narrower)))
    assert playing.now(HIGH, one.levels_at(9.9)) is HIGH
    assert playing.now(HIGH, one.levels_at(10.0)) is narrower
    figures = playing.levels(one)
    assert (figures["fits_after_drop_s"], figures["best_after_rise_s"]) == (0.0, 0.0)
    assert playing.at_best(second(30, best=narrower, received=0.0))
    moved = seen(second(1, best=narrower, received=1e6))
    moved.ladders.append((0.0, (LOW, MIDDLE, narrower)))
    figures = playing.bitrate(moved)
    assert (figures["of_best_level_percent"], figures["of_best_at_first_percent"]) == (100.0, 40.0)


def test_what_fits_only_for_a_moment_is_not_reached() -> None:
    step = next(network for network in NETWORKS if network.name == "step")
    changes = [(-5.0, MIDDLE, "start"), (20.5, HIGH, "headroom"), (24.0, MIDDLE, "estimate-low")]
    assert playing.levels(seen(second(60), network=step, changes=changes))["fits_after_drop_s"] == 4.0


def test_the_slowest_of_several_viewers_is_told() -> None:
    one = seen(second(45))
    other = Viewer("v-2", [second(45, level=LOW)], [(-5.0, LOW, "start"), (3.0, MIDDLE, "headroom")], joined=-5.0)
    one.viewers[0].changes = [(-5.0, MIDDLE, "start")]
    one.viewers.append(other)
    assert playing.levels(one)["first_best_s"] == 8.0
    assert playing.levels(one)["ends_at"] == ["720p30", "180p30"]
    other.changes.pop()
    assert playing.levels(one)["first_best_s"] is None


def test_the_networks_are_the_same_every_time_and_what_they_say() -> None:
    assert sum(network.seconds for network in NETWORKS) < 480
    cell = walk(60, 0.7e6, 5e6, seed=4)
    assert cell == walk(60, 0.7e6, 5e6, seed=4) != walk(60, 0.7e6, 5e6, seed=5)
    assert {0.7e6 <= bps <= 5e6 for _, bps in cell} == {True}
    assert max(bps for _, bps in cell) > 2 * min(bps for _, bps in cell)
    busy = stalls(45, 4e6, seed=5)
    assert busy == stalls(45, 4e6, seed=5)
    lengths = [after - at for (at, bps), (after, _) in itertools.pairwise(busy) if bps == 0]
    assert len(lengths) > 20
    assert all(0.049 <= length <= 0.151 for length in lengths)
    blackout = next(network for network in NETWORKS if network.blackout is not None)
    carries = [blackout.capacity(100.0).at(100.0 + at) for at in (0, 19.9, 20.0, 22.9, 23.0, 60.0)]
    assert carries == [4e6, 4e6, 0.0, 0.0, 4e6, 4e6]
    assert blackout.capacity().mean(19.0, 21.0) == 2e6
    policer = next(network for network in NETWORKS if network.policed).impairment(0.0).bandwidth_bps
    assert isinstance(policer, Policer)


def test_the_same_figures_make_the_same_plot(tmp_path: Path) -> None:
    one = seen(second(1), second(2, freezes=1, frozen=0.5, level=None, best=None), second(3))
    for name in ("a.svg", "b.svg"):
        draw(one, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a.svg").read_bytes()
