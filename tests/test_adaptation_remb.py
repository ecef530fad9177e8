"""RembEstimator: how far a REMB is believed, and what says that the path is congested."""

from __future__ import annotations

import pytest

from broadcaster.adaptation.path import PathState
from broadcaster.adaptation.remb import RembEstimator


class Player:
    """Sends at `rate` bit/s, and gets a REMB three times a second and a report each second."""

    def __init__(self) -> None:
        self.estimator = RembEstimator()
        self.now = 0.0
        self.octets = self.packets = self.repeats = 0

    def run(
        self, seconds: float, rate: float, remb: float, *, grows: float = 1.0, repeats: float = 0.0, rtt: float = 0.04
    ) -> PathState:
        for step in range(int(seconds * 3)):
            self.now += 1 / 3
            self.octets += int(rate / 8 / 3)
            self.packets += 40
            self.repeats += int(40 * repeats)
            self.estimator.counted(self.now, octets=self.octets, packets=self.packets, repeats=self.repeats)
            self.estimator.estimated(self.now, remb * grows ** (step / 3))
            if step % 3 == 0:
                self.estimator.reported(self.now, loss=0.0, rtt=rtt)
        return self.estimator.state(self.now)


def test_a_remb_counts_as_far_as_so_much_has_arrived() -> None:
    state = Player().run(10, 1e6, 1.6e6)
    assert state.estimate == pytest.approx(1e6, rel=0.1)
    assert not state.congested


def test_a_probe_shows_more() -> None:
    player = Player()
    player.run(10, 1e6, 1.6e6)
    state = player.run(3, 1.5e6, 2e6)
    assert state.estimate == pytest.approx(1.5e6, rel=0.1)


def test_a_remb_below_what_is_sent_is_congestion() -> None:
    player = Player()
    player.run(10, 2e6, 3.2e6)
    state = player.run(1, 2e6, 0.8e6)
    assert state.congested
    assert state.estimate == 0.8e6


def test_a_remb_that_still_climbs_is_none() -> None:
    player = Player()
    player.run(5, 0.8e6, 1.16e6)
    assert not player.run(4, 2.2e6, 1.16e6, grows=1.08).congested


def test_a_remb_that_falls_steadily_is_congestion_before_it_is_low() -> None:
    player = Player()
    player.run(10, 1e6, 1.6e6)
    assert player.run(4, 1e6, 1.6e6, grows=0.92).congested


def test_packets_asked_for_again_and_again_are_congestion() -> None:
    player = Player()
    assert not player.run(10, 1e6, 1.6e6, repeats=0.05).congested
    assert player.run(4, 1e6, 1.6e6, repeats=0.15).congested


def test_the_way_back_and_forth_tells_of_a_queue() -> None:
    player = Player()
    player.run(5, 1e6, 1.6e6)
    assert player.run(2, 1e6, 1.6e6, rtt=0.24).queue_delay == pytest.approx(0.2)


def test_a_remb_that_nobody_repeats_is_forgotten() -> None:
    player = Player()
    player.run(5, 1e6, 1.6e6)
    assert player.estimator.state(player.now + 4).estimate is not None
    state = player.estimator.state(player.now + 6)
    assert state.estimate is None
    assert state.silent > 4
