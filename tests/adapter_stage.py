"""Paths and reports to put a viewer's adapter on, and the time that passes."""

from __future__ import annotations

from dataclasses import replace

from broadcaster.adaptation.adapter import ViewerAdapter
from broadcaster.adaptation.decision import Decision
from broadcaster.adaptation.path import PathState
from broadcaster.adaptation.samples import Sample

FINE = Sample(packet_loss=0.0, rtt=0.04, jitter=0.002)
CLEAR = PathState(estimate=8e6, throughput=2.6e6, queue_delay=0.0, loss=0.0, excess_loss=0.0)


def run(
    adapter: ViewerAdapter, path: PathState, seconds: float, start: float, sample: Sample = FINE
) -> list[tuple[float, Decision]]:
    """What the adapter decides in those seconds, and when; it is asked ten times a second."""
    found = []
    for step in range(int(seconds * 10)):
        now = start + step / 10
        decision = adapter.update(now, sample, path)
        if decision is not None:
            found.append((now, decision))
    return found


def congested(estimate: float, *, queue: float = 0.15) -> PathState:
    return PathState(estimate=estimate, throughput=estimate, queue_delay=queue, congested=True, loss=0.0)


def sinking(estimate: float, *, queue: float = 0.06, rtt: float = 0.1) -> PathState:
    return replace(congested(estimate, queue=queue), sinking=True, throughput=2.6e6, rtt=rtt)
