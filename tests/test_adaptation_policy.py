"""The rules and the health of a connection, as tables."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcaster.adaptation import policy
from broadcaster.adaptation.samples import Sample, health, known


@pytest.mark.parametrize(
    ("rule", "sample", "expected"),
    [
        (policy.loss_is_high, Sample(packet_loss=0.051), True),
        (policy.loss_is_high, Sample(packet_loss=0.05), False),
        (policy.loss_is_high, Sample(), False),
        (policy.loss_is_low, Sample(packet_loss=0.019), True),
        (policy.loss_is_low, Sample(packet_loss=0.02), False),
        (policy.loss_is_low, Sample(), False),
        (policy.loss_is_minimal, Sample(packet_loss=0.0), True),
        (policy.loss_is_minimal, Sample(packet_loss=0.015), False),
        (policy.loss_is_minimal, Sample(), False),
        (policy.rtt_is_high, Sample(rtt=0.31), True),
        (policy.rtt_is_high, Sample(rtt=0.29), False),
        (policy.rtt_is_high, Sample(rtt=0.62, rtt_min=0.6), False),
        (policy.rtt_is_high, Sample(rtt=1.3, rtt_min=0.6), True),
        (policy.rtt_is_high, Sample(rtt=0.31, rtt_min=0.02), True),
        (policy.rtt_is_high, Sample(), False),
        (policy.rtt_is_low, Sample(rtt=0.1), True),
        (policy.rtt_is_low, Sample(rtt=0.2), False),
        (policy.rtt_is_low, Sample(rtt=0.62, rtt_min=0.6), True),
        (policy.rtt_is_low, Sample(), False),
        (policy.should_reduce, Sample(packet_loss=0.08), True),
        (policy.should_reduce, Sample(packet_loss=0.0, rtt=0.5), True),
        (policy.should_reduce, Sample(packet_loss=0.0, rtt=0.05), False),
        (policy.should_reduce, Sample(), False),
        (policy.should_increase, Sample(packet_loss=0.0, rtt=0.05), True),
        (policy.should_increase, Sample(packet_loss=0.0), False),
        (policy.should_increase, Sample(rtt=0.05), False),
        (policy.should_increase, Sample(packet_loss=0.03, rtt=0.05), False),
        (policy.should_increase, Sample(), False),
    ],
)
def test_rules_of_loss_and_rtt(rule: Any, sample: Sample, expected: bool) -> None:
    assert rule(sample) is expected


@pytest.mark.parametrize(
    ("estimate", "sent", "low", "room"),
    [
        (800_000, None, True, False),
        (860_000, None, False, False),
        (1_400_000, None, False, True),
        (800_000, 500_000, False, True),  # an easy picture needs less than the level's bitrate
        (400_000, 500_000, True, False),
        (800_000, 3_000_000, True, False),  # a burst does not raise what the level needs
        (None, 500_000, False, True),
    ],
)
def test_the_estimate_against_a_level_of_one_megabit(
    estimate: float | None, sent: float | None, low: bool, room: bool
) -> None:
    sample = Sample(estimate=estimate, sent_bitrate=sent)
    assert policy.estimate_is_low(sample, 1_000_000) is low
    assert policy.estimate_has_room(sample, 1_000_000) is room


def test_a_bitrate_fits_only_an_estimate_that_is_known() -> None:
    assert policy.estimate_fits(Sample(estimate=1_000_000), 900_000)
    assert not policy.estimate_fits(Sample(estimate=1_000_000), 950_000)
    assert not policy.estimate_fits(Sample(), 1)


def test_thresholds_can_be_moved() -> None:
    assert policy.loss_is_high(Sample(packet_loss=0.03), policy.Thresholds(loss_high=0.02))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (1.5, 1.5),
        (-0.1, None),
        (math.nan, None),
        (math.inf, None),
        ("0.1", None),
        (None, None),
        (True, None),
        (10**400, None),
    ],
)
def test_only_measurements_are_known(value: object, expected: float | None) -> None:
    assert known(value) == expected


def test_a_loss_above_all_is_all() -> None:
    assert Sample(packet_loss=3.0).packet_loss == 1.0


@pytest.mark.parametrize(
    ("sample", "score", "word"),
    [
        (Sample(packet_loss=0.0, rtt=0.05, jitter=0.001), 1.0, "good"),
        (Sample(packet_loss=0.04, rtt=0.05), 0.8, "good"),
        (Sample(packet_loss=0.1, rtt=0.05), 0.5, "fair"),
        (Sample(packet_loss=0.0, rtt=1.0), 0.5, "fair"),
        (Sample(packet_loss=0.2, rtt=0.05), 0.0, "poor"),
        (Sample(rtt=0.05, jitter=0.2), 0.5, "fair"),
    ],
)
def test_health(sample: Sample, score: float, word: str) -> None:
    found = health(sample)
    assert found is not None
    assert found.score == pytest.approx(score)
    assert found.word == word


def test_health_is_unknown_without_loss_and_rtt() -> None:
    assert health(Sample(jitter=0.1, estimate=1e6)) is None


number = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.integers(), st.text(max_size=2))


@given(st.builds(Sample, number, number, number, number, number, number))
def test_no_rule_fails_on_any_measurement(sample: Sample) -> None:
    verdict = health(sample)
    assert verdict is None or 0.0 <= verdict.score <= 1.0
    assert not (policy.should_reduce(sample) and policy.should_increase(sample))
