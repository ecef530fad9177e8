"""Plots of what was seen in the browser, as SVG: the same figures make the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.playing import Seen

SIZE = (8.0, 5.0)
_COLOURS = ("#1f77b4", "#2ca02c", "#9467bd")
_SETTINGS: Any = {"svg.hashsalt": "beamcast", "svg.fonttype": "none", "path.simplify": True, "font.size": 8.0}


def draw(seen: Seen, path: Path) -> None:
    """Bitrate against the line, the queue, and the frame rate with its freezes, over time."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=SIZE, layout="constrained")
        bitrate, queue, fps = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
        seconds = seen.viewers[0].seconds
        times = [round(one.at, 2) for one in seconds]
        bitrate.step(times, [one.capacity / 1e6 for one in seconds], where="pre", color="#444444", label="line")
        best = [one.best.bitrate / 1e6 if one.best else 0.0 for one in seconds]
        bitrate.step(times, best, where="pre", color="#999999", linestyle=":", label="best level that fits")
        for colour, viewer in zip(_COLOURS, seen.viewers, strict=False):
            at = [round(one.at, 2) for one in viewer.seconds]
            level = [one.level.bitrate / 1e6 if one.level else 0.0 for one in viewer.seconds]
            bitrate.step(at, level, where="pre", color=colour, linestyle="--", linewidth=0.8, label="level")
            bitrate.plot(at, [round(one.received / 1e6, 3) for one in viewer.seconds], color=colour, label="received")
            fps.plot(at, [round(one.fps, 1) for one in viewer.seconds], color=colour)
            for one in viewer.seconds:
                if one.frozen > 0:
                    start = round(one.at - one.frozen, 2)
                    fps.axvspan(start, round(one.at, 2), color="#d62728", alpha=0.25, linewidth=0)
        queue.step(times, [round(1000 * one.queue) for one in seconds], where="pre", color="#ff7f0e")
        bitrate.set_ylabel("Mbit/s")
        bitrate.set_ylim(0, max(2.7, 1.1 * max(one.capacity for one in seconds) / 1e6))
        handles, labels = bitrate.get_legend_handles_labels()
        figure.legend(handles[:4], labels[:4], loc="outside upper right", ncols=4, frameon=False)
        queue.set_ylabel("queue, ms")
        fps.set_ylabel("fps")
        fps.set_ylim(0, 35)
        fps.set_xlabel("seconds (red: frozen)")
        for one in (bitrate, queue, fps):
            one.axvline(0, color="#cccccc", linewidth=0.8)
            one.spines[["top", "right"]].set_visible(False)
        bitrate.set_title(seen.network.name, loc="left")
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
