"""A line that becomes too narrow while a browser plays: the level follows, and the picture goes on."""

from __future__ import annotations

import pytest

from benchmarks.browser import watch
from benchmarks.networks import Network
from benchmarks.playing import levels
from tests.browsers import chromium

DROP = 2.0
LINE = Network("narrow", 10.0, ((0.0, 4e6), (DROP, 4e5)), drops=(DROP,), settle=3.0)


@pytest.mark.browser
@pytest.mark.processes
async def test_a_drop_to_a_tenth_lowers_the_level_and_the_picture_goes_on() -> None:
    async with chromium() as browser:
        seen = await watch(LINE, browser)
    seconds = seen.viewers[0].seconds
    before, last = [one for one in seconds if one.at < DROP], seconds[-2:]
    assert before[-1].fps > 25
    assert before[-1].received > 2e5  # 360p at least; a busy machine may not have climbed higher
    took = levels(seen)["fits_after_drop_s"]
    assert took is not None
    assert 0 < took < 6
    for one in last:
        assert one.level is not None
        assert one.best is not None
        assert one.level.bitrate <= one.best.bitrate
        assert one.fps > 5
        assert one.gap < 1
        assert one.queue < 0.3
