"""Reasons in plain words: true for each rule, and never a word about what is not known."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcaster.adaptation.decision import Rule, State
from broadcaster.adaptation.probing import ProbeResult
from broadcaster.adaptation.words import reason

TOP, SLOW, SMALL = State(30.0, "720p", 2_500_000), State(15.0, "720p", 1_500_000), State(30.0, "360p", 800_000)
PAUSED = State(0.0, None, 0)


@pytest.mark.parametrize(
    ("rule", "before", "after", "inputs", "probe", "said"),
    [
        (
            "loss-high", TOP, SLOW, {"packet_loss": 0.081}, None,
            "8 % of the packets were lost on the way to you. So you get fewer pictures a second: 15 instead of 30.",
        ),
        (
            "headroom", SMALL, TOP, {}, ProbeResult(3_050_000, 2_900_000, "passed"),
            "A test with 3.0 Mbit/s went through. So the picture is better: 720p at 30 pictures a second.",
        ),
        (
            "estimate-low", TOP, SMALL, {"estimate": 930_000.0}, ProbeResult(3_050_000, None, "failed"),
            "Your connection carries 930 kbit/s now. So the picture is smaller: 360p at 30 pictures a second.",
        ),
        ("pause", SMALL, PAUSED, {}, None,
         "Your connection carries next to nothing at the moment. The picture pauses until there is room."),
        ("resume", PAUSED, SMALL, {}, None, "Your connection may carry the picture again. The picture comes back."),
        ("loss-low", SLOW, TOP, {}, None,
         "Hardly any packets are lost any more. So you get more pictures a second: 30 instead of 15."),
        ("rtt-high", TOP, SMALL, {"rtt": 0.612}, None,
         "Your connection takes long to answer, 612 ms. So the picture is smaller: 360p at 30 pictures a second."),
    ],
)  # fmt: skip
def test_what_is_said(
    rule: str, before: State, after: State, inputs: dict[str, float | None], probe: ProbeResult | None, said: str
) -> None:
    assert reason(rule, before, after, inputs, probe) == said


numbers = st.none() | st.floats(0, 1e9)
states = st.builds(
    State, st.sampled_from([0.0, 7.5, 15.0, 30.0]), st.sampled_from([None, "720p", "360p"]), st.integers(0, 9**9)
)
probes = st.none() | st.builds(
    ProbeResult,
    st.integers(0, 9**9),
    st.none() | st.integers(0, 9**9),
    st.sampled_from(["passed", "failed", "stopped"]),
)


@given(
    st.sampled_from([*get_args(Rule), "audience", "a later one"]),
    states,
    states,
    st.dictionaries(st.sampled_from(["packet_loss", "rtt", "estimate"]), numbers),
    probes,
)
def test_every_change_has_a_sentence(
    rule: str, before: State, after: State, inputs: dict[str, float | None], probe: ProbeResult | None
) -> None:
    said = reason(rule, before, after, inputs, probe)
    assert said.endswith(".")
    assert "None" not in said
    assert "nan" not in said
