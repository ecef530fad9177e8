"""What a run says at its end, as a table and as JSON, and the progress bar until then."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np

from broadcaster.stream import RTP_CLOCK
from workers.load.crowd import Crowd

_BAR = 24


@dataclass(frozen=True, slots=True)
class Cost:
    """What the load process itself spent while all viewers were there."""

    cpu: float
    """Seconds of CPU."""
    seconds: float
    datagrams: int
    """RTP packets received in these seconds."""


def summary(crowd: Crowd, url: str, cost: Cost, *, interrupted: bool) -> dict[str, Any]:
    """The figures of a run that is over, ready for JSON; `None` is what could not be measured.

    Shares are from 0 to 1, rates bit/s, times as their names say.
    """
    counters, tally = crowd.counters, crowd.tally
    connected = np.array(sorted(crowd.clients), np.int64)
    ended = [client.ended for client in crowd.clients.values() if client.ended is not None]
    expected, lost = int(counters.expected.sum()), int(counters.lost.sum())
    seconds = crowd.stopped - counters.began[connected]
    bitrates = counters.octets[connected] * 8 / np.maximum(seconds, 1e-9)
    first = counters.first_frame[connected]
    return {
        "url": url,
        "interrupted": interrupted,
        "seconds": _rounded(cost.seconds),
        "viewers": {
            "wanted": crowd.settings.viewers,
            "joined": sum(not math.isnan(one.answered) for one in crowd.joined.values()),
            "connected": len(crowd.clients),
            "playing": crowd.playing,
            "ended": len(ended),
        },
        "join_ms": {
            "answer": _spread([one.answered - one.posted for one in crowd.joined.values()], 1e3),
            "connected": _spread([one.connected - one.posted for one in crowd.joined.values()], 1e3),
            "first_frame": _spread(first - [crowd.joined[viewer].posted for viewer in connected.tolist()], 1e3),
        },
        "packets": {
            "received": int(counters.packets.sum()),
            "lost": lost,
            "loss": _rounded(lost / expected if expected else math.nan, 6),
            "reordered": int(counters.reordered.sum()),
            "thrown_away": tally.dropped,
            "overflowed": crowd.overflowed,
            "retransmitted": tally.retransmissions,
            "repaired": crowd.repaired,
        },
        "fps": _spread(counters.fps(crowd.stopped)[connected]),
        "bitrate": _spread(bitrates),
        "jitter_ms": _spread(counters.jitter[connected] / RTP_CLOCK, 1e3),
        "freezes": {
            "count": int(counters.freezes.sum()),
            "seconds": _rounded(float(counters.frozen.sum())),
            "viewers": int((counters.freezes > 0).sum()),
        },
        "srtp": {"verified": tally.verified, "failed": sum(one.failures for one in crowd.clients.values())},
        "load": {
            "cpu": _rounded(cost.cpu / cost.seconds if cost.seconds else math.nan),
            "us_per_packet": _rounded(cost.cpu / cost.datagrams * 1e6 if cost.datagrams else math.nan),
            "packets_per_second": _rounded(cost.datagrams / cost.seconds if cost.seconds else math.nan, 1),
        },
        "problems": problems(crowd),
    }


def problems(crowd: Crowd) -> list[str]:
    """Why this run is a failure, a sentence each; empty when it is none."""
    tally, counters = crowd.tally, crowd.counters
    found = []
    if tally.refusal is not None:
        found.append(f"{tally.refusal} ({len(crowd.clients)} of {crowd.settings.viewers} viewers joined)")
    broken = [one for one in crowd.joined.values() if not math.isnan(one.answered) and one.problem is not None]
    if broken:
        found.append(f"{_viewers(len(broken))} did not connect: {broken[0].problem}")
    silent = sum(math.isnan(counters.first_frame[viewer]) for viewer in crowd.clients)
    if silent:
        found.append(f"{_viewers(silent)} got no frame")
    ended = [client.ended for client in crowd.clients.values() if client.ended is not None]
    if ended:
        found.append(f"{_viewers(len(ended))} lost the connection: {ended[0]}")
    failures = sum(client.failures for client in crowd.clients.values())
    if failures:
        found.append(f"{failures} packets failed SRTP authentication")
    return found


def table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    viewers, packets, join = figures["viewers"], figures["packets"], figures["join_ms"]
    freezes, srtp, load = figures["freezes"], figures["srtp"], figures["load"]
    thrown = f", {packets['thrown_away']:,} thrown away here" if packets["thrown_away"] else ""
    here = f", {packets['overflowed']:,} datagrams of them for want of room here" if packets["overflowed"] else ""
    again = (
        f"{packets['retransmitted']:,}, which repaired {packets['repaired']:,}" if packets["retransmitted"] else "none"
    )
    rows = [
        ("viewers", f"{viewers['playing']} playing of {viewers['wanted']}, for {_shown(figures['seconds'])} s"),
        ("", f"{'p50':>9}{'p99':>9}{'worst':>9}"),
        ("POST to answer", _columns(join["answer"], "ms")),
        ("POST to connected", _columns(join["connected"], "ms")),
        ("POST to first frame", _columns(join["first_frame"], "ms")),
        ("frame rate", _columns(figures["fps"], "fps", low=True)),
        ("bitrate", _columns(figures["bitrate"], "kbit/s", low=True, scale=1e-3)),
        ("jitter", _columns(figures["jitter_ms"], "ms")),
        ("freezes", f"{freezes['count']}, {_shown(freezes['seconds'])} s, {freezes['viewers']} viewers"),
        ("packets", f"{packets['received']:,}, {packets['reordered']:,} out of order{thrown}"),
        ("lost", f"{packets['lost']:,} ({_shown(packets['loss'], 100)} %){here}"),
        ("sent again", again),
        ("SRTP", f"{srtp['verified']:,} packets decrypted, {srtp['failed']} failed"),
        ("this process", f"{_shown(load['us_per_packet'])} µs a packet, {_shown(load['cpu'], 100)} % of a core"),
    ]
    return "\n".join(f"{name:<20} {value}" for name, value in rows)


class Progress:
    """A line on a terminal that is written again and again; nothing where there is no terminal."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._shown = stream.isatty()
        self._next = 0.0

    def show(self, now: float, share: float, text: str) -> None:
        """`share` (0 to 1) is done at the monotonic time `now`."""
        if not self._shown or now < self._next:
            return
        self._next = now + 0.25
        full = round(_BAR * min(1.0, max(0.0, share)))
        self._stream.write(f"\r[{'#' * full}{'-' * (_BAR - full)}] {text}\x1b[K")
        self._stream.flush()

    def clear(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def _viewers(count: int) -> str:
    return f"{count} viewer{'' if count == 1 else 's'}"


def _rounded(value: float, digits: int = 3) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def _spread(values: Any, scale: float = 1.0) -> dict[str, float | None]:
    """Median, percentiles and extremes of the values that are there."""
    known = np.asarray(values, float) * scale
    known = known[np.isfinite(known)]
    if not len(known):
        return dict.fromkeys(("min", "p1", "p50", "p99", "max"))
    return {
        name: _rounded(float(np.percentile(known, share)))
        for name, share in (("min", 0), ("p1", 1), ("p50", 50), ("p99", 99), ("max", 100))
    }


def _columns(spread: dict[str, float | None], unit: str, *, low: bool = False, scale: float = 1.0) -> str:
    """Median, p99 and worst; where `low` is bad, the other end (p1 and least)."""
    names = ("p50", "p1", "min") if low else ("p50", "p99", "max")
    return "".join(f"{_shown(spread[name], scale):>9}" for name in names) + f"  {unit}"


def _shown(value: float | None, scale: float = 1.0) -> str:
    return "-" if value is None else f"{value * scale:,.1f}" if value * scale >= 100 else f"{value * scale:.2f}"
