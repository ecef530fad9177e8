"""Losses: how much of what is sent does not arrive, and how much of that depends on the rate."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from broadcaster.adaptation.slots import Slots


@dataclass(frozen=True, slots=True)
class LossSettings:
    """Losses are taken over `loss_slots` times of `loss_slot` seconds.

    They have other reasons than the rate where less is sent and still this share of them stays (`inherent`), and what
    arrives scales with what is sent, to the factor `scales`: the last `stretches` of `judge` seconds are compared,
    where their rates differ by more than `alike`; elsewhere `forget` is the weight of a stretch with less loss than
    that.
    """

    loss_slot: float = 0.25
    loss_slots: int = 8
    inherent: float = 0.5
    scales: float = 1.1
    alike: float = 0.8
    judge: float = 2.5
    stretches: int = 4
    forget: float = 0.3


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


class Losses:
    """Pure; `now` is monotonic seconds."""

    def __init__(self, settings: LossSettings) -> None:
        self._settings = settings
        self._received = Slots(settings.loss_slot, settings.loss_slots)
        self._lost = Slots(settings.loss_slot, settings.loss_slots)
        self._stretches: deque[_Stretch] = deque(maxlen=settings.stretches)
        self._usual = 0.0

    def add(self, now: float, octets: float, lost: int, received: int) -> None:
        """One feedback told of so many packets that were lost or received, and of the `octets` of these."""
        self._received.add(now, received)
        self._lost.add(now, lost)
        stretches = self._stretches
        if not stretches or now - stretches[-1].since >= self._settings.judge:
            self._compare(now)
            stretches.append(_Stretch(now))
        stretches[-1].add(octets, lost, received)

    def begin_anew(self) -> None:
        """Compare nothing of before with what comes now."""
        self._stretches.clear()

    def share(self, now: float) -> float | None:
        """Of all packets, 0 to 1; None while nothing is known."""
        lost, received = self._lost.sum(now), self._received.sum(now)
        return lost / (lost + received) if lost + received > 0 else None

    def excess(self, now: float) -> float:
        """What is lost beyond the usual, and beyond what chance makes of that."""
        lost, received = self._lost.sum(now), self._received.sum(now)
        count = lost + received
        if count <= 0.0:
            return 0.0
        loss = lost / count
        return max(0.0, loss - self._usual - 2.0 * math.sqrt(loss * (1.0 - loss) / count))

    def _compare(self, now: float) -> None:
        """What is lost as much at one rate as at another has other reasons than the rate."""
        settings, stretches = self._settings, self._stretches
        if len(stretches) < 2:
            return
        ends = [*(one.since for one in stretches), now][1:]
        rates = [one.octets / (end - one.since) for one, end in zip(stretches, ends, strict=True)]
        slow, fast = rates.index(min(rates)), rates.index(max(rates))
        slower, faster = stretches[slow].loss, stretches[fast].loss
        if rates[slow] > settings.alike * rates[fast]:
            if slower < self._usual:
                self._usual += settings.forget * (slower - self._usual)
        elif slower >= settings.inherent * faster and 1.0 - slower <= settings.scales * (1.0 - faster):
            self._usual = min(slower, faster)
        else:
            self._usual = min(self._usual, slower)
