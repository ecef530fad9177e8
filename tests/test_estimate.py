"""The estimator by the kernel: the same bits as the pure one, whatever is sent and reported."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.adaptation.estimator import EstimatorSettings, PathEstimator
from broadcaster.adaptation.trendline import TrendlineSettings
from tests.fifo_path import FifoPath
from workers.forward import estimate
from workers.forward.estimate import NativeEstimator, PythonEstimator, path_estimator


class Both:
    """The two estimators, told the same; they must believe the same after each word."""

    def __init__(self, settings: EstimatorSettings | None = None) -> None:
        self.pure = PathEstimator(settings)
        self.native = NativeEstimator(settings)

    def sent(self, now: float, sequence: int, packets: int, octets: int) -> None:
        self.pure.sent(now, sequence, packets, octets)
        self.native.sent(now, sequence, packets, octets)

    def arrived(self, now: float, arrivals: list[tuple[int, int | None]]) -> None:
        self.pure.arrived(now, arrivals)
        self.native.arrived(now, arrivals)
        self.check(now)

    def check(self, now: float) -> None:
        assert self.pure.state(now) == self.native.state(now)
        assert self.pure.state(now + 3.0) == self.native.state(now + 3.0)


@pytest.mark.parametrize("seed", range(6))
def test_they_agree_on_paths_that_narrow_and_lose(seed: int) -> None:
    both = Both()
    widths = (4e6, 1e6, 0.4e6, 2.5e6)
    path: Any = FifoPath(both, lambda now: widths[int(now / 4 + seed) % 4], loss=0.03 * (seed % 4), seed=seed)  # type: ignore[arg-type]
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


def test_other_settings_are_followed_and_more_than_fits_is_refused() -> None:
    chosen = EstimatorSettings(gap=0.004, window=6, back_off=0.8, trendline=TrendlineSettings(window=10, smoothing=0.9))
    both = Both(chosen)
    path: Any = FifoPath(both, lambda now: 3e6 if now < 4 else 0.7e6)  # type: ignore[arg-type]
    path.run(8, 2e6)
    both.check(path.now)
    with pytest.raises(ValueError, match="window is 98, and the kernel has room for 15"):
        NativeEstimator(EstimatorSettings(window=98))


@pytest.mark.parametrize("kind", [NativeEstimator, PythonEstimator])
def test_news_are_congestion_that_begins_or_anything_while_it_is_watched(kind: Any) -> None:
    estimator = kind()
    path: Any = FifoPath(estimator, lambda now: 4e6 if now < 3 else 0.8e6)
    path.run(3, 2e6)
    assert not estimator.take_told()
    estimator.watched = True
    path.run(0.1, 2e6)
    assert estimator.take_told()
    assert not estimator.take_told()
    estimator.watched = False
    told = 0
    for _ in range(10):
        path.run(0.1, 2e6)
        told += estimator.take_told()
    assert told == 1


def test_python_estimates_where_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(path_estimator(), NativeEstimator)
    monkeypatch.setattr(estimate, "lib", None)
    assert isinstance(path_estimator(), PythonEstimator)
