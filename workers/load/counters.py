"""Counters of many viewers at once: packets, losses, jitter, frames and freezes, from the clear RTP headers alone.

Pure: arrays in, arrays kept. An operation on an array costs as much for one packet as for a thousand, so everything
here is done for all viewers together; only what depends on the frame before goes frame by frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broadcaster.stream import RTP_CLOCK

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

FREEZE_FACTOR = 3.0
FREEZE_EXTRA = 0.15
"""A freeze is a gap between frames of at least max(3 x average, average + 150 ms) (W3C webrtc-stats, freezeCount)."""

AVERAGED = 30
"""Gaps that the average is made of (W3C webrtc-stats)."""

FEWEST = 5
"""Gaps that there must be before one can be a freeze (libwebrtc, video_quality_observer)."""

SETTLING = 1.0
"""Seconds of a viewer's beginning that its frame rate leaves out: who comes late gets at once what the others have had
since the last keyframe."""

_SPAN = 1 << 48


@dataclass(frozen=True, slots=True)
class Packets:
    """Media packets; those of one viewer stand together, in the order of their arrival (monotonic seconds)."""

    viewer: Integers
    sequence: Integers
    timestamp: Integers
    marker: NDArray[np.bool_]
    size: Integers
    arrival: Floats


@dataclass(frozen=True, slots=True)
class Disorder:
    """A viewer's batch that was not the next numbers in order; the numbers are extended sequence numbers."""

    viewer: int
    before: int
    highest: int
    arrived: list[int]


class Counters:
    """An element for each of `viewers` viewers in every array; times are monotonic seconds, NaN before the first.

    A frame is a new RTP timestamp, at the time of its first packet, whether or not all its packets came. `lost` counts
    what did not come, as RFC 3550 does (section 6.4.1): a packet that comes late is not lost.
    """

    def __init__(self, viewers: int) -> None:
        self.packets = np.zeros(viewers, np.int64)
        self.octets = np.zeros(viewers, np.int64)
        self.reordered = np.zeros(viewers, np.int64)
        self.frames = np.zeros(viewers, np.int64)
        self.freezes = np.zeros(viewers, np.int64)
        self.frozen = np.zeros(viewers)
        self.jitter = np.zeros(viewers)
        """In ticks of the RTP clock (RFC 3550 appendix A.8), taken from each frame's first packet as browsers do."""
        self.highest = np.full(viewers, -1, np.int64)
        """Extended sequence numbers: cycles of 65536 are added."""
        self.first_frame = np.full(viewers, np.nan)
        """When the first frame's last packet (with the marker bit) came."""
        self.began = np.full(viewers, np.nan)
        """When the first frame's first packet came."""
        self._settled = np.full(viewers, np.nan)
        """When the first frame after the beginning came, and how many there were with it."""
        self._settled_frames = np.zeros(viewers, np.int64)
        self._base = np.zeros(viewers, np.int64)
        self._timestamp = np.zeros(viewers, np.int64)
        self._arrival = np.full(viewers, np.nan)
        self._gaps = np.zeros((viewers, AVERAGED))
        self._reported = np.zeros((viewers, 2), np.int64)

    @property
    def expected(self) -> Integers:
        return np.where(self.highest < 0, 0, self.highest - self._base + 1)

    @property
    def lost(self) -> Integers:
        """Negative where packets came twice."""
        return self.expected - self.packets

    def fps(self, now: float) -> Floats:
        """Mean frames a second of each viewer since it settled, or since its first; NaN without two frames."""
        settled = np.isfinite(self._settled) & (self.frames > self._settled_frames)
        since = np.where(settled, self._settled, self.began)
        before = np.where(settled, self._settled_frames, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.frames > 1, (self.frames - before) / (now - since), np.nan)

    def report(self, viewer: int) -> tuple[int, int]:
        """Of one viewer: the share lost since this was asked last, in 1/256, and all that was lost so far.

        RFC 3550 appendix A.3.
        """
        expected, received = int(self.highest[viewer] - self._base[viewer]) + 1, int(self.packets[viewer])
        before_expected, before_received = self._reported[viewer].tolist()
        due, lost = expected - before_expected, expected - before_expected - (received - before_received)
        self._reported[viewer] = expected, received
        return (min(255, (lost << 8) // due) if due > 0 and lost > 0 else 0), expected - received

    def take(self, packets: Packets) -> Iterator[Disorder]:
        """Count these packets; what is yielded is worth a NACK. Must be iterated to its end."""
        if not len(packets.viewer):
            return
        starts = np.flatnonzero(np.diff(packets.viewer, prepend=-1))
        who = packets.viewer[starts]
        lengths = np.diff(starts, append=len(packets.viewer))
        new = who[self.highest[who] < 0]
        first = packets.sequence[starts][self.highest[who] < 0]
        self.highest[new] = first - 1
        self._base[new] = first

        before = self.highest[who]
        ahead = (packets.sequence - self.highest[packets.viewer] + 0x8000 & 0xFFFF) - 0x8000
        numbers = self.highest[packets.viewer] + ahead
        highest = np.maximum(before, np.maximum.reduceat(numbers, starts))
        group = np.repeat(np.arange(len(who)), lengths) * _SPAN
        running = np.maximum.accumulate(np.maximum(numbers, before.repeat(lengths)) + group)
        running_before = np.concatenate(([0], running[:-1]))
        running_before[starts] = before + group[starts]
        late = numbers + group <= running_before
        self.reordered[who] += np.add.reduceat(late.astype(np.int64), starts)
        self.packets[who] += lengths
        self.octets[who] += np.add.reduceat(packets.size, starts)
        self.highest[who] = highest
        self._take_frames(packets, starts)
        for index in np.flatnonzero((highest - before != lengths) | np.logical_or.reduceat(late, starts)):
            rows = slice(int(starts[index]), int(starts[index] + lengths[index]))
            yield Disorder(int(who[index]), int(before[index]), int(highest[index]), numbers[rows].tolist())

    def _take_frames(self, packets: Packets, starts: Integers) -> None:
        opens = np.diff(packets.timestamp, prepend=-1) != 0
        opens[starts] = True
        rows = np.flatnonzero(opens)
        viewers = packets.viewer[rows]
        firsts = np.flatnonzero(np.diff(viewers, prepend=-1))
        rank = np.arange(len(rows)) - np.repeat(firsts, np.diff(firsts, append=len(rows)))
        for turn in range(int(rank.max()) + 1):
            chosen = rows[rank == turn]
            self._frame(packets.viewer[chosen], packets.timestamp[chosen], packets.arrival[chosen])
        ends = np.flatnonzero(packets.marker & np.isnan(self.first_frame[packets.viewer]))[::-1]
        self.first_frame[packets.viewer[ends]] = packets.arrival[ends]

    def _frame(self, viewer: Integers, timestamp: Integers, arrival: Floats) -> None:
        """The possible start of a frame at each of these viewers, none of which is named twice."""
        step = (timestamp - self._timestamp[viewer] + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        first = self.frames[viewer] == 0
        newer = first | (step > 0)
        viewer, timestamp, arrival, step, first = (
            one[newer] for one in (viewer, timestamp, arrival, step, first)
        )  # fmt: skip
        self.began[viewer[first]] = arrival[first]
        gap = arrival[~first] - self._arrival[viewer[~first]]
        self._gap(viewer[~first], gap, step[~first])
        self.frames[viewer] += 1
        settles = np.isnan(self._settled[viewer]) & (arrival - self.began[viewer] >= SETTLING)
        self._settled[viewer[settles]] = arrival[settles]
        self._settled_frames[viewer[settles]] = self.frames[viewer[settles]]
        self._timestamp[viewer] = timestamp
        self._arrival[viewer] = arrival

    def _gap(self, viewer: Integers, gap: Floats, step: Integers) -> None:
        drift = np.abs(gap * RTP_CLOCK - step)
        self.jitter[viewer] += (drift - self.jitter[viewer]) / 16
        frozen = gap >= self._threshold(viewer)
        self.freezes[viewer] += frozen
        self.frozen[viewer] += np.where(frozen, gap, 0.0)
        self._gaps[viewer, (self.frames[viewer] - 1) % AVERAGED] = gap

    def _threshold(self, viewer: Integers) -> Floats:
        count = np.clip(self.frames[viewer] - 1, 0, AVERAGED)
        average = self._gaps[viewer].sum(axis=1) / np.maximum(1, count)
        freeze = np.maximum(FREEZE_FACTOR * average, average + FREEZE_EXTRA)
        return np.where(count < FEWEST, np.inf, freeze)

    def end(self, viewers: Integers, now: float) -> None:
        """These viewers stop at `now`: the picture that still stands may be a freeze as well."""
        viewers = viewers[self.frames[viewers] > 0]
        gap = now - self._arrival[viewers]
        frozen = gap >= self._threshold(viewers)
        self.freezes[viewers] += frozen
        self.frozen[viewers] += np.where(frozen, gap, 0.0)
