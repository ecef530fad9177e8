"""What a slow worker loses: whole frames, up to a keyframe, and only of rungs that lost some."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broadcaster.link.backlog import Backlog, BacklogLimits
from broadcaster.stream import EncodedFrame


def frame(rung: int, index: int, *, keyframe: bool = False, size: int = 100) -> EncodedFrame:
    return EncodedFrame(rung, index, index * 3000, keyframe, 0, False, bytes(size))


def push(backlog: Backlog, one: EncodedFrame, now: float = 0.0) -> None:
    backlog.push(one, b"%d:%d:" % (one.rung, one.index) + one.payload, now)


def popped(backlog: Backlog) -> list[tuple[int, int]]:
    out = []
    while backlog:
        rung, index, _ = backlog.pop().split(b":", 2)
        out.append((int(rung), int(index)))
    return out


def test_only_demanded_rungs_from_a_keyframe_on() -> None:
    backlog = Backlog()
    push(backlog, frame(0, 0, keyframe=True))
    assert backlog.demand({1}) == {1}
    assert backlog.starved() == {1}
    push(backlog, frame(0, 1, keyframe=True))
    push(backlog, frame(1, 1))
    push(backlog, frame(1, 2, keyframe=True))
    push(backlog, frame(1, 3))
    assert backlog.starved() == set()
    assert popped(backlog) == [(1, 2), (1, 3)]
    assert backlog.dropped == 1


def test_a_rung_demanded_again_starts_at_a_keyframe_again() -> None:
    backlog = Backlog()
    backlog.demand({0})
    push(backlog, frame(0, 0, keyframe=True))
    backlog.demand(set())
    assert backlog.demand({0}) == {0}
    push(backlog, frame(0, 5))
    assert popped(backlog) == [(0, 0)]


def test_size_is_bounded_and_rungs_without_loss_go_on() -> None:
    backlog = Backlog(BacklogLimits(size=1000, age=10))
    backlog.demand({0, 1})
    push(backlog, frame(1, 0, keyframe=True))
    assert popped(backlog) == [(1, 0)]
    push(backlog, frame(0, 0, keyframe=True, size=600))
    push(backlog, frame(0, 1, size=600))
    assert len(backlog) == 0
    assert backlog.dropped == 2
    assert backlog.starved() == {0}
    push(backlog, frame(1, 1))
    push(backlog, frame(0, 2))
    push(backlog, frame(0, 3, keyframe=True))
    assert popped(backlog) == [(1, 1), (0, 3)]


def test_age_is_bounded_and_a_keyframe_that_meets_the_limit_is_kept() -> None:
    backlog = Backlog(BacklogLimits(size=10_000, age=1.0))
    backlog.demand({0})
    push(backlog, frame(0, 0, keyframe=True), now=5.0)
    push(backlog, frame(0, 1), now=6.0)
    assert len(backlog) == 2
    push(backlog, frame(0, 2, keyframe=True), now=6.1)
    assert popped(backlog) == [(0, 2)]
    assert backlog.dropped == 2


def test_one_frame_may_wait_whatever_its_size() -> None:
    backlog = Backlog(BacklogLimits(size=1000, age=1.0))
    backlog.demand({0})
    push(backlog, frame(0, 0, keyframe=True, size=50_000))
    assert popped(backlog) == [(0, 0)]


def test_a_restart_needs_keyframes_everywhere() -> None:
    backlog = Backlog()
    backlog.demand({0, 1})
    push(backlog, frame(0, 0, keyframe=True))
    push(backlog, frame(1, 0, keyframe=True))
    backlog.restart()
    assert backlog.starved() == {0, 1}
    push(backlog, frame(0, 1))
    assert popped(backlog) == []


steps = st.lists(
    st.tuples(st.integers(0, 2), st.booleans(), st.integers(1, 600), st.floats(0, 0.5), st.integers(0, 2)), max_size=60
)


@given(steps)
def test_what_comes_out_is_always_decodable_and_bounded(script: list[tuple[int, bool, int, float, int]]) -> None:
    limits = BacklogLimits(size=1000, age=1.0)
    backlog = Backlog(limits)
    backlog.demand({0, 1})
    now = 0.0
    pushed: dict[int, list[bool]] = {0: [], 1: [], 2: []}
    last: dict[int, int] = {}
    sent = lost = 0
    for rung, keyframe, size, passed, pops in script:
        now += passed
        index = len(pushed[rung])
        pushed[rung].append(keyframe)
        push(backlog, frame(rung, index, keyframe=keyframe, size=size), now)
        lost += rung < 2
        assert len(backlog) <= 1 or backlog._size <= limits.size
        for _ in range(min(pops, len(backlog))):
            got, number, _ = backlog.pop().split(b":", 2)
            source, place = int(got), int(number)
            assert source in (0, 1)
            assert pushed[source][place] or last.get(source) == place - 1
            last[source] = place
            sent += 1
    assert lost == sent + backlog.dropped + len(backlog)
