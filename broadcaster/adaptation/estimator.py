"""PathEstimator: what a path carries, from when packets left and when they arrived (transport-wide feedback)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from broadcaster.adaptation.path import PathState
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
    taken over `window`, and over `short` while the queue grows. `loss_slot`, `loss_slots`: the same for losses.
    `floor`: the shortest delay is that of the last one to two such times, since clocks drift and routes change.
    `dark`: without any feedback for so long nothing passed.

    `stall`: the queue is the least of the last `delays` within it, but of two at least, since a radio that others hold
    for a moment is none; but one above `alarming` counts at once. `guard`: a delay above the shortest that is no queue
    yet, and `standing`: one that is, whatever the trend. `back_off`: what is left of the throughput that a growing
    queue shows (draft-ietf-rmcat-gcc-02 section 5.5: 0.85). `hold`: the least time between two cuts, for the first one
    to show. Delays that become longer `rises` times, each time by `step` and by `rise` in all, show that the path has
    become narrower, where no single time has more than `leap` of that and none between falls by `dip` of it: a radio
    that others hold for a moment lengthens one delay, and each that follows is shorter.

    `severe`: a fraction of excess loss that shows the path's end, as in section 6; it is congestion for `shows` after
    each cut. Loss has other reasons than the rate where less is sent and still this share of it stays (`inherent`), and
    what arrives scales with what is sent, to the factor `scales`: the last `stretches` of `judge` seconds are compared,
    where their rates differ by more than `alike`; elsewhere `forget` is the weight of a stretch with less loss than
    that.

    `burst`: packets that arrive in a row tell how fast the path is; the median of the last `bursts` within
    `burst_age` counts.
    """

    runs: int = 128
    gap: float = 0.012
    longest: float = 0.05
    slot: float = 0.05
    window: int = 10
    short: int = 5
    loss_slot: float = 0.25
    loss_slots: int = 8
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
    inherent: float = 0.5
    scales: float = 1.1
    alike: float = 0.8
    judge: float = 2.5
    stretches: int = 4
    forget: float = 0.3
    burst: int = 5
    bursts: int = 5
    burst_age: float = 4.0
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


class _Stretch:
    """Some seconds, what left in them, and what of it was lost."""

    __slots__ = ("lost", "octets", "packets", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.octets = 0.0
        self.lost = 0
        self.packets = 0

    def add(self, octets: float, lost: int, received: int) -> None:
        self.octets += octets
        self.lost += lost
        self.packets += lost + received

    @property
    def loss(self) -> float:
        return self.lost / self.packets if self.packets else 0.0


class _Slots:
    """Sums over the last slots of equal length."""

    __slots__ = ("_length", "_newest", "_since", "_sums")

    def __init__(self, length: float, count: int) -> None:
        self._length = length
        self._sums = [0.0] * (count + 1)
        self._newest = -1
        self._since = -1

    def add(self, at: float, amount: float) -> None:
        """Times may be a little out of order."""
        slot = max(0, math.floor(at / self._length))
        sums = self._sums
        if self._newest < 0:
            self._newest = self._since = slot
        if slot > self._newest:
            for passed in range(max(self._newest + 1, slot - len(sums) + 1), slot + 1):
                sums[passed % len(sums)] = 0.0
            self._newest = slot
        if slot > self._newest - len(sums):
            sums[slot % len(sums)] += amount

    def rate(self, at: float, count: int) -> float | None:
        """Per second, over the last `count` whole slots and the one that `at` is in; None before two slots."""
        slot = max(0, math.floor(at / self._length))
        if self._newest < 0 or slot - self._since < 2:
            return None
        sums = self._sums
        count = min(count, len(sums) - 1, slot - self._since)
        oldest = self._newest - len(sums)
        total = 0.0
        for one in range(max(slot - count, oldest + 1), min(slot, self._newest) + 1):
            total += sums[one % len(sums)]
        return total / (count * self._length + (at - slot * self._length))

    def sum(self, at: float) -> float:
        """Over all slots that are not too old at `at`."""
        slot, sums = max(0, math.floor(at / self._length)), self._sums
        first, last = max(slot, self._newest) - len(sums) + 1, min(slot, self._newest)
        total = 0.0
        for one in range(first, last + 1):
            total += sums[one % len(sums)]
        return total


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
        self._arrived = _Slots(settings.slot, max(settings.window, settings.short))
        self._left = _Slots(settings.slot, max(settings.window, settings.short))
        self._received = _Slots(settings.loss_slot, settings.loss_slots)
        self._lost = _Slots(settings.loss_slot, settings.loss_slots)
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
        self._usual_loss = 0.0
        self._loss_cut_at = -math.inf
        self._loss_cut_rate = 0.0
        self._stretches: deque[_Stretch] = deque(maxlen=settings.stretches)
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
            self._stretches.clear()
            self._loss_cut_at = now
        self._feedback_at = now
        self._measured += 1
        self._waiting_since = now if self._heard + 1 < self._next else None
        self._received.add(now, received)
        self._lost.add(now, lost)
        self._judge_loss(now, octets, lost, received)
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
        loss = self._loss(now)
        return PathState(
            estimate=self._estimate,
            throughput=self._throughput,
            capacity=self._capacity(now),
            queue_delay=self._delay,
            congested=self.congested,
            sinking=self._sinking,
            loss=loss,
            excess_loss=None if loss is None else self._excess(now),
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
        excess = self._excess(now) > settings.severe
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
            more = rate * settings.alike > self._loss_cut_rate and now - self._loss_cut_at >= settings.hold
            if more or now - self._loss_cut_at >= settings.judge:
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

    def _judge_loss(self, now: float, octets: float, lost: int, received: int) -> None:
        """What is lost as much at one rate as at another has other reasons than the rate."""
        settings, stretches = self._settings, self._stretches
        if not stretches or now - stretches[-1].since >= settings.judge:
            self._compare(now)
            stretches.append(_Stretch(now))
        stretches[-1].add(octets, lost, received)

    def _compare(self, now: float) -> None:
        settings, stretches = self._settings, self._stretches
        if len(stretches) < 2:
            return
        ends = [*(one.since for one in stretches), now][1:]
        rates = [one.octets / (end - one.since) for one, end in zip(stretches, ends, strict=True)]
        slow, fast = rates.index(min(rates)), rates.index(max(rates))
        slower, faster = stretches[slow].loss, stretches[fast].loss
        if rates[slow] > settings.alike * rates[fast]:
            if slower < self._usual_loss:
                self._usual_loss += settings.forget * (slower - self._usual_loss)
        elif slower >= settings.inherent * faster and 1.0 - slower <= settings.scales * (1.0 - faster):
            self._usual_loss = min(slower, faster)
        else:
            self._usual_loss = min(self._usual_loss, slower)

    def _excess(self, now: float) -> float:
        """What is lost beyond the usual, and beyond what chance makes of that."""
        lost, received = self._lost.sum(now), self._received.sum(now)
        count = lost + received
        if count <= 0.0:
            return 0.0
        loss = lost / count
        return max(0.0, loss - self._usual_loss - 2.0 * math.sqrt(loss * (1.0 - loss) / count))

    def _loss(self, now: float) -> float | None:
        lost, received = self._lost.sum(now), self._received.sum(now)
        return lost / (lost + received) if lost + received > 0 else None

    def _capacity(self, now: float) -> float | None:
        recent = sorted(rate for at, rate in self._bursts if now - at <= self._settings.burst_age)
        return recent[len(recent) // 2] if recent else None


def _first(run: _Run) -> int:
    return run.first
