"""The networks between a worker and a browser in the benchmark `browser`, seeded: the same ones in every run."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from tests.capacity import Capacity, Policer
from tests.lossy_relay import Impairment

DELAY = 0.02
"""Seconds each way, on every network."""

MEGABIT = 1e6


@dataclass(frozen=True)
class Network:
    """What the line is for `seconds`: `steps` are (second, bit/s), for `viewers` that share it."""

    name: str
    seconds: float
    steps: tuple[tuple[float, float], ...]
    loss: float = 0.0
    queue_seconds: float = 0.5
    policed: bool = False
    """Whether what exceeds the line is dropped instead of queued."""
    blackout: tuple[float, float] | None = None
    """From when to when nothing passes."""
    drops: tuple[float, ...] = ()
    """When the line becomes narrower, where it is asked how soon the viewer is at a level that fits."""
    rises: tuple[float, ...] = ()
    """When it becomes wider or comes back, where it is asked how soon the viewer is at the best level that fits."""
    viewers: int = 1
    settle: float = 14.0
    """Seconds before, in which the line is as it begins and the viewers join and climb."""

    def capacity(self, began: float = 0.0) -> Capacity:
        """What the line carries, nothing in a blackout."""
        if self.blackout is None:
            return Capacity(self.steps, began)
        dark, light = self.blackout
        before = [step for step in self.steps if step[0] < dark]
        after = [step for step in self.steps if step[0] > light]
        return Capacity([*before, (dark, 0.0), (light, Capacity(self.steps).at(light)), *after], began)

    def impairment(self, began: float) -> Impairment:
        """The line whose second 0 is at `began` of the event loop; without the blackout."""
        line = Policer(self.steps[0][1]) if self.policed else Capacity(self.steps, began)
        return Impairment(
            loss_down=self.loss, delay=DELAY, bandwidth_bps=line, queue_seconds=self.queue_seconds
        )  # fmt: skip


def walk(seconds: float, low: float, high: float, *, seed: int, every: float = 0.5) -> tuple[tuple[float, float], ...]:
    """As a moving phone sees its cell: each half second up to a third more or less, drawn back to the middle."""
    luck = random.Random(seed)
    middle = math.log(low * high) / 2
    at, value = 0.0, middle
    steps = []
    while at < seconds:
        steps.append((at, round(math.exp(value), -3)))
        value += luck.gauss(0.0, 0.2) + 0.05 * (middle - value)
        value = min(math.log(high), max(math.log(low), value))
        at += every
    return tuple(steps)


def stalls(seconds: float, bps: float, *, seed: int) -> tuple[tuple[float, float], ...]:
    """As a busy Wi-Fi channel: nothing for 50 to 150 ms, once in half a second to two seconds, and nothing is lost."""
    luck = random.Random(seed)
    steps = [(0.0, bps)]
    at = luck.uniform(0.5, 2.0)
    while at < seconds:
        ends = at + luck.uniform(0.05, 0.15)
        steps += [(round(at, 3), 0.0), (round(ends, 3), bps)]
        at = ends + luck.uniform(0.5, 2.0)
    return tuple(steps)


NETWORKS = (
    Network("steady-1", 40.0, ((0.0, 1.0 * MEGABIT),)),
    Network("loss-2", 50.0, ((0.0, 4.0 * MEGABIT),), loss=0.02),
    Network(
        "step",
        60.0,
        ((0.0, 4.0 * MEGABIT), (20.0, 1.2 * MEGABIT), (40.0, 4.0 * MEGABIT)),
        queue_seconds=1.0,
        drops=(20.0,),
        rises=(40.0,),
    ),
    Network("lte", 60.0, walk(60.0, 0.7 * MEGABIT, 5.0 * MEGABIT, seed=4)),
    Network("wifi", 45.0, stalls(45.0, 4.0 * MEGABIT, seed=5)),
    Network("blackout", 45.0, ((0.0, 4.0 * MEGABIT),), blackout=(20.0, 23.0), rises=(23.0,)),
    Network("policer", 45.0, ((0.0, 1.5 * MEGABIT),), policed=True),
    Network("three", 45.0, ((0.0, 4.0 * MEGABIT),), viewers=3),
)
