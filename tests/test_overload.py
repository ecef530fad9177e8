"""OverloadMeter: late or dropping for a while is overload; a single hiccup is not, and relief takes longer."""

from __future__ import annotations

import pytest

from workers.overload import OverloadMeter


@pytest.mark.parametrize(("lag", "dropped"), [(0.08, 0), (0.0, 50)])
def test_overload_is_what_lasts_and_so_is_relief(lag: float, dropped: int) -> None:
    meter, drops = OverloadMeter(), 0
    found = []
    for now in range(40):
        strained = 10 <= now < 20
        drops += dropped if strained else 0
        overloaded = meter.update(float(now), lag=lag if strained else 0.001, counts={"v-1": (1000 * now, drops)})
        found.append(overloaded)
    assert not any(found[:12])
    assert all(found[12:30])
    assert not any(found[31:])


def test_a_hiccup_is_nothing() -> None:
    meter = OverloadMeter()
    for now in range(60):
        late = now % 5 == 0
        assert not meter.update(float(now), lag=0.2 if late else 0.0, counts={"v-1": (1000 * now, 40 * (now // 5))})


def test_viewers_that_come_and_go_hide_nothing_and_make_nothing_up() -> None:
    """As many packets go with those who leave as are sent meanwhile, so that the sum of all stands still."""
    for drops, overloaded in ((1, False), (50, True)):
        meter = OverloadMeter()
        for now in range(30):
            counts = {str(viewer): (1000 * (now - viewer), drops * (now - viewer)) for viewer in range(now - 5, now)}
            found = meter.update(float(now), lag=0.0, counts=counts)
        assert found is overloaded


def test_a_viewer_that_cannot_be_reached_is_no_overload() -> None:
    meter = OverloadMeter()
    for now in range(30):
        counts = {"gone": (500, 900 * now), "here": (1000 * now, 0)}
        assert not meter.update(float(now), lag=0.0, counts=counts)


@pytest.mark.parametrize(("drops", "overloaded"), [(10, False), (11, True)])
def test_what_was_dropped_is_a_share_of_what_should_have_left(drops: int, overloaded: bool) -> None:
    """Of 1000 packets, ten are the hundredth that is allowed."""
    meter = OverloadMeter()
    for now in range(10):
        counts = {"v-1": ((1000 - drops) * now, drops * now)}
        found = meter.update(float(now), lag=0.0, counts=counts)
    assert found is overloaded
