"""What it gains when the ladder follows its audience: simulated audiences of 1000 viewers, seeded, without any network.

Each audience is a mixture of kinds of networks, and each kind a log-normal distribution of what one stream can have of
it. The numbers are made up to look like such networks; they were not measured. Every viewer gets the best level that
its path carries. The planner knows the histogram that workers report: what paths carry, as far as a probe found it,
which is never more than `ROOM` times the best rung.

Quality is the planner's own model (PlanSettings), on the true paths instead of the histogram's bins; because the plan
was made for that model, the gain is also given to viewers for whom a rung's bitrate means twice or half as much.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from broadcaster.adaptation.audience import histogram
from broadcaster.adaptation.plan import Planner, PlanSettings
from broadcaster.broadcast import planner
from broadcaster.ladder import derive_rungs, parse_rungs

VIEWERS = 1000
SEED = 6
ROOM = 1.4
PLANS = 30
"""As many plans in a row as settle any audience."""
WORSE = 0.02
"""A viewer whose quality changed by more than this share is better or worse off."""

NETWORKS = {
    "fibre": (60e6, 0.6),
    "cable": (20e6, 0.7),
    "dsl": (4e6, 0.5),
    "old dsl": (1.6e6, 0.3),
    "lte": (6e6, 0.8),
    "busy lte": (1.5e6, 0.6),
    "poor wi-fi": (1.2e6, 0.7),
    "3g": (0.6e6, 0.5),
    "venue": (1.3e6, 0.25),
    "office": (2.0e6, 0.15),
}
"""Median in bit/s, and the standard deviation of the natural logarithm."""

MIXTURES: Mapping[str, Mapping[str, float]] = {
    "mixed": {"fibre": 0.25, "cable": 0.2, "dsl": 0.15, "lte": 0.15, "busy lte": 0.1, "poor wi-fi": 0.1, "3g": 0.05},
    "fibre and cable": {"fibre": 0.6, "cable": 0.4},
    "mobile": {"lte": 0.35, "busy lte": 0.35, "3g": 0.3},
    "countryside": {"old dsl": 0.6, "lte": 0.2, "3g": 0.2},
    "one venue's wi-fi": {"venue": 1.0},
    "an office behind one line": {"office": 1.0},
    "poor wi-fi": {"poor wi-fi": 1.0},
    "3g": {"3g": 1.0},
}

LADDERS = {
    "three rungs": derive_rungs(1280, 720, 30.0),
    "two rungs": parse_rungs("1280x720@2500k,320x180@200k", 1280, 720, 30.0),
    "one rung": parse_rungs("1280x720@2500k", 1280, 720, 30.0),
}
"""The first is what a source of 1280x720 gets; the others save encoders."""

USUAL = PlanSettings()
STEEP, FLAT = (replace(USUAL, per_bitrate=factor * USUAL.per_bitrate) for factor in (2.0, 0.5))


def paths(mixture: Mapping[str, float]) -> list[float]:
    """What the paths of the viewers carry, in bit/s."""
    generator = random.Random(SEED)
    kinds = generator.choices(list(mixture), weights=list(mixture.values()), k=VIEWERS)
    return [generator.lognormvariate(math.log(NETWORKS[kind][0]), NETWORKS[kind][1]) for kind in kinds]


def qualities(judge: Planner, bitrates: Sequence[int], carried: Sequence[float]) -> list[float]:
    """Of every viewer, 0 to about 1, at the best level that fits."""
    levels = judge.levels(bitrates)
    return [max((quality for need, quality in levels if need <= path), default=0.0) for path in carried]


def simulate(ladder: str, name: str) -> dict[str, Any]:
    """One audience, with the fixed ladder and with the one that follows."""
    usual = planner(LADDERS[ladder])
    fixed = [rung.bitrate for rung in usual.rungs]
    carried = paths(MIXTURES[name])
    audience = histogram([min(path, ROOM * fixed[0]) for path in carried])
    active = dict.fromkeys(range(len(fixed)), True)
    bitrates, moves = fixed, 0
    while moves < PLANS and (plan := usual.plan(bitrates, audience, active)) is not None:
        bitrates, moves = list(plan.bitrates), moves + 1

    def gain(settings: PlanSettings) -> float:
        judge = Planner(usual.rungs, settings)
        before, after = (sum(qualities(judge, each, carried)) for each in (fixed, bitrates))
        return round(100 * (after / before - 1), 1)

    before, after = (qualities(usual, each, carried) for each in (fixed, bitrates))
    return {
        "ladder": ladder,
        "audience": name,
        "kbit/s of the rungs": [round(bitrate / 1000) for bitrate in bitrates],
        "moves": moves,
        "fixed": round(sum(before) / VIEWERS, 3),
        "following": round(sum(after) / VIEWERS, 3),
        "gain_percent": gain(USUAL),
        "gain_steep_percent": gain(STEEP),
        "gain_flat_percent": gain(FLAT),
        "better": sum(new > old * (1 + WORSE) for new, old in zip(after, before, strict=True)),
        "worse": sum(new < old * (1 - WORSE) for new, old in zip(after, before, strict=True)),
    }


def run() -> dict[str, Any]:
    """Simulate all audiences, and say what each gains."""
    rows = [simulate(ladder, name) for ladder in LADDERS for name in MIXTURES]
    for row in rows:
        head = f"{row['ladder']:>12} {row['audience']:>26}"
        print(f"{head} {row['fixed']:.3f} -> {row['following']:.3f}  {row['gain_percent']:+.1f} %")
    return {"viewers": VIEWERS, "seed": SEED, "audiences": rows}
