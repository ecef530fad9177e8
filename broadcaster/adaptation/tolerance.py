"""Tolerance: how much of a queue is borne, and for how long, before a level is lowered for it."""

from __future__ import annotations

from dataclasses import dataclass

from broadcaster.adaptation.neighbours import Share
from broadcaster.adaptation.path import PathState


@dataclass(frozen=True, slots=True)
class ToleranceSettings:
    """Times and queues in seconds.

    `tolerable` is the queue that congestion alone may build before it counts, where nearly everything arrives
    (`arriving` of what is sent). Below a queue of `alarm` congestion lasts for `patience` before it counts: a radio
    that others hold is none; below one of `alarm_wide` where bursts come through `wide` times as fast as the level
    needs. On a line that is shared, who has least gives way last: after `spare`, or at a queue of `spare_queue`; and
    while another tries for more, whose keyframe comes to all who watch its rung, at one of `burden_queue`.
    """

    tolerable: float = 0.12
    arriving: float = 0.9
    alarm: float = 0.15
    patience: float = 0.3
    wide: float = 1.2
    alarm_wide: float = 0.3
    spare: float = 1.5
    spare_queue: float = 0.3
    burden_queue: float = 0.45


class Tolerance:
    """Pure, and without a memory. `queue` is what stands in the path, `stuck` how long it has been congested, both in
    seconds; `needed` is what the level takes of the path, in bit/s."""

    def __init__(self, settings: ToleranceSettings) -> None:
        self._settings = settings

    def spares(self, share: Share | None, queue: float, stuck: float) -> bool:
        """Whether others give way first."""
        settings = self._settings
        if share is None or not (share.spared or share.burdened):
            return False
        return queue < (settings.burden_queue if share.burdened else settings.spare_queue) and stuck < settings.spare

    def sinks(self, path: PathState, estimate: float, needed: float) -> bool:
        """Whether the path becomes so narrow that nothing is to be waited for."""
        return path.sinking and estimate < self._settings.arriving * needed

    def waits(self, queue: float, stuck: float, *, width: float | None, need: float) -> bool:
        """Whether it may be over in a moment; `width` is how fast bursts come through, None where that tells nothing,
        `need` what the level needs when its picture is not easy."""
        settings = self._settings
        wide = width is not None and width >= settings.wide * need
        return queue < (settings.alarm_wide if wide else settings.alarm) and stuck < settings.patience

    def bears(self, path: PathState, needed: float) -> bool:
        """Whether nearly all arrives and the queue is one that can be borne."""
        arrives = path.throughput is not None and path.throughput >= self._settings.arriving * needed
        return arrives and (path.queue_delay or 0.0) < self._settings.tolerable
