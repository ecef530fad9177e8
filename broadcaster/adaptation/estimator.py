"""PathEstimator: what a path carries, from when packets left and when they arrived (transport-wide feedback)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from broadcaster.adaptation.losses import Losses, LossSettings
from broadcaster.adaptation.path import PathState
from broadcaster.adaptation.slots import Slots
from broadcaster.adaptation.smoothing import Floor
from broadcaster.adaptation.trendline import Trendline, TrendlineSettings

TICK = 250e-6
"""Seconds of a tick of transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1)."""

FARTHEST = 2**48
"""Ticks, 2000 years: a clock that is told to leap on and on stays within what floats tell apart."""


@dataclass(frozen=True, slots=True)
class EstimatorSettings:
    """Times in seconds.

    `runs`: how many are remembered until their feedback comes. `gap`: what leaves within it belongs together, for
    `longest` at most, so that the slices of a keyframe count as one burst. `slot`: the unit of throughput, which is
    taken over `window`, and over `short` while the queue grows. `floor`: the shortest delay is that of the last one to
    two such times, since clocks drift and routes change. `dark`: without any feedback for so long nothing passed.

    `stall`: the queue is the least of the last `delays` within it, but of two at least, since a radio that others hold
    for a moment is none; but one above `alarming` counts at once. `guard`: a delay above the shortest that is no queue
    yet, and `standing`: one that is, whatever the trend. `back_off`: what is left of the throughput that a growing
    queue shows (draft-ietf-rmcat-gcc-02 section 5.5: 0.85). `hold`: the least time between two cuts, for the first one
    to show. Delays that become longer `rises` times, each time by `step` and by `rise` in all, show that the path has
    become narrower, where no single time has more than `leap` of that and none between falls by `dip` of it: a radio
    that others hold for a moment lengthens one delay, and each that follows is shorter.

    `severe`: a fraction of excess loss that shows the path's end, as in section 6; it is congestion for `shows` after
    each cut.

    `burst`: packets that arrive in a row tell how fast the path is; the median of the last `bursts` within
    `burst_age` counts.
    """

    runs: int = 128
    gap: float = 0.012
    longest: float = 0.05
    slot: float = 0.05
    window: int = 10
    short: int = 5
    floor: float = 30.0
    dark: float = 1.0
    stall: float = 0.2
    delays: int = 8
    alarming: float = 0.25
    guard: float = 0.025
    standing: float = 0.2
    back_off: float = 0.9
    hold: float = 0.4
    rises: int = 3
    rise: float = 0.05
    leap: float = 0.7
    dip: float = 0.3
    step: float = 0.005
    severe: float = 0.08
    shows: float = 1.3
    burst: int = 5
    bursts: int = 5
    burst_age: float = 4.0
    losses: LossSettings = field(default_factory=LossSettings)
    trendline: TrendlineSettings = field(default_factory=TrendlineSettings)


class _Run:
    """Packets with consecutive numbers that left together."""

    __slots__ = ("at", "end", "first", "octets")

    def __init__(self, first: int, end: int, at: float, octets: float) -> None:
        self.first = first
        self.end = end
        self.at = at
        self.octets = octets
        """Of one packet."""


class _Group:
    """Runs that belong together, as far as they have arrived."""

    __slots__ = ("arrived", "first_arrival", "last_arrival", "last_sent", "lost", "octets", "sent")

    def __init__(self, sent: float, arrival: float) -> None:
        self.sent = self.last_sent = sent
        self.first_arrival = self.last_arrival = arrival
        self.arrived = 0
        self.lost = 0
        self.octets = 0.0
        """Of all packets but the first."""


class PathEstimator:
    """Pure: times are passed in, and the same calls make the same state.

    Google Congestion Control (draft-ietf-rmcat-gcc-02), with three differences that a server of encoded levels needs.
    Frames leave in bursts, so a group's delay is that of its first packet: what the burst itself has to wait for is no
    queue. The estimate rises to what arrives, and no further, because levels do not follow it continuously: whoever
    wants to know more sends more (probes). And loss that does not depend on the rate does not lower it.
    """

    def __init__(self, settings: EstimatorSettings | None = None) -> None:
        self._settings = settings = settings or EstimatorSettings()
        self._runs: deque[_Run] = deque(maxlen=settings.runs)
        self._next: int | None = None
        """Extended number behind the last one sent."""
        self._heard = -1
        """The highest extended number that feedback spoke of."""
        self._ticks: int | None = None
        self._group: _Group | None = None
        self._trendline = Trendline(settings.trendline)
        self._floor = Floor(settings.floor)
        self._arrived = Slots(settings.slot, max(settings.window, settings.short))
        self._left = Slots(settings.slot, max(settings.window, settings.short))
        self._losses = Losses(settings.losses)
        self._bursts: deque[tuple[float, float]] = deque(maxlen=settings.bursts)
        self._last_arrival = 0.0
        self._last_sent = 0.0
        self._feedback_at: float | None = None
        self._waiting_since: float | None = None
        self._measured = 0
        self._delay: float | None = None
        self._delays: deque[tuple[float, float]] = deque(maxlen=settings.delays)
        self._falls = False
        self._over = self._lossy = self._sinking = False
        self._rises = 0
        self._rise_from = self._rise_since = self._rise_at = self._rise_top = 0.0
        self._rise_octets = self._rise_rate = self._rise_most = 0.0
        self._throughput: float | None = None
        self._estimate: float | None = None
        self._cut_at = -math.inf
        self._loss_cut_at = -math.inf
        self._loss_cut_rate = 0.0
        self._rtt: float | None = None

    def sent(self, now: float, sequence: int, packets: int, octets: int) -> None:
        """`packets` packets with consecutive transport-wide numbers, modulo 2^16, from `sequence` on left together."""
        if packets <= 0:
            return
        first = sequence
        if self._next is not None:
            first = self._next + ((sequence - self._next + 0x8000) & 0xFFFF) - 0x8000
            if first < self._next:
                return
        self._next = first + packets
        self._runs.append(_Run(first, first + packets, now, octets / packets))
        if self._waiting_since is None:
            self._waiting_since = now

    def arrived(self, now: float, arrivals: Iterable[tuple[int, int | None]]) -> None:
        """One transport-wide feedback: of each packet its number and its arrival in ticks modulo 2^32, None if lost."""
        if self._next is None:
            return
        runs, received, lost, octets = self._runs, 0, 0, 0.0
        place, run, newest_sent = -1, None, None
        for sequence, ticks in arrivals:
            number = self._next - ((self._next - sequence) & 0xFFFF)
            if run is None or not run.first <= number < run.end:
                place = self._place(number, place)
                run = runs[place] if place >= 0 else None
                if run is None:
                    continue
            if ticks is None:
                if number > self._heard:
                    lost += 1
                    if self._group is not None:
                        self._group.lost += 1
                continue
            received += 1
            octets += run.octets
            self._rise_octets += run.octets
            arrival = self._time_of(ticks)
            self._arrived.add(arrival, run.octets)
            self._left.add(run.at, run.octets)
            self._last_arrival = max(self._last_arrival, arrival)
            self._last_sent = max(self._last_sent, run.at)
            newest_sent = run.at if newest_sent is None else max(newest_sent, run.at)
            if number > self._heard:
                self._take(run, arrival, now)
            self._heard = max(self._heard, number)
        if not received and not lost:
            return
        if self._feedback_at is not None and now - self._feedback_at > self._settings.dark:
            # What was lost while nothing passed at all says nothing about the rate.
            lost = 0
            self._losses.begin_anew()
            self._loss_cut_at = now
        self._feedback_at = now
        self._measured += 1
        self._waiting_since = now if self._heard + 1 < self._next else None
        self._losses.add(now, octets, lost, received)
        if newest_sent is not None:
            self._rtt = now - newest_sent
        self._estimate_anew(now)

    @property
    def congested(self) -> bool:
        return self._over or self._lossy

    def state(self, now: float) -> PathState:
        """What is believed at `now`."""
        silent = 0.0
        if self._waiting_since is not None:
            silent = max(0.0, now - self._waiting_since)
        loss = self._losses.share(now)
        return PathState(
            estimate=self._estimate,
            throughput=self._throughput,
            capacity=self._capacity(now),
            queue_delay=self._delay,
            congested=self.congested,
            sinking=self._sinking,
            loss=loss,
            excess_loss=None if loss is None else self._losses.excess(now),
            rtt=self._rtt,
            silent=silent,
            measured=self._measured,
        )

    # --- from packets to groups -----------------------------------------------------------------------------------

    def _place(self, number: int, hint: int) -> int:
        """The index of the run that holds packet `number`; -1: it is forgotten, or never was."""
        runs = self._runs
        if 0 <= hint + 1 < len(runs) and runs[hint + 1].first <= number < runs[hint + 1].end:
            return hint + 1
        place = bisect_right(runs, number, key=_first) - 1
        return place if place >= 0 and number < runs[place].end else -1

    def _time_of(self, ticks: int) -> float:
        if self._ticks is None:
            self._ticks = ticks
        else:
            unwrapped = self._ticks + ((ticks - self._ticks + 0x80000000) & 0xFFFFFFFF) - 0x80000000
            self._ticks = max(-FARTHEST, min(FARTHEST, unwrapped))
        return self._ticks * TICK

    def _take(self, run: _Run, arrival: float, now: float) -> None:
        group = self._group
        settings = self._settings
        if group is None or run.at - group.last_sent > settings.gap or run.at - group.sent > settings.longest:
            if group is not None:
                self._close(group, now)
            self._group = group = _Group(run.at, arrival)
            self._take_delay(arrival, run.at, now)
        else:
            group.octets += run.octets
        group.last_sent = run.at
        group.last_arrival = max(group.last_arrival, arrival)
        group.arrived += 1

    def _take_delay(self, arrival: float, sent: float, now: float) -> None:
        floor, before, delay = self._floor.update(now, arrival - sent), self._delay, arrival - sent
        delays = self._delays
        delays.append((arrival, delay))
        while len(delays) > 2 and arrival - delays[0][0] > self._settings.stall:
            delays.popleft()
        least = delay
        for _, one in delays:
            least = min(least, one)
        if floor is not None and delay - floor > self._settings.alarming:
            least = delay
        self._delay = 0.0 if floor is None else max(0.0, least - floor)
        self._falls = before is not None and self._delay < before
        self._trendline.update(arrival, delay)
        self._follow_rise(arrival, delay)

    def _follow_rise(self, arrival: float, delay: float) -> None:
        settings, rise = self._settings, self._rise_top - self._rise_from
        ends = delay <= self._rise_top - settings.dip * rise or arrival - self._rise_at > settings.stall
        if not self._measured or ends or arrival <= self._rise_since:
            self._rises, self._rise_from, self._rise_top = 0, delay, delay
            self._rise_since = self._rise_at = arrival
            self._rise_octets = self._rise_most = 0.0
        elif delay > self._rise_top:
            self._rises += delay > self._rise_top + settings.step
            self._rise_most = max(self._rise_most, delay - self._rise_top)
            self._rise_top, self._rise_at = delay, arrival
            self._rise_rate = 8.0 * self._rise_octets / (arrival - self._rise_since)
        rise = self._rise_top - self._rise_from
        steady = self._rises >= settings.rises and self._rise_most <= settings.leap * rise
        self._sinking = steady and rise >= settings.rise

    def _close(self, group: _Group, now: float) -> None:
        if group.arrived >= self._settings.burst and not group.lost:
            spread = max(group.last_arrival - group.first_arrival, TICK)
            self._bursts.append((now, 8.0 * group.octets / spread))

    # --- from groups to the estimate ------------------------------------------------------------------------------

    def _estimate_anew(self, now: float) -> None:
        settings = self._settings
        at = self._last_arrival
        self._throughput = self._arrived.rate(at, settings.window)
        if self._throughput is not None:
            self._throughput *= 8.0
        delay = self._delay or 0.0
        usage = self._trendline.usage
        stands = usage != "under" and delay > settings.standing and not self._falls
        self._over = stands or self._sinking or (usage == "over" and delay > settings.guard)
        excess = self._losses.excess(now) > settings.severe
        throughput = self._throughput
        if throughput is None:
            return
        if self._over:
            short = self._arrived.rate(at, settings.short)
            width = min(throughput, throughput if short is None else 8.0 * short)
            if self._sinking:
                # While its queue is never empty, what arrives is what the path carries.
                width = min(width, self._rise_rate)
            self._cut(now, settings.back_off * width)
        elif excess:
            rate = self._left.rate(self._last_sent, settings.window) or 0.0
            more = rate * settings.losses.alike > self._loss_cut_rate and now - self._loss_cut_at >= settings.hold
            if more or now - self._loss_cut_at >= settings.losses.judge:
                self._loss_cut_at, self._loss_cut_rate = now, rate
                self._cut(now, throughput)
        elif usage == "normal" and delay < 2.0 * settings.guard:
            left = self._left.rate(self._last_sent, settings.window)
            shown = throughput if left is None else min(throughput, 8.0 * left)
            self._estimate = shown if self._estimate is None else max(self._estimate, shown)
        self._lossy = excess and now - self._loss_cut_at <= settings.shows

    def _cut(self, now: float, estimate: float) -> None:
        if now - self._cut_at < self._settings.hold:
            return
        if self._estimate is None or estimate < self._estimate:
            self._estimate = estimate
            self._cut_at = now

    def _capacity(self, now: float) -> float | None:
        recent = sorted(rate for at, rate in self._bursts if now - at <= self._settings.burst_age)
        return recent[len(recent) // 2] if recent else None


def _first(run: _Run) -> int:
    return run.first
