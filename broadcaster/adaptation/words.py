"""Reasons in plain words: why a viewer's picture changed, for the person who watches. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from broadcaster.adaptation.decision import State
from broadcaster.adaptation.probing import ProbeResult


def reason(
    rule: str, before: State, after: State, inputs: Mapping[str, float | None], probe: ProbeResult | None = None
) -> str:
    """One sentence for a change from `before` to `after` by `rule`; what is not known is left out of it."""
    cause = _cause(rule, inputs, probe)
    return f"{cause} {_change(before, after)}"


def _cause(rule: str, inputs: Mapping[str, float | None], probe: ProbeResult | None) -> str:
    causes = {
        "loss-high": f"{_percent(inputs.get('packet_loss'), 'Many packets')} were lost on the way to you.",
        "loss-low": "Hardly any packets are lost any more.",
        "rtt-high": f"Your connection takes long to answer{_milliseconds(inputs.get('rtt'))}.",
        "estimate-low": f"Your connection carries {_rate(inputs.get('estimate'), 'less than before')} now.",
        "headroom": _tested(probe) or "Your connection carries more now.",
        "silence": "Nothing was heard from your player for a moment.",
        "pause": "Your connection carries next to nothing at the moment.",
        "resume": "Your connection may carry the picture again.",
        "overload": "The server has more to do than it can.",
        "relief": "The server keeps up again.",
        "fair-share": "Others share your line and get much less.",
        "audience": "The stream follows what its viewers can receive.",
    }
    return causes.get(rule, "The picture was adapted.")


def _change(before: State, after: State) -> str:
    if after.fps == 0.0:
        return "The picture pauses until there is room."
    if before.fps == 0.0:
        return "The picture comes back."
    if before.rung == after.rung and before.fps != after.fps:
        more = "more" if after.fps > before.fps else "fewer"
        return f"So you get {more} pictures a second: {after.fps:g} instead of {before.fps:g}."
    if before.rung == after.rung:
        better = (after.bitrate or 0) > (before.bitrate or 0)
        return f"So the picture is {'better' if better else 'plainer'}."
    size = after.rung or "another size"
    larger = (after.bitrate or 0) > (before.bitrate or 0)
    return f"So the picture is {'better' if larger else 'smaller'}: {size} at {after.fps:g} pictures a second."


def _tested(probe: ProbeResult | None) -> str | None:
    if probe is None or probe.outcome != "passed":
        return None
    return f"A test with {_rate(probe.target, 'more')} went through."


def _percent(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{100 * value:.0f} % of the packets"


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f", {1000 * value:.0f} ms"


def _rate(value: float | None, otherwise: str) -> str:
    if value is None:
        return otherwise
    return f"{value / 1e6:.1f} Mbit/s" if value >= 950_000 else f"{value / 1e3:.0f} kbit/s"
