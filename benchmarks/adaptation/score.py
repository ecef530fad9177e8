"""What a run was worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks.adaptation.player import FREEZE_FACTOR, FREEZE_MORE
from benchmarks.adaptation.session import SAMPLE, Session, Viewer
from benchmarks.adaptation.source import DESCRIPTION, FPS, LEVELS, best_fitting
from benchmarks.adaptation.traces import Trace
from broadcaster.adaptation.levels import Level
from broadcaster.broadcast import planner

WARM_UP = 10.0
SETTLED = 15.0
FREEZE_COST = 2.0
SWITCH_COST, SWITCHES_FREE = 0.5, 4.0
DELAY_COST, DELAY_FREE = 20.0, 0.2
"""The score: 100 times the quality shown over the quality of the best level that fits (a frozen picture is worth
nothing), less FREEZE_COST for each percent of time in freezes, less SWITCH_COST for each change of level a minute
beyond SWITCHES_FREE, less DELAY_COST for each second of the p95 of the queue beyond DELAY_FREE; not below 0. The
quality of a level is that of broadcaster.adaptation.plan."""


def _qualities() -> dict[Level, float]:
    plans = planner(DESCRIPTION.rungs)
    found = {}
    for level in LEVELS:
        rung = plans.rungs[level.rung]
        picture = 1.0 - plans.settings.per_size * _halvings(plans.settings.reference / rung.lines)
        found[level] = picture * plans.settings.frames ** _halvings(FPS / level.fps)
    return found


def _halvings(ratio: float) -> float:
    return math.log2(ratio)


QUALITY = _qualities()


@dataclass(slots=True)
class Figures:
    """Of one viewer."""

    score: float
    utilisation: float
    bitrate: float
    queue_p50: float
    queue_p95: float
    freezes: int
    frozen: float
    fps: float
    changes: float
    down: float | None
    up: float | None
    lost: float
    padding: float
    final: int


def allowed(trace: Trace, at: float) -> Level | None:
    """The best level that fits the viewer's share of the capacity at a time, None in a blackout."""
    dark = trace.link.blackout
    if dark is not None and dark[0] <= at < dark[1]:
        return None
    rate = trace.link.capacity.at(at)
    if trace.name == "wifi":
        rate = trace.link.capacity.most
    return best_fitting(rate / trace.viewers, frames_capped=trace.frames_capped)


def judge(session: Session, viewer: Viewer) -> Figures:
    trace, player = session.trace, viewer.player
    samples = [sample for sample in viewer.samples if sample.at >= WARM_UP]
    fits = [allowed(trace, sample.at) for sample in samples]
    could = sum(level.bitrate for level in fits if level is not None)
    did = sum(
        min(sample.level.bitrate, fit.bitrate)
        for sample, fit in zip(samples, fits, strict=True)
        if sample.level is not None and fit is not None
    )
    seconds = trace.seconds - WARM_UP
    frozen = sum(interval for at, interval in player.freezes if at >= WARM_UP) / seconds
    freezes = sum(at >= WARM_UP for at, _ in player.freezes)
    waiting = sorted(sample.waiting for sample in samples)
    p95 = waiting[int(0.95 * len(waiting))]
    levels = [sample.level for sample in viewer.samples if sample.at >= SETTLED]
    changes = sum(one != two for one, two in pairwise(levels)) / (trace.seconds - SETTLED) * 60
    shown = [one for one in player.shown if one[0] >= WARM_UP]
    worth = sum(
        QUALITY[level] * min(later[0] - at, FREEZE_FACTOR / level.fps, 1 / level.fps + FREEZE_MORE)
        for (at, level, _), later in pairwise(shown)
    )
    best = sum(QUALITY[level] for level in fits if level is not None) * SAMPLE
    score = 100 * min(1.0, worth / best) if best else 0.0
    score -= FREEZE_COST * 100 * frozen + SWITCH_COST * max(0.0, changes - SWITCHES_FREE)
    score -= DELAY_COST * max(0.0, p95 - DELAY_FREE)
    return Figures(
        score=max(0.0, score),
        utilisation=did / could if could else 0.0,
        bitrate=sum(sample.level.bitrate for sample in samples if sample.level) / len(samples),
        queue_p50=waiting[len(waiting) // 2],
        queue_p95=p95,
        freezes=freezes,
        frozen=frozen,
        fps=len(shown) / seconds,
        changes=changes,
        down=_reaction(viewer, trace, trace.drops, down=True),
        up=_reaction(viewer, trace, trace.rises, down=False),
        lost=1 - session.link.sent and session.link.lost / max(1, session.link.sent),
        padding=viewer.padding / max(1, viewer.left),
        final=LEVELS.index(viewer.samples[-1].level) if viewer.samples[-1].level else -1,
    )


def _reaction(viewer: Viewer, trace: Trace, moments: tuple[float, ...], *, down: bool) -> float | None:
    """The longest time from a change of the capacity until the level fits it, and does for a second."""
    longest = None
    for moment in moments:
        fit = allowed(trace, moment + 0.01)
        assert fit is not None
        good = 0.0
        reached = trace.seconds - moment
        for sample in viewer.samples:
            if sample.at < moment:
                continue
            level = sample.level
            fine = level is not None and (level.bitrate <= fit.bitrate if down else level.bitrate >= fit.bitrate)
            good = good + SAMPLE if fine else 0.0
            if good >= 1.0:
                reached = sample.at - moment - 0.9
                break
        longest = reached if longest is None else max(longest, reached)
    return longest


def mean(figures: list[Figures]) -> dict[str, Any]:
    """Of the viewers of a run: means, the worst reaction, and how far apart they ended."""
    count = len(figures)
    names = ("score", "utilisation", "bitrate", "queue_p50", "queue_p95", "frozen", "fps", "changes", "lost", "padding")
    found: dict[str, Any] = {name: sum(getattr(one, name) for one in figures) / count for name in names}
    found["freezes"] = sum(one.freezes for one in figures) / count
    for name in ("down", "up"):
        values = [getattr(one, name) for one in figures if getattr(one, name) is not None]
        found[name] = max(values) if values else None
    finals = [one.final for one in figures]
    found["spread"] = max(finals) - min(finals)
    return found
