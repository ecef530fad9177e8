"""The estimator of a viewer's path: by the kernel, which sees packets and feedback itself, or in Python."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any, Protocol

from broadcaster.adaptation.estimator import EstimatorSettings, PathEstimator
from broadcaster.adaptation.path import PathState
from workers.forward.state import ffi, lib

_DEFAULT = EstimatorSettings()


class Estimator(Protocol):
    """What is told of packets and of feedback about them; PathEstimator explains both."""

    watched: bool
    """Whether every feedback is to be acted on at once."""

    def sent(self, now: float, sequence: int, packets: int, octets: int) -> None: ...

    def arrived(self, now: float, arrivals: Sequence[tuple[int, int | None]]) -> None: ...

    def state(self, now: float) -> PathState: ...

    def take_told(self) -> bool:
        """Whether there is news since the last call: feedback that told of congestion, or that was watched for."""


@lru_cache(maxsize=16)
def _shared(settings: EstimatorSettings) -> Any:
    """One bc_path_settings for all viewers with the same.

    Raises KeyError for a setting that the kernel does not know: it would not follow it.
    """
    _check(settings)
    values = asdict(settings)
    losses, trend = values.pop("losses"), values.pop("trendline")
    values["short_window"] = values.pop("short")  # C has a type of this name
    trend["points"] = trend.pop("window")
    return ffi.new("bc_path_settings *", values | losses | trend)


class NativeEstimator:
    """A bc_path (estimate.h): the kernel tells it what left and what arrived, without Python.

    Raises ValueError for `settings` that ask for more than the arrays of estimate.h hold, or for nothing.
    """

    def __init__(self, settings: EstimatorSettings | None = None) -> None:
        self._settings = _shared(settings or _DEFAULT)
        self.pointer = ffi.new("bc_path *")
        lib.bc_path_open(self.pointer, self._settings)

    @property
    def watched(self) -> bool:
        return bool(self.pointer.watched)

    @watched.setter
    def watched(self, watched: bool) -> None:
        self.pointer.watched = watched

    def sent(self, now: float, sequence: int, packets: int, octets: int) -> None:
        lib.bc_path_sent(self.pointer, now, sequence, packets, octets)

    def arrived(self, now: float, arrivals: Iterable[tuple[int, int | None]]) -> None:
        records = [(ticks or 0, sequence, ticks is not None, 0) for sequence, ticks in arrivals]
        lib.bc_path_arrived(self.pointer, now, ffi.new("bc_arrival[]", records), len(records))

    def take_told(self) -> bool:
        told = bool(self.pointer.told)
        self.pointer.told = 0
        return told

    def state(self, now: float) -> PathState:
        path = self.pointer
        loss = _known(lib.bc_path_loss(path, now))
        return PathState(
            estimate=_known(path.estimate),
            throughput=_known(path.throughput),
            capacity=_known(lib.bc_path_capacity(path, now)),
            queue_delay=_known(path.delay),
            congested=bool(path.over or path.lossy),
            sinking=bool(path.sinking),
            loss=loss,
            excess_loss=None if loss is None else lib.bc_path_excess(path, now),
            rtt=_known(path.rtt),
            silent=0.0 if math.isnan(path.waiting_since) else max(0.0, now - path.waiting_since),
            measured=path.measured,
        )


class PythonEstimator(PathEstimator):
    """The reference itself, where there is no kernel."""

    watched = False

    def __init__(self, settings: EstimatorSettings | None = None) -> None:
        super().__init__(settings)
        self._told = False

    def arrived(self, now: float, arrivals: Iterable[tuple[int, int | None]]) -> None:
        measured = self._measured
        super().arrived(now, arrivals)
        if self._measured > measured:
            self._told = self._told or self.watched or self.congested

    def take_told(self) -> bool:
        told, self._told = self._told, False
        return told


def path_estimator(settings: EstimatorSettings | None = None) -> Estimator:
    """The fastest estimator that there is here."""
    return PythonEstimator(settings) if lib is None else NativeEstimator(settings)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _check(settings: EstimatorSettings) -> None:
    room = {
        "runs": (settings.runs, _length("runs")),
        "window": (settings.window, _slots() - 1),
        "short": (settings.short, _slots() - 1),
        "losses.loss_slots": (settings.losses.loss_slots, _slots() - 1),
        "bursts": (settings.bursts, _length("bursts") // 2),
        "losses.stretches": (settings.losses.stretches, _length("stretches")),
        "delays": (settings.delays, _length("recent") // 2),
        "trendline.window": (settings.trendline.window, _length("points") // 2),
    }
    for name, (wanted, most) in room.items():
        if wanted > most:
            raise ValueError(f"{name} is {wanted}, and the kernel has room for {most}")
        if wanted < 1:
            raise ValueError(f"{name} is {wanted}, and the kernel needs one at least")
    losses = settings.losses
    lengths = {"slot": settings.slot, "losses.loss_slot": losses.loss_slot, "losses.judge": losses.judge}
    for name, seconds in lengths.items():
        if not 0.0 < seconds < math.inf:
            raise ValueError(f"{name} is {seconds}, and no length of time")


def _length(name: str) -> int:
    length: int = dict(ffi.typeof("bc_path").fields)[name].type.length
    return length


def _slots() -> int:
    length: int = dict(ffi.typeof("bc_slots").fields)["sums"].type.length
    return length
