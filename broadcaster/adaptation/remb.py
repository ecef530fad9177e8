"""RembEstimator: what a path carries by the receiver's own estimate, where there is no transport-wide feedback."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import combinations

from broadcaster.adaptation.path import PathState
from broadcaster.adaptation.smoothing import Climb, Floor, Smoothed


@dataclass(frozen=True, slots=True)
class RembSettings:
    """Times in seconds.

    REMB (draft-alvestrand-rmcat-remb-03) rises to some 1.6 times what arrives and says no more, and falls to 0.85 of it
    when the queue grows. So it counts as far as so much has arrived (`shown`: the time constant of that), and the
    path is congested when it is below `expected` times what is sent, when the last `samples` of it fall by Kendall's
    tau (below `trend`), or when in `nack_window` more than `nack_ratio` of the packets were asked for again and again
    (the lines are LiveKit's). One that still climbs, by `climb` in `climb_window`, has not met the end of the path yet
    and is not low. `rate`: the time over which the rate of sending is taken. `follows`: REMB grows 8 % a
    second. `stale`: how long a REMB counts.
    """

    shown: float = 20.0
    expected: float = 0.95
    samples: int = 10
    trend: float = -0.6
    nack_window: float = 2.5
    nack_ratio: float = 0.08
    rate: float = 1.0
    climb: float = 1.04
    climb_window: float = 2.5
    follows: float = 2.5
    stale: float = 5.0
    floor: float = 30.0


class RembEstimator:
    """Pure: times are passed in. All rates count octets on the wire."""

    def __init__(self, settings: RembSettings | None = None) -> None:
        self._settings = settings = settings or RembSettings()
        self._rembs: deque[float] = deque(maxlen=settings.samples)
        self._remb_at: float | None = None
        self._climb = Climb(settings.climb_window, settings.climb)
        self._climbs = False
        self._totals: deque[tuple[float, int, int, int]] = deque()
        self._loss = Smoothed(2.0, settings.stale, first=0.0)
        self._shown = 0.0
        self._shown_at: float | None = None
        self._floor = Floor(settings.floor)
        self._rtt: float | None = None
        self._queue: float | None = None
        self._lossy: float | None = None
        self._heard_at: float | None = None
        self._measured = 0

    def counted(self, now: float, *, octets: int, packets: int, repeats: int) -> None:
        """What left since the start, and how many packets were asked for more than once."""
        totals, settings = self._totals, self._settings
        totals.append((now, octets, packets, repeats))
        while len(totals) > 2 and now - totals[1][0] >= max(settings.rate, settings.nack_window):
            totals.popleft()

    def estimated(self, now: float, remb: float) -> None:
        """A REMB came, in bit/s."""
        self._rembs.append(remb)
        self._climbs = self._climb.update(now, remb)
        self._remb_at = self._heard_at = now
        self._measured += 1

    def reported(self, now: float, *, loss: float | None, rtt: float | None) -> None:
        """A receiver report came."""
        self._lossy = self._loss.update(now, loss)
        self._heard_at = now
        self._measured += 1
        if rtt is not None:
            self._rtt = rtt
            floor = self._floor.update(now, rtt)
            self._queue = None if floor is None else rtt - floor

    def state(self, now: float) -> PathState:
        """What is believed at `now`."""
        settings = self._settings
        rate = self._rate(now)
        loss = self._lossy
        throughput = None if rate is None else rate * (1.0 - (loss or 0.0))
        known = self._remb_at is not None and now - self._remb_at <= settings.stale
        remb = self._rembs[-1] if known and self._rembs else None
        falls = remb is not None and self._falls() and rate is not None and remb < 1.3 * rate
        low = remb is not None and rate is not None and remb < settings.expected * rate and not self._climbs
        congested = low or falls or self._repeats() > settings.nack_ratio
        if throughput is not None and not congested:
            self._show(now, throughput)
        estimate = None
        if remb is not None:
            estimate = remb if congested or not self._shown else min(remb, self._shown)
        return PathState(
            estimate=estimate,
            throughput=throughput,
            queue_delay=self._queue,
            congested=congested,
            loss=loss,
            excess_loss=None,
            rtt=self._rtt,
            silent=0.0 if self._heard_at is None else max(0.0, now - self._heard_at - 1.0),
            measured=self._measured,
            follows=settings.follows,
            times_bursts=False,
        )

    def _show(self, now: float, throughput: float) -> None:
        """Remember the most that arrived lately."""
        if self._shown_at is not None:
            self._shown -= self._shown * min(1.0, (now - self._shown_at) / (10.0 * self._settings.shown))
        self._shown_at = now
        self._shown = max(self._shown, throughput)

    def _rate(self, now: float) -> float | None:
        totals = self._totals
        if len(totals) < 2:
            return None
        since = next((one for one in reversed(totals) if totals[-1][0] - one[0] >= self._settings.rate), totals[0])
        elapsed = totals[-1][0] - since[0]
        return 8.0 * (totals[-1][1] - since[1]) / elapsed if elapsed > 0.0 else None

    def _repeats(self) -> float:
        """The share of packets that were asked for more than once."""
        if len(self._totals) < 2:
            return 0.0
        (_, _, before, repeats_before), (_, _, packets, repeats) = self._totals[0], self._totals[-1]
        return (repeats - repeats_before) / (packets - before) if packets > before else 0.0

    def _falls(self) -> bool:
        """Kendall's tau of the last estimates over time."""
        count = len(self._rembs)
        if count < self._settings.samples:
            return False
        ordered = sum((later > earlier) - (later < earlier) for earlier, later in combinations(self._rembs, 2))
        return ordered / (count * (count - 1) / 2) < self._settings.trend
