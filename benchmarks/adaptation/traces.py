"""The traces: networks as they are met, made by this project. Everything is seeded."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from benchmarks.adaptation.link import LinkSettings
from tests.capacity import Capacity

M = 1e6


@dataclass(frozen=True, slots=True)
class Trace:
    """`seconds` of a link that `viewers` share. `steady`: the path does not change. `drops` and `rises` are the times
    at which the capacity falls to a third or so, and comes back. `deep`: the link itself makes long queues or none can
    be kept short. `dark`: nothing can be shown for a while. `frames_capped`: lasting loss of 5 % and more, for which
    the API's rule asks for fewer frames."""

    name: str
    about: str
    seconds: float
    link: LinkSettings
    viewers: int = 1
    steady: bool = False
    drops: tuple[float, ...] = ()
    rises: tuple[float, ...] = ()
    deep: bool = False
    dark: bool = False
    frames_capped: bool = False


def _constant(rate: float) -> Capacity:
    return Capacity([(0.0, rate)])


def _walk(seed: int, low: float, high: float, seconds: float, step: float = 0.1, spread: float = 0.1) -> Capacity:
    """A random walk in the logarithm, pulled to the middle."""
    chance = random.Random(seed)
    middle = value = math.log(math.sqrt(low * high))
    steps = []
    for number in range(int(seconds / step) + 1):
        steps.append((number * step, math.exp(value)))
        value += chance.gauss(0.0, spread) + 0.01 * (middle - value)
        value = min(math.log(high), max(math.log(low), value))
    return Capacity(steps)


def _stalls(seed: int, rate: float, seconds: float, every: float, longest: float) -> Capacity:
    """A rate with stalls in which nothing is served: a wireless medium that others hold."""
    chance = random.Random(seed)
    steps, now = [(0.0, rate)], 2.0
    while now < seconds:
        now += chance.expovariate(1.0 / every)
        stall = chance.uniform(0.03, longest)
        steps += [(now, 0.0), (now + stall, rate)]
        now += stall
    return Capacity(steps)


def _steady(rate: float, delay: float) -> Trace:
    return Trace(
        f"steady-{rate / M:g}", f"{rate / M:g} Mbit/s", 90, LinkSettings(_constant(rate), delay=delay), steady=True
    )


def _lossy(loss: float) -> Trace:
    return Trace(
        f"loss-{round(100 * loss)}",
        f"5 Mbit/s, {round(100 * loss)} % of the packets lost by chance",
        90,
        LinkSettings(_constant(5 * M), delay=0.03, loss=loss),
        steady=True,
        frames_capped=loss >= 0.05,
    )


def _step(high: float, low: float, delay: float) -> Trace:
    steps = [(0.0, high), (30.0, low), (60.0, high)]
    return Trace(
        f"step-{high / M:g}-{low / M:g}",
        f"{high / M:g} Mbit/s, from 30 to 60 s {low / M:g}",
        90,
        LinkSettings(Capacity(steps), delay=delay),
        drops=(30.0,),
        rises=(60.0,),
    )


def traces(walks: int = 0) -> tuple[Trace, ...]:
    """All of them; another number makes other random walks and stalls."""
    return (
        _steady(0.3 * M, 0.03),
        _steady(0.6 * M, 0.03),
        _steady(1 * M, 0.025),
        _steady(2 * M, 0.02),
        _steady(4 * M, 0.015),
        _steady(10 * M, 0.01),
        _step(3 * M, 1 * M, 0.025),
        _step(6 * M, 2 * M, 0.02),
        Trace(
            "stairs",
            "0.4, 1, 2, 4, 2, 1, 0.4 Mbit/s, 15 s each",
            105,
            LinkSettings(Capacity([(15.0 * n, rate * M) for n, rate in enumerate((0.4, 1, 2, 4, 2, 1, 0.4))])),
        ),
        Trace(
            "lte-1",
            "a walk from 0.5 to 8 Mbit/s",
            90,
            LinkSettings(_walk(3 + walks, 0.5 * M, 8 * M, 90), delay=0.035, queue=1.0),
            deep=True,
        ),
        Trace(
            "lte-2",
            "another",
            90,
            LinkSettings(_walk(11 + walks, 0.5 * M, 8 * M, 90), delay=0.035, queue=1.0),
            deep=True,
        ),
        Trace(
            "wifi",
            "5 Mbit/s with stalls of up to 0.15 s about every 1.5 s",
            90,
            LinkSettings(_stalls(5 + walks, 5 * M, 90, 1.5, 0.15), delay=0.01),
        ),
        Trace(
            "bufferbloat",
            "3 Mbit/s, from 30 to 60 s 0.9, before a queue of 1 s",
            90,
            LinkSettings(Capacity([(0.0, 3 * M), (30.0, 0.9 * M), (60.0, 3 * M)]), queue=1.0, delay=0.02),
            drops=(30.0,),
            rises=(60.0,),
        ),
        Trace(
            "policer",
            "a token bucket of 40 kB filled with 1.2 Mbit/s drops what is too much",
            90,
            LinkSettings(_constant(1.2 * M), bucket=40_000, delay=0.02),
        ),
        Trace(
            "policer-shallow",
            "one of 16 kB filled with 1.5 Mbit/s: a keyframe empties it",
            90,
            LinkSettings(_constant(1.5 * M), bucket=16_000, delay=0.02),
        ),
        _lossy(0.01),
        _lossy(0.02),
        _lossy(0.05),
        _lossy(0.10),
        Trace(
            "blackout",
            "4 Mbit/s, nothing passes from 30 to 33 s",
            90,
            LinkSettings(_constant(4 * M), blackout=(30.0, 33.0), delay=0.02),
            dark=True,
        ),
        Trace("shared-3", "3 viewers behind 4 Mbit/s", 90, LinkSettings(_constant(4 * M), delay=0.02), viewers=3),
        Trace("shared-20", "20 viewers behind 20 Mbit/s", 90, LinkSettings(_constant(20 * M), delay=0.02), viewers=20),
        Trace("shared-50", "50 viewers behind 40 Mbit/s", 60, LinkSettings(_constant(40 * M), delay=0.02), viewers=50),
    )
