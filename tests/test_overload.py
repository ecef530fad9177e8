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
        overloaded = meter.update(float(now), lag=lag if strained else 0.001, packets=1000 * now, drops=drops)
        found.append(overloaded)
    assert not any(found[:12])
    assert all(found[12:30])
    assert not any(found[31:])


def test_a_hiccup_is_nothing() -> None:
    meter = OverloadMeter()
    for now in range(60):
        late = now % 5 == 0
        assert not meter.update(float(now), lag=0.2 if late else 0.0, packets=1000 * now, drops=40 * (now // 5))
