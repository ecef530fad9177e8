"""Plots of the results: `python -m benchmarks report` draws them into docs/performance/.

The same results make the same bytes, so that a plot changes only with what it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

Figures = Mapping[str, Any]

_STYLE: Any = {
    "svg.hashsalt": "beamcast",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
_COLOURS = {"native": "C0", "twin": "C1", "stock": "C3", "floor": "0.5", "srtp": "C2"}


def draw(name: str, figures: Figures, folder: Path) -> Path | None:
    """Draw the results of the benchmark `name`; None where there is no plot of it."""
    plot = _PLOTS.get(name)
    if plot is None:
        return None
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.svg"
    with mpl.rc_context(_STYLE):
        figure = plot(figures)
        figure.savefig(path, metadata={"Date": None})
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    return path


def _figure(rows: int, columns: int, *, height: float = 3.0) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(9.0, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


def _by_viewers(axes: Axes, viewers: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(viewers, [f"{one // 1000}k" if one >= 1000 else f"{one}" for one in viewers])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("viewers")


def _sending(figures: Figures) -> Figure:
    """CPU of a packet by viewers: a column for each number of packets in a frame, a row for each kind of receiver."""
    rows = figures["rows"]
    sinks, packets = (list(dict.fromkeys(row[name] for row in rows)) for name in ("sink", "packets"))
    figure, grid = _figure(len(sinks), len(packets))
    for sink, line in zip(sinks, grid, strict=True):
        for number, axes in zip(packets, line, strict=True):
            chosen = [row for row in rows if row["sink"] == sink and row["packets"] == number]
            viewers = [row["viewers"] for row in chosen]
            for contestant, colour in _COLOURS.items():
                axes.plot(viewers, [row[contestant] for row in chosen], ".-", color=colour, label=contestant)
            axes.set_yscale("log")
            axes.set_ylim(0.1, 400)
            _by_viewers(axes, viewers)
            axes.set_title(f"{number} packet{'s' if number > 1 else ''} a frame, {sink}", fontsize=9)
        line[0].set_ylabel("µs of CPU a packet")
    grid[0][0].legend(ncols=2, fontsize=8, loc="upper right")
    return figure


def _worker(figures: Figures) -> Figure:
    """CPU of a packet, and of 100 viewers with Python's part in it, by viewers."""
    rows = figures["rows"]
    rates = list(dict.fromkeys(row["kbit"] for row in rows))
    figure, [[packet, share]] = _figure(1, 2)
    for place, kbit in enumerate(rates):
        chosen = [row for row in rows if row["kbit"] == kbit]
        viewers = [row["viewers"] for row in chosen]
        colour, rate = f"C{place}", f"{kbit / 1000:g} Mbit/s"
        packet.plot(viewers, [row["us"] for row in chosen], "o-", color=colour, label=rate)
        packet.plot(viewers, [row["floor_us"] for row in chosen], ".:", color=colour, label=f"{rate}, floor")
        share.plot(viewers, [row["cpu_percent_of_100"] for row in chosen], "o-", color=colour, label=rate)
        python = [row["python_percent_of_100"] for row in chosen]
        if None not in python:
            share.plot(viewers, python, ".--", color=colour, label=f"{rate}, Python's part")
    for axes in (packet, share):
        _by_viewers(axes, sorted({row["viewers"] for row in rows}))
    packet.set_ylabel("µs of CPU a packet")
    share.set_ylabel("% of a core for 100 viewers")
    for axes in (packet, share):
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
    return figure


def _isolation(figures: Figures) -> Figure:
    """p99 of the spacing of packets in each round, without and with the bad viewer."""
    rows = figures["rows"]
    figure, [[axes]] = _figure(1, 1)
    for place, row in enumerate(rows):
        for shift, name, colour in ((-0.12, "without_ms", "0.5"), (0.12, "with_ms", "C0")):
            rounds = row[f"{name}_rounds"]
            axes.plot([place + shift] * len(rounds), rounds, "o", color=colour, alpha=0.5)
            axes.plot([place + shift - 0.08, place + shift + 0.08], [row[name]] * 2, color=colour, lw=2)
    axes.plot([], [], "o", color="0.5", label="without")
    axes.plot([], [], "o", color="C0", label="with the bad viewer")
    axes.set_xticks(range(len(rows)), [row["bad_viewer"] for row in rows])
    axes.set_ylabel("p99 of the spacing of packets, ms")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right", fontsize=8)
    return figure


def _inbound(figures: Figures) -> Figure:
    """CPU of an RTCP datagram, by kind."""
    rows = figures["rows"]
    figure, [[axes]] = _figure(1, 1)
    for place, (name, colour) in enumerate((("aiortc", "C3"), ("python", "C1"), ("native", "C0"))):
        heights = [row[name] for row in rows]
        axes.bar([number + (place - 1) * 0.25 for number in range(len(rows))], heights, 0.22, color=colour, label=name)
    axes.set_xticks(range(len(rows)), [row["datagram"].replace(", ", ",\n") for row in rows])
    axes.set_ylabel("µs of CPU a datagram")
    axes.legend(fontsize=8)
    return figure


def _scale(figures: Figures) -> Figure:
    """CPU of a packet at each worker, by the number of workers."""
    rows = figures["rows"]
    figure, [[axes]] = _figure(1, 1)
    for row in rows:
        axes.plot([row["workers"]] * row["workers"], row["us_of_each"], "o", color="C0")
    axes.set_xticks([row["workers"] for row in rows])
    axes.set_xlabel("workers")
    axes.set_ylabel("µs of CPU a packet, of each worker")
    axes.set_ylim(bottom=0)
    return figure


_PLOTS: dict[str, Callable[[Figures], Figure]] = {
    "inbound": _inbound,
    "isolation": _isolation,
    "scale": _scale,
    "sending": _sending,
    "worker": _worker,
}
