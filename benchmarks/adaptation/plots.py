"""A plot of each trace, as SVG: the same run makes the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.adaptation.score import allowed
from benchmarks.adaptation.session import Session

FOLDER = Path(__file__).parent.parent.parent / "docs" / "adaptation"
_SETTINGS: Any = {"svg.hashsalt": "beamcast", "svg.fonttype": "none", "path.simplify": True, "font.size": 8.0}
_OURS, _OTHERS = "#1f77b4", "#d62728"


def draw(ours: Session, other: Session, name: str) -> Path:
    """Levels against what the line carries, the queue, and freezes; ours, and `other` called `name` beside it."""
    trace = ours.trace
    path = FOLDER / f"trace-{trace.name}.svg"
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        levels, queue = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        mine = ours.viewers[0].samples
        times = [round(sample.at, 1) for sample in mine[::2]]
        rates = [round(min(6.0, trace.link.capacity.at(sample.at) / trace.viewers / 1e6), 2) for sample in mine[::2]]
        levels.step(times, rates, where="post", color="#bbbbbb", label="line (up to 6)")
        fits = [allowed(trace, sample.at) for sample in mine[::2]]
        best = [level.bitrate / 1e6 if level else 0.0 for level in fits]
        levels.step(times, best, where="post", color="#555555", linestyle=":", label="best level that fits")
        for session, colour, label in ((other, _OTHERS, name), (ours, _OURS, "beamcast")):
            samples = session.viewers[0].samples[::2]
            at = [round(sample.at, 1) for sample in samples]
            shown = [sample.level.bitrate / 1e6 if sample.level else 0.0 for sample in samples]
            levels.step(at, shown, where="post", color=colour, linewidth=1.2, label=label)
            waiting = [min(1000, round(1000 * sample.waiting)) for sample in samples]
            queue.plot(at, waiting, color=colour, linewidth=0.7)
        for start, length in ours.viewers[0].player.freezes:
            levels.axvspan(round(start, 2), round(start + length, 2), color=_OURS, alpha=0.2, linewidth=0)
        levels.set_ylabel("Mbit/s")
        queue.set_ylabel("queue, ms")
        queue.set_xlabel("seconds (shaded: frozen)")
        figure.legend(*levels.get_legend_handles_labels(), loc="outside upper right", ncols=4, frameon=False)
        levels.set_title(trace.name, loc="left")
        for one in (levels, queue):
            one.spines[["top", "right"]].set_visible(False)
        FOLDER.mkdir(exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    return path
