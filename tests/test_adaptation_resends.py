"""Resends: what is taken for chance, and where there is room."""

from __future__ import annotations

import pytest

from broadcaster.adaptation.path import PathState
from broadcaster.adaptation.resends import Resends, ResendSettings


@pytest.fixture
def resends() -> Resends:
    return Resends(ResendSettings(copies=(0.004, 0.03)))


@pytest.mark.parametrize(("loss", "copies"), [(0.003, 1), (0.005, 2), (0.031, 3), (0.3, 3)])
def test_the_more_chance_takes_the_oftener(resends: Resends, loss: float, copies: int) -> None:
    resends.see(PathState(loss=loss, excess_loss=0.0), loses=False, probing=False, of_probe=False)
    assert (resends.copies, resends.tight) == (copies, False)


def test_what_the_rate_takes_is_not_chances(resends: Resends) -> None:
    resends.see(PathState(loss=0.1, excess_loss=0.1), loses=True, probing=False, of_probe=False)
    assert (resends.copies, resends.tight) == (1, True)
    resends.see(PathState(loss=0.1, excess_loss=0.0, congested=True), loses=False, probing=False, of_probe=False)
    assert (resends.copies, resends.tight) == (1, True)


@pytest.mark.parametrize(("probing", "of_probe"), [(True, False), (False, True)])
def test_while_a_probe_or_its_losses_are_told_of_chance_stays_what_it_was(
    resends: Resends, probing: bool, of_probe: bool
) -> None:
    resends.see(PathState(loss=0.01, excess_loss=0.0), loses=False, probing=False, of_probe=False)
    resends.see(PathState(loss=0.1, excess_loss=0.0), loses=False, probing=probing, of_probe=of_probe)
    assert resends.copies == 2


def test_what_a_probe_took_finds_room(resends: Resends) -> None:
    resends.see(PathState(loss=0.3, excess_loss=0.3, congested=True), loses=True, probing=False, of_probe=True)
    assert (resends.copies, resends.tight) == (1, False)
