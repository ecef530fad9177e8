"""What was seen of viewers, second by second, and the figures that are made of it. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.networks import Network
from broadcaster.adaptation.levels import Level

WIRE = 1.06
"""What a level takes of the line is so many times its bitrate: RTP, SRTP and retransmissions of what is lost."""

CLOSE = 0.85
"""A viewer that gets this share of the best level's bitrate has it: the encoder need not use up its bitrate."""

LASTING = 3.0
"""Seconds for which a level must go on to fit, to count as reached."""


@dataclass(frozen=True)
class Second:
    """One viewer in one second. Bitrates in bit/s, times in seconds; `at` is its end, 0 where the network begins."""

    at: float
    length: float
    capacity: float
    """Of this viewer: its share of the line, on the average of the second."""
    best: Level | None
    """The best level that fits into it."""
    level: Level | None
    """Where the viewer shall be, as the worker says; with the bitrate that its rung has now."""
    received: float
    """Octets of media (RTP payload), without those that were sent again."""
    resent: float
    fps: float
    freezes: int
    frozen: float
    gap: float
    """The longest time without a new picture on the screen."""
    dropped: int
    """Pictures that the browser could not show in time."""
    size: str
    lost: int
    nacks: int
    plis: int
    buffer: float
    """How long a picture waited in the jitter buffer."""
    queue: float
    """The longest wait in the line's queue, of all viewers' datagrams."""
    overflowed: int
    """Datagrams that the line dropped because it was full, of all viewers."""
    estimate: float | None
    loss: float | None
    rtt: float | None


@dataclass
class Viewer:
    """One viewer of one network."""

    id: str
    seconds: list[Second] = field(default_factory=list)
    changes: list[tuple[float, Level, str]] = field(default_factory=list)
    """(at, level, rule), the first one where it started."""
    joined: float = 0.0

    def level_at(self, at: float) -> Level | None:
        return next((level for when, level, _ in reversed(self.changes) if when <= at), None)


@dataclass
class Seen:
    """A network, its viewers, and what the relay saw: `waits` (at, seconds in the queue)."""

    network: Network
    viewers: list[Viewer]
    ladders: list[tuple[float, tuple[Level, ...]]] = field(default_factory=list)
    """(at, levels): a rung's bitrate may follow its audience."""
    waits: list[tuple[float, float]] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    arrived: int = 0
    overflowed: int = 0
    load: float = 0.0
    """Of the machine: the cores' worth of work that it did or that waited, in the last minute."""

    def levels_at(self, at: float) -> tuple[Level, ...]:
        """The ladder as it was at `at`, or as it was first."""
        return next((levels for when, levels in reversed(self.ladders) if when <= at), self.ladders[0][1])


def fitting(levels: Sequence[Level], capacity: float) -> Level | None:
    """The best level that `capacity` carries."""
    return max((one for one in levels if one.bitrate * WIRE <= capacity), key=lambda one: one.bitrate, default=None)


def same(one: Level | None, other: Level | None) -> bool:
    """Whether it is the same rung and layer, whatever their bitrate was at the time."""
    return one is not None and other is not None and (one.name, one.layer) == (other.name, other.layer)


def now(level: Level | None, levels: Sequence[Level]) -> Level | None:
    """`level` as it is in this ladder."""
    return next((one for one in levels if same(one, level)), level)


def name_of(level: Level | None) -> str:
    return "-" if level is None else f"{level.name}{level.fps:g}"


def picture(seen: Seen) -> dict[str, Any]:
    """How it looked, from joining on; of several viewers together."""
    seconds = [one for viewer in seen.viewers for one in viewer.seconds]
    time = sum(one.length for one in seconds)
    frames = sum(one.fps * one.length for one in seconds)
    # The browser counts a freeze when it is over: one that lasts till the end has to be added.
    still = [viewer.seconds[-1].gap for viewer in seen.viewers if not viewer.seconds[-1].fps]
    return {
        "network": seen.network.name,
        "fps_mean": frames / time,
        "fps_median": float(statistics.median(one.fps for one in seconds)),
        "freezes": sum(one.freezes for one in seconds) + len(still),
        "frozen_percent": 100 * (sum(one.frozen for one in seconds) + sum(still)) / time,
        "longest_gap_ms": 1000 * max(one.gap for one in seconds),
        "buffer_ms": 1000 * statistics.median(one.buffer for one in seconds),
    }


def bitrate(seen: Seen) -> dict[str, Any]:
    """What of the line was used, and what that did to the line.

    `level_of_best` is the levels' own bitrates against those of the best levels that fit, and no more than these: the
    use that was made of the ladder, where an easy picture needs less than its level may use. `of_best_at_first` is
    against the best level that fits of the ladder as it began, which a rung that follows its audience leaves.
    """
    seconds = _all(seen)
    received = sum(one.received * one.length for one in seconds)
    best = sum(one.best.bitrate * one.length for one in seconds if one.best)
    fitted = [(one, fitting(seen.ladders[0][1], one.capacity)) for one in seconds]
    first = sum(level.bitrate * one.length for one, level in fitted if level)
    level = sum(min(one.level.bitrate, one.best.bitrate) * one.length for one in seconds if one.level and one.best)
    waits = sorted(wait for at, wait in seen.waits if at >= 0) or [0.0]
    return {
        "network": seen.network.name,
        "received_kbps": round(received / sum(one.length for one in seconds) / 1000),
        "of_capacity_percent": 100 * received / sum(one.capacity * one.length for one in seconds),
        "of_best_level_percent": 100 * received / best,
        "of_best_at_first_percent": 100 * received / first,
        "level_of_best_percent": 100 * level / best,
        "at_best_percent": _share(seconds, at_best),
        "above_best_percent": _share(seconds, above),
        "queue_p50_ms": 1000 * quantile(waits, 0.5),
        "queue_p95_ms": 1000 * quantile(waits, 0.95),
        "overflowed_percent": 100 * seen.overflowed / max(1, seen.arrived),
    }


def levels(seen: Seen) -> dict[str, Any]:
    """How the level moved, from joining on; of several viewers the slowest, and the mean number of changes."""
    network = seen.network
    changes = [len(viewer.changes[1:]) * 60 / (network.seconds - viewer.joined) for viewer in seen.viewers]
    return {
        "network": network.name,
        "changes_per_minute": statistics.mean(changes),
        "first_best_s": _slowest([_until_best(seen, viewer, viewer.joined) for viewer in seen.viewers]),
        "fits_after_drop_s": _slowest([_until_fits(seen, one, at) for one in seen.viewers for at in network.drops]),
        "best_after_rise_s": _slowest([_until_best(seen, one, at) for one in seen.viewers for at in network.rises]),
        "ends_at": [name_of(viewer.seconds[-1].level) for viewer in seen.viewers],
    }


def harness(seen: Seen) -> dict[str, Any]:
    """How far the machine was able to follow."""
    late = sorted(seen.late) or [0.0]
    return {
        "network": seen.network.name,
        "load": seen.load,
        "relay_late_p95_ms": 1000 * quantile(late, 0.95),
        "relay_late_max_ms": 1000 * late[-1],
        "pictures_too_late": sum(one.dropped for one in _all(seen)),
    }


def at_best(second: Second) -> bool:
    """Whether the viewer is at the best level that fits, or gets nearly as much."""
    if second.best is None:
        return False
    return same(second.level, second.best) or second.received >= CLOSE * second.best.bitrate


def above(second: Second) -> bool:
    """Whether the viewer is at a level that does not fit."""
    return second.level is not None and (second.best is None or second.level.bitrate > second.best.bitrate)


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _all(seen: Seen) -> list[Second]:
    return [one for viewer in seen.viewers for one in viewer.seconds if one.at > 0]


def _share(seconds: list[Second], holds: Callable[[Second], bool]) -> float:
    return 100 * sum(one.length for one in seconds if holds(one)) / sum(one.length for one in seconds)


def _until_fits(seen: Seen, viewer: Viewer, at: float) -> float | None:
    """Seconds from the drop at `at` to a level that the line carries then; None: not at all."""

    def holds(level: Level, when: float) -> bool:
        limit = _limit(seen, at, when)
        level = now(level, seen.levels_at(when)) or level
        return limit is not None and level.bitrate <= limit.bitrate

    return _until(seen, viewer, at, holds)


def _until_best(seen: Seen, viewer: Viewer, at: float) -> float | None:
    """Seconds from `at` to the best level that the line carries from then on; None: not at all."""
    return _until(seen, viewer, at, lambda level, when: same(level, _limit(seen, at, when)))


def _limit(seen: Seen, at: float, when: float) -> Level | None:
    """Of the ladder of `when`, the best level that fits into the line of `at`."""
    return fitting(seen.levels_at(when), seen.network.capacity().at(at) / seen.network.viewers)


def _until(seen: Seen, viewer: Viewer, at: float, holds: Callable[[Level, float], bool]) -> float | None:
    """Seconds from `at` until `holds(level, when)`, and goes on to for LASTING."""
    turns = []
    for when in sorted({at, *(one[0] for one in viewer.changes), *(one[0] for one in seen.ladders)}):
        if when < at:
            continue
        level = viewer.level_at(when)
        turns.append((when, level is not None and holds(level, when)))
    for when, good in turns:
        if good and all(still for then, still in turns if when < then < when + LASTING):
            return when - at
    return None


def _slowest(times: list[float | None]) -> float | None:
    known = [time for time in times if time is not None]
    return max(known) if known and len(known) == len(times) else None
