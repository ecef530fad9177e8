"""All traces with all controllers, the bars, the report."""

from __future__ import annotations

from typing import Any

from benchmarks.adaptation import report
from benchmarks.adaptation.baselines import BASELINES, CONTROLS, OURS
from benchmarks.adaptation.score import Figures, judge, mean
from benchmarks.adaptation.session import Session
from benchmarks.adaptation.traces import TRACES, Trace

SEEDS = (1, 2, 3)
BARS = {
    "utilisation": 0.85,
    "queue_p95": 0.2,
    "frozen": 0.01,
    "down": 1.5,
    "up": 10.0,
    "changes": 2.0,
    "spread": 1,
    "behind": 0.05,
}


def play(trace: Trace, control: str, seed: int = 1) -> Session:
    session = Session(trace, CONTROLS[control], seed)
    session.run()
    return session


def measure(trace: Trace, control: str, seeds: tuple[int, ...] = SEEDS) -> dict[str, Any]:
    """The means over the seeds, the worst of reactions and spreads."""
    seeds = seeds[:1] if trace.viewers > 1 else seeds
    found = []
    for seed in seeds:
        session = play(trace, control, seed)
        figures: list[Figures] = [judge(session, viewer) for viewer in session.viewers]
        found.append(mean(figures))
    merged = {}
    for name in found[0]:
        values = [one[name] for one in found if one[name] is not None]
        worst = name in ("down", "up", "spread")
        merged[name] = (max(values) if worst else sum(values) / len(values)) if values else None
    return {"trace": trace.name, "control": control, **merged}


def verdicts(trace: Trace, ours: dict[str, Any], others: list[dict[str, Any]]) -> dict[str, bool]:
    """Which bars hold on this trace."""
    held = {"utilisation": ours["utilisation"] >= BARS["utilisation"]}
    if not trace.deep:
        held["queue_p95"] = ours["queue_p95"] < BARS["queue_p95"]
    if not trace.dark:
        held["frozen"] = ours["frozen"] < BARS["frozen"]
    if trace.drops:
        held["down"] = ours["down"] is not None and ours["down"] <= BARS["down"]
    if trace.rises:
        held["up"] = ours["up"] is not None and ours["up"] <= BARS["up"]
    if trace.steady:
        held["changes"] = ours["changes"] <= BARS["changes"]
    if trace.viewers > 1:
        held["spread"] = ours["spread"] <= BARS["spread"]
    held["behind"] = ours["score"] >= (1 - BARS["behind"]) * max(one["score"] for one in others)
    return held


def run() -> dict[str, Any]:
    """Every trace with everybody; prints a line for each and what is missed."""
    rows, missed = [], []
    for trace in TRACES:
        results = {name: measure(trace, name) for name in CONTROLS}
        held = verdicts(trace, results[OURS], [results[name] for name in BASELINES])
        missed += [f"{trace.name}: {bar}" for bar, good in held.items() if not good]
        rows += results.values()
        line = "  ".join(f"{name} {one['score']:5.1f}" for name, one in results.items())
        print(f"{trace.name:12} {line}  {'' if all(held.values()) else 'MISSED ' + ', '.join(b for b in held if not held[b])}")
    means = {name: sum(row["score"] for row in rows if row["control"] == name) / len(TRACES) for name in CONTROLS}
    print("mean         " + "  ".join(f"{name} {value:5.1f}" for name, value in means.items()))
    ahead = all(means[OURS] > means[name] for name in BASELINES)
    if not ahead:
        missed.append("ahead of every baseline in the mean")
    result = {"bars": BARS, "missed": missed, "mean_score": means, "runs": rows}
    report.write(result)
    return result
