"""All traces with all controllers, the bars, the report."""

from __future__ import annotations

from typing import Any

from benchmarks.adaptation import plots
from benchmarks.adaptation.baselines import BASELINES, CONTROLS, OURS
from benchmarks.adaptation.score import Figures, judge, mean
from benchmarks.adaptation.session import Session
from benchmarks.adaptation.traces import TRACES, Trace

SEEDS = (1, 2, 3)
RIVAL = "livekit"
"""Who is drawn beside us."""

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
    """Every trace with everybody, the bars, and a plot of each; prints a line for each trace."""
    scores: list[dict[str, Any]] = []
    ours: list[dict[str, Any]] = []
    missed = []
    for trace in TRACES:
        results = {name: measure(trace, name) for name in CONTROLS}
        held = verdicts(trace, results[OURS], [results[name] for name in BASELINES])
        missed += [f"{trace.name}: {bar}" for bar, good in held.items() if not good]
        scores.append({"trace": trace.name, **{name: one["score"] for name, one in results.items()}})
        ours.append(_row(trace, results[OURS], held))
        line = "  ".join(f"{name} {one['score']:5.1f}" for name, one in results.items())
        print(f"{trace.name:12} {line}  {ours[-1]['missed']}", flush=True)
        plots.draw(play(trace, OURS), play(trace, RIVAL), RIVAL)
    means = {name: sum(row[name] for row in scores) / len(scores) for name in CONTROLS}
    scores.append({"trace": "mean", **means})
    print("mean         " + "  ".join(f"{name} {value:5.1f}" for name, value in means.items()))
    if not all(means[OURS] > means[name] for name in BASELINES):
        missed.append("ahead of every baseline in the mean")
    return {"seeds": len(SEEDS), "missed": missed or ["nothing"], "scores": scores, "beamcast": ours}


def _row(trace: Trace, found: dict[str, Any], held: dict[str, bool]) -> dict[str, Any]:
    return {
        "trace": trace.name,
        "utilisation percent": 100 * found["utilisation"],
        "mean kbit/s": found["bitrate"] / 1000,
        "queue p50 ms": 1000 * found["queue_p50"],
        "queue p95 ms": 1000 * found["queue_p95"],
        "frozen percent": 100 * found["frozen"],
        "freezes": found["freezes"],
        "fps": found["fps"],
        "changes a minute": found["changes"],
        "down s": found["down"],
        "up s": found["up"],
        "padding percent": 100 * found["padding"],
        "levels apart": found["spread"] if trace.viewers > 1 else None,
        "missed": ", ".join(bar for bar, good in held.items() if not good) or "-",
    }
