"""Gauge: what is measured of a viewer between two looks, and whom it believes about the path."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from broadcaster.adaptation.path import PathState
from broadcaster.adaptation.samples import Sample
from workers.forward.feedback import Feedback
from workers.gauge import Gauge, without


def outlet(**counted: Any) -> Any:
    """One whose path is estimated as `path`, and that has sent and heard nothing else than what is given."""
    found = {
        "octets": 0,
        "rtx_octets": 0,
        "sound_octets": 0,
        "wire_octets": 0,
        "packets": 0,
        "sound_is_estimated": False,
        "feedback": Feedback(),
        "history": SimpleNamespace(repeats=0),
        "path": PathState(),
    }
    one = SimpleNamespace(**found | counted)
    one.estimator = SimpleNamespace(state=lambda now: one.path)
    return one


def test_a_player_that_reports_but_sends_no_transport_wide_feedback_is_not_silent() -> None:
    gauge, one = Gauge(0.0), outlet(path=PathState(silent=9.0))
    assert gauge.believe(one, 10.0, Sample()).silent == 7.0, "it has said nothing at all"
    one.feedback = Feedback(reported_at=9.5, rtt=0.04)
    assert gauge.believe(one, 10.0, Sample(packet_loss=0.0)).silent == 0.0
    one.path = PathState(silent=9.0, measured=1)
    assert gauge.believe(one, 11.0, Sample()) is one.path, "it does send it, after all"
    assert gauge.path is one.path


def test_what_left_between_two_looks_is_a_bitrate_and_what_was_reported_a_loss() -> None:
    gauge, one = Gauge(10.0), outlet(octets=100_000, rtx_octets=25_000)
    assert gauge.shows(one)
    assert gauge.measure(one, 11.0) == Sample(sent_bitrate=1e6)
    assert not gauge.shows(one)
    one.octets += 50_000
    one.feedback = Feedback(packets_expected=200, packets_lost=10, rtt=0.05, jitter=0.001)
    assert gauge.measure(one, 13.0) == Sample(packet_loss=0.05, rtt=0.05, jitter=0.001, sent_bitrate=200_000)
    assert gauge.measure(one, 14.0) == Sample(rtt=0.05, jitter=0.001, sent_bitrate=0), "no report came"
    assert (gauge.bitrate, gauge.loss) == (0, 0.05), "what is told goes on to be the last one"


def test_time_in_which_nothing_was_to_be_sent_does_not_count() -> None:
    gauge, one = Gauge(0.0), outlet()
    gauge.rest(9.0)
    one.octets = 125_000
    assert gauge.measure(one, 10.0).sent_bitrate == 1e6


def test_the_sound_is_taken_from_what_was_estimated_with_it() -> None:
    gauge, one = Gauge(0.0), outlet(sound_octets=10_000, path=PathState(estimate=500_000.0, measured=1))
    assert gauge.sounds(one, 1.0)
    assert gauge.sound_bitrate == 80_000
    assert gauge.believe(one, 1.0, Sample()).estimate == 500_000
    one.sound_is_estimated = True
    assert gauge.believe(one, 1.0, Sample()).estimate == 420_000
    assert gauge.path.estimate == 420_000
    assert not gauge.sounds(one, 2.0)


def test_the_sound_is_taken_from_what_the_path_carries() -> None:
    path = PathState(estimate=500_000.0, throughput=60_000.0, capacity=9e6)
    left = without(path, 80_000.0)
    assert (left.estimate, left.throughput, left.capacity) == (420_000.0, 0.0, 9e6)
    assert without(PathState(), 80_000.0) == PathState()
    assert without(path, 0.0) is path
