"""The estimator by the kernel: the same bits as the pure one, whatever is sent and reported."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.adaptation.estimator import FARTHEST, TICK, EstimatorSettings
from broadcaster.adaptation.losses import LossSettings
from broadcaster.adaptation.trendline import TrendlineSettings
from tests.fifo_path import FifoPath
from tests.sanitized import assert_nothing_found
from workers.forward import estimate
from workers.forward.estimate import NativeEstimator, PythonEstimator, path_estimator
from workers.forward.state import ffi


class Both:
    """The two estimators, told the same; they must believe the same after each word."""

    def __init__(self, settings: EstimatorSettings | None = None) -> None:
        self.pure = PythonEstimator(settings)
        self.native = NativeEstimator(settings)

    def sent(self, now: float, sequence: int, packets: int, octets: int) -> None:
        self.pure.sent(now, sequence, packets, octets)
        self.native.sent(now, sequence, packets, octets)

    def arrived(self, now: float, arrivals: list[tuple[int, int | None]]) -> None:
        self.pure.arrived(now, arrivals)
        self.native.arrived(now, arrivals)
        assert self.pure.take_told() == self.native.take_told()
        self.check(now)

    def check(self, now: float) -> None:
        for moment in (now, now + 3.0, now - 1.0):
            assert self.pure.state(moment) == self.native.state(moment)


@pytest.mark.parametrize("seed", range(6))
def test_they_agree_on_paths_that_narrow_and_lose(seed: int) -> None:
    both = Both()
    widths = (4e6, 1e6, 0.4e6, 2.5e6)
    path = FifoPath(both, lambda now: widths[int(now / 4 + seed) % 4], loss=0.03 * (seed % 4), seed=seed)
    congested = 0
    for second in range(24):
        path.run(1, (2.5e6, 0.8e6, 1.5e6)[second % 3], fps=(30, 15, 7.5)[second % 3])
        both.check(path.now)
        congested += both.pure.state(path.now).congested
    assert congested


ticks = st.one_of(st.none(), st.integers(0, 0xFFFFFFFF), st.integers(4000, 4400))
calls = st.one_of(
    st.tuples(st.just("sent"), st.integers(0, 0xFFFF), st.integers(0, 70), st.integers(0, 100_000)),
    st.tuples(st.just("next"), st.integers(0, 3), st.integers(1, 20), st.integers(1, 30_000)),
    st.tuples(st.just("arrived"), st.lists(st.tuples(st.integers(0, 0xFFFF), ticks), max_size=40)),
    st.tuples(st.just("report"), st.lists(st.one_of(st.none(), st.integers(-300, 3000)), max_size=60)),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.floats(0, 0.4), calls), max_size=60), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF))
def test_they_agree_on_anything(steps: list[tuple[float, Any]], sequence: int, clock: int) -> None:
    """ "next" and "report" go on where the last ones ended, as real senders and players do."""
    both, now, reported = Both(), 100.0, sequence
    for wait, call in steps:
        now += wait
        match call:
            case ("sent", number, packets, octets):
                both.sent(now, number, packets, octets)
            case ("next", gap, packets, octets):
                sequence += gap
                both.sent(now, sequence & 0xFFFF, packets, octets)
                sequence += packets
            case ("arrived", arrivals):
                both.arrived(now, arrivals)
            case ("report", deltas):
                arrivals = []
                for delta in deltas:
                    clock += delta or 0
                    arrivals.append((reported & 0xFFFF, None if delta is None else clock & 0xFFFFFFFF))
                    reported += 1
                both.arrived(now, arrivals)
        both.check(now)


@dataclass(frozen=True, slots=True)
class Weather:
    """How a path is for some `seconds`, and then nothing happens for the seconds of `silence`.

    `width` in bit/s; `loss`, `late`, `repeated` and `strange` are shares: of packets that are lost or overtaken by up
    to 50 ms, of feedback that comes twice or names any numbers and times.
    """

    seconds: float
    width: float
    fps: float
    packets: int
    octets: int
    loss: float
    late: float
    repeated: float
    strange: float
    pause: float
    silence: float


class Sky:
    """Drives a sender and a player through weathers. Both numbers are about to wrap around when it begins."""

    def __init__(self, both: Both, seed: int) -> None:
        self._both = both
        self._random = random.Random(seed)
        self._now = 100.0
        self._clock = 2**32 * TICK - self._now - 1.0
        self._number = self._reported = 0xFFF0
        self._free_at = 0.0
        self._arrivals: dict[int, float] = {}

    def pass_through(self, weather: Weather) -> None:
        until, report_at = self._now + weather.seconds, self._now + weather.pause
        while self._now < until:
            self._send(weather)
            self._now += 1 / weather.fps
            while report_at <= self._now:
                self._report(weather, report_at)
                report_at += weather.pause
        self._now += weather.silence
        self._both.check(self._now)

    def _send(self, weather: Weather) -> None:
        self._both.sent(self._now, self._number & 0xFFFF, weather.packets, weather.packets * weather.octets)
        for number in range(self._number, self._number + weather.packets):
            self._free_at = max(self._free_at, self._now) + weather.octets * 8 / weather.width
            if self._random.random() >= weather.loss:
                late = 0.05 * self._random.random() if self._random.random() < weather.late else 0.0
                self._arrivals[number] = self._free_at + 0.02 + late
        self._number += weather.packets

    def _report(self, weather: Weather, now: float) -> None:
        """On all numbers up to the highest that has arrived, and on those that were said to be lost and were late."""
        there = {number for number, at in self._arrivals.items() if at <= now}
        if not there:
            return
        first, last = min(*there, self._reported), max(there)
        said: list[tuple[int, int | None]] = []
        for number in range(max(first, last - 400), last + 1):
            at = self._arrivals.pop(number, None) if number in there else None
            if at is not None or number >= self._reported:
                said.append((number & 0xFFFF, None if at is None else int((at + self._clock) / TICK) & 0xFFFFFFFF))
        self._reported = max(self._reported, last + 1)
        self._both.arrived(now, said)
        if self._random.random() < weather.repeated:
            self._both.arrived(now, said)
        if self._random.random() < weather.strange:
            draw = self._random.getrandbits
            self._both.arrived(now, [(draw(16), draw(32) if draw(1) else None) for _ in range(draw(5))])


rare = st.sampled_from((0.0, 0.0, 0.0, 0.1))
weathers = st.builds(
    Weather,
    seconds=st.floats(0.2, 3.0),
    width=st.sampled_from((2e5, 6e5, 1e6, 3e6, 2e7)),
    fps=st.sampled_from((7.5, 15.0, 30.0, 60.0, 200.0)),
    packets=st.integers(1, 12),
    octets=st.integers(40, 1250),
    loss=st.sampled_from((0.0, 0.0, 0.02, 0.1, 0.4)),
    late=st.sampled_from((0.0, 0.0, 0.02, 0.3)),
    repeated=rare,
    strange=rare,
    pause=st.sampled_from((0.03, 0.05, 0.07, 0.25)),
    silence=st.sampled_from((0.0, 0.0, 0.4, 1.5, 40.0)),
)


def moved(kind: Any) -> dict[str, st.SearchStrategy[Any]]:
    """Strategies for a dataclass of settings, around the defaults."""
    chosen: dict[str, st.SearchStrategy[Any]] = {}
    for one in fields(kind):
        value = getattr(kind(), one.name)
        if isinstance(value, int):
            chosen[one.name] = st.integers(1, value if one.name == "runs" else value + 3)
        elif isinstance(value, float):
            chosen[one.name] = st.sampled_from(
                (value, value, 0.2 * value, 0.7 * value, 1.5 * value, 10.0 * value, 30.0 * value)
            )
    return chosen


@settings(deadline=None, max_examples=150)
@given(
    st.one_of(
        st.just(EstimatorSettings()),
        st.builds(
            EstimatorSettings,
            **moved(EstimatorSettings),
            losses=st.builds(LossSettings, **moved(LossSettings)),
            trendline=st.builds(TrendlineSettings, **moved(TrendlineSettings)),
        ),
    ),
    st.lists(weathers, min_size=1, max_size=8),
    st.integers(0, 2**32),
    st.booleans(),
)
def test_they_agree_in_any_weather_whatever_the_settings(
    chosen: EstimatorSettings, days: list[Weather], seed: int, watched: bool
) -> None:
    both = Both(chosen)
    both.pure.watched = both.native.watched = watched
    sky = Sky(both, seed)
    for weather in days:
        sky.pass_through(weather)


@pytest.mark.parametrize("overuse", [0.01, 0.05, 0.09, 0.13])
def test_a_queue_that_grows_is_seen_with_the_same_frame(overuse: float) -> None:
    both = Both(EstimatorSettings(guard=0.001, trendline=TrendlineSettings(overuse=overuse)))
    congested = []
    for frame in range(40):
        now, delay = 10.0 + 0.04 * frame, 0.03 + 0.008 * max(0, frame - 20)
        both.sent(now, 2 * frame, 2, 2400)
        arrival = int((now + delay) / TICK)
        both.arrived(now + 0.2, [(2 * frame, arrival), (2 * frame + 1, arrival + 4)])
        congested.append(both.native.state(now + 0.2).congested)
    assert not any(congested[:21])
    assert any(congested)


@pytest.mark.parametrize("leap", [2**31 - 1, -(2**31)])
def test_a_clock_that_leaps_on_and_on_stops_somewhere(leap: int) -> None:
    both = Both()
    both.sent(1.0, 0, 60_000, 60_000)
    clock = 0
    for turn in range(140):
        arrivals: list[tuple[int, int | None]] = []
        for number in range(1000):
            arrivals.append((number, clock & 0xFFFFFFFF))
            clock += leap
        both.arrived(1.0 + turn * 0.01, arrivals)
    assert abs(clock) > FARTHEST
    assert abs(both.native.pointer.ticks) == FARTHEST


def test_other_settings_are_followed() -> None:
    chosen = EstimatorSettings(gap=0.004, window=6, back_off=0.8, trendline=TrendlineSettings(window=10, smoothing=0.9))
    both = Both(chosen)
    path = FifoPath(both, lambda now: 3e6 if now < 4 else 0.7e6)
    path.run(8, 2e6)
    both.check(path.now)


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        (EstimatorSettings(window=98), "window is 98, and the kernel has room for 15"),
        (EstimatorSettings(runs=129), "runs is 129, and the kernel has room for 128"),
        (EstimatorSettings(delays=0), "delays is 0, and the kernel needs one at least"),
        (EstimatorSettings(losses=LossSettings(stretches=0)), "losses.stretches is 0, and the kernel needs one"),
        (EstimatorSettings(trendline=TrendlineSettings(window=0)), "trendline.window is 0"),
        (EstimatorSettings(slot=0.0), "slot is 0.0, and no length of time"),
        (EstimatorSettings(losses=LossSettings(judge=float("nan"))), "losses.judge is nan, and no length of time"),
    ],
)
def test_settings_that_the_arrays_cannot_follow_are_refused(chosen: EstimatorSettings, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        NativeEstimator(chosen)


def test_the_kernel_has_every_setting_and_viewers_share_them() -> None:
    """A setting of one alone would be 0 in C, or would not be followed there."""
    kinds = (EstimatorSettings, LossSettings, TrendlineSettings)
    both = {one.name for kind in kinds for one in fields(kind)} - {"losses"}
    renamed = {"short": "short_window", "trendline": "points"}
    names = {name for name, _ in ffi.typeof("bc_path_settings").fields}
    assert names == {renamed.get(name, name) for name in both}
    assert NativeEstimator().pointer.settings == NativeEstimator(EstimatorSettings()).pointer.settings


def test_a_viewer_costs_little_memory() -> None:
    assert ffi.sizeof("bc_path") <= 8192


@pytest.mark.parametrize("kind", [NativeEstimator, PythonEstimator])
def test_news_are_congestion_or_anything_while_it_is_watched(kind: Any) -> None:
    estimator = kind()
    path: Any = FifoPath(estimator, lambda now: 4e6 if now < 3 else 0.8e6)
    path.run(3, 2e6)
    assert not estimator.take_told()
    estimator.watched = True
    path.run(0.1, 2e6)
    assert estimator.take_told()
    assert not estimator.take_told()
    estimator.arrived(path.now, [(30_000, 7), (30_001, None)])
    assert not estimator.take_told(), "nobody sent what this is about"
    estimator.watched = False
    while not estimator.state(path.now).congested:
        path.run(0.05, 2e6)
    assert estimator.take_told()
    path.run(0.1, 2e6)
    assert estimator.state(path.now).congested
    assert estimator.take_told(), "what is decided depends on how long it lasts"


def test_python_estimates_where_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(path_estimator(), NativeEstimator)
    monkeypatch.setattr(estimate, "lib", None)
    assert isinstance(path_estimator(), PythonEstimator)


def test_no_sanitizer_finds_anything(tmp_path: Path) -> None:
    assert_nothing_found(tmp_path, "estimate_harness.c")
