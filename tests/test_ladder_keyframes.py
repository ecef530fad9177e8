"""Keyframe requests: merged, limited, and fast when there was none for a while."""

from __future__ import annotations

from broadcaster.ladder import KeyframeConfig, KeyframeGate


def keyframes(gate: KeyframeGate, requests: list[float], seconds: float) -> list[float]:
    """Pictures at 30 fps; the times of those that become keyframes."""
    waiting = sorted(requests)
    made = []
    for index in range(int(seconds * 30)):
        now = index / 30
        while waiting and waiting[0] <= now:
            waiting.pop(0)
            gate.request()
        if gate.due(now):
            made.append(now)
            gate.made(now)
    return made


def test_a_request_is_served_with_the_very_next_picture() -> None:
    made = keyframes(KeyframeGate(), [1.01], 3.0)
    assert made == [31 / 30]


def test_requests_in_the_cool_down_are_merged_and_served_at_its_end() -> None:
    made = keyframes(KeyframeGate(), [1.0, 1.1, 1.2, 1.3, 1.4], 4.0)
    assert made == [1.0, 1.5]


def test_a_flood_of_requests_gets_two_keyframes_a_second() -> None:
    gate = KeyframeGate(KeyframeConfig(interval=0.5))
    made = keyframes(gate, [index / 100 for index in range(1000)], 10.0)
    assert 19 <= len(made) <= 21
    assert gate.requests > 990


def test_the_patient_wait_until_keyframes_for_them_alone_are_rare() -> None:
    gate = KeyframeGate(KeyframeConfig(interval=0.5, patient_interval=3.5))
    made = []
    for index in range(30 * 21):
        now = index / 30
        gate.request(patient=True)
        if gate.due(now):
            made.append(now)
            gate.made(now)
    assert len(made) == 6
    assert made[:2] == [0.0, 3.5]


def test_the_patient_are_served_by_what_was_made_for_others() -> None:
    gate = KeyframeGate(KeyframeConfig(interval=0.5, patient_interval=3.5))
    gate.made(0.0)
    gate.request(patient=True)
    assert not gate.due(1.0)
    gate.request()
    gate.request(patient=True)
    assert gate.due(1.0), "one of them is not patient"
    gate.made(1.0)
    assert not gate.due(60.0)
    gate.request(patient=True)
    assert not gate.due(4.4)
    assert gate.due(4.5)


def test_nobody_asks_nothing_is_forced() -> None:
    assert keyframes(KeyframeGate(), [], 10.0) == []


def test_a_keyframe_for_another_reason_answers_requests_too() -> None:
    gate = KeyframeGate()
    gate.request()
    gate.made(0.0)
    assert not gate.due(5.0)
    gate.request()
    assert gate.due(5.0)
