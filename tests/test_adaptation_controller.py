"""Controller: one viewer on a queue that narrows and widens, or does not."""

from __future__ import annotations

from collections import deque

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from broadcaster.adaptation.controller import Controller
from broadcaster.adaptation.levels import Level
from tests.fifo_path import FifoPath
from tests.three_rungs import LEVELS, TOP, level


def watch(controller: Controller, path: FifoPath[Controller], seconds: float) -> None:
    """A viewer that is sent what its controller says, picture by picture."""
    owed, end, number = 0.0, path.now + seconds, 0
    reported = path.now
    while path.now < end:
        here = controller.level
        bitrate = max(0.0 if here is None else 1.06 * here.bitrate, controller.probe)
        every = 1 if controller.probe or here is None else round(30 / here.fps)
        owed += bitrate / 30 / 8 / 1200
        number += 1
        if number % every == 0:
            path.send(int(owed))
            owed -= int(owed)
        path.wait(1 / 30)
        controller.tick(path.now)
        if path.now - reported >= 1.0:
            reported = path.now
            controller.reported(path.now, loss=path.loss, rtt=0.06 + path.queue, jitter=0.001)


def test_down_with_the_link_at_once_and_up_again_within_ten_seconds() -> None:
    controller = Controller(LEVELS, level("360p", 30.0))
    path = FifoPath(controller, lambda now: 1e6 if 20 <= now < 40 else 4e6)
    watch(controller, path, 10)
    assert controller.level == TOP
    watch(controller, path, 10)
    assert controller.level == TOP
    watch(controller, path, 1.5)
    assert controller.level is not None
    assert controller.level.bitrate <= 800_000
    watch(controller, path, 18.5)
    assert controller.level == level("360p", 30.0)
    watch(controller, path, 10)
    assert controller.level == TOP


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    capacity=st.floats(130_000, 8e6),
    loss=st.sampled_from([0.0, 0.01, 0.02, 0.1]),
    start=st.sampled_from(LEVELS),
    seed=st.integers(0, 100),
)
def test_a_steady_link_switches_at_most_twice_a_minute(capacity: float, loss: float, start: Level, seed: int) -> None:
    # Where a level needs just about what the path carries, every breath decides, and it is not steady.
    assume(not any(0.9 < capacity / (1.06 * level.bitrate) < 1.2 for level in LEVELS))
    controller = Controller(LEVELS, start)
    path = FifoPath(controller, lambda _: capacity, loss=loss, seed=seed)
    watch(controller, path, 140)
    recent: deque[float] = deque(maxlen=3)
    for at, _ in controller.decisions:
        if at >= 20:
            recent.append(at)
            assert len(recent) < 3 or recent[2] - recent[0] >= 60, controller.decisions
