"""Gauge: what is measured of one viewer, and what is believed of the path to it."""

from __future__ import annotations

from dataclasses import replace

from broadcaster.adaptation.path import PathState
from broadcaster.adaptation.remb import RembEstimator
from broadcaster.adaptation.samples import Sample
from workers.forward import Outlet

FIRST_WORD = 2.0
"""Seconds that a newcomer may be silent beyond what counts as silence: many report once a second, at first later."""


class Gauge:
    """Reads a viewer's outlet, and changes nothing there. `now` is monotonic seconds, `started` those of its beginning.

    Steering decides by it, and Figures tell what it found last: `bitrate` of the pictures and `sound_bitrate` on the
    wire, in bit/s, both over the time between two looks of the worker; `loss` of what the last reports were about, 0
    to 1; and `path`, which is what the sound leaves of it.
    """

    def __init__(self, started: float) -> None:
        self.bitrate: int | None = None
        self.sound_bitrate = 0.0
        self.loss: float | None = None
        self.path = PathState()
        self._sent = (started, 0)
        self._heard = (started, 0)
        self._counted = (0, 0)
        self._remb: RembEstimator | None = None
        """Made for a player that sends no transport-wide feedback."""
        self._heard_at: tuple[float | None, float | None] = None, None

    @property
    def queue(self) -> float:
        """Seconds of queue in the path, as far as it is known."""
        return self.path.queue_delay or 0.0

    def shows(self, outlet: Outlet) -> bool:
        """Whether pictures have left since the last look."""
        return outlet.octets + outlet.rtx_octets > self._sent[1]

    def sounds(self, outlet: Outlet, now: float) -> bool:
        """Whether sound has left since the last look, which this is one of."""
        (before, octets), total = self._heard, outlet.sound_octets
        if now > before:
            self.sound_bitrate = (total - octets) * 8 / (now - before)
        self._heard = (now, total)
        return total > octets

    def rest(self, now: float) -> None:
        """This was a look at which no pictures had left, and nothing is to be measured."""
        self._sent = (now, self._sent[1])

    def measure(self, outlet: Outlet, now: float) -> Sample:
        """What the pictures took since the last look, and what was reported of them."""
        before, octets = self._sent
        total = outlet.octets + outlet.rtx_octets
        if now > before:
            self.bitrate = int((total - octets) * 8 / (now - before))
        self._sent = (now, total)
        feedback = outlet.feedback
        expected, lost = feedback.packets_expected - self._counted[0], (feedback.packets_lost or 0) - self._counted[1]
        loss = None
        if expected > 0:
            loss = self.loss = min(1.0, max(0.0, lost / expected))
            self._counted = (feedback.packets_expected, feedback.packets_lost or 0)
        sent = None if self.bitrate is None else float(self.bitrate)
        return Sample(packet_loss=loss, rtt=feedback.rtt, jitter=feedback.jitter, sent_bitrate=sent)

    def believe(self, outlet: Outlet, now: float, sample: Sample) -> PathState:
        """What the path carries beside the sound, now that `sample` was reported."""
        path = self._estimated(outlet, now, sample)
        self.path = without(path, self.sound_bitrate) if outlet.sound_is_estimated else path
        return self.path

    def _estimated(self, outlet: Outlet, now: float, sample: Sample) -> PathState:
        path = None if outlet.estimator is None else outlet.estimator.state(now)
        if path is not None and path.measured:
            return path
        if path is not None and outlet.feedback.reported_at is None:
            return replace(path, silent=max(0.0, path.silent - FIRST_WORD))
        # There are players that agree to transport-wide feedback and never send it; they are not silent.
        return self._estimated_by_player(outlet, now, sample)

    def _estimated_by_player(self, outlet: Outlet, now: float, sample: Sample) -> PathState:
        feedback = outlet.feedback
        remb = self._remb = self._remb or RembEstimator()
        remb.counted(now, octets=outlet.wire_octets, packets=outlet.packets, repeats=outlet.history.repeats)
        before, self._heard_at = self._heard_at, (feedback.reported_at, feedback.remb_at)
        if feedback.remb is not None and feedback.remb_at != before[1]:
            remb.estimated(now, feedback.remb)
        if feedback.reported_at != before[0]:
            remb.reported(now, loss=sample.packet_loss, rtt=feedback.rtt)
        return remb.state(now)


def without(path: PathState, sound: float) -> PathState:
    """What of a path is left for the pictures beside `sound` bit/s that are sent whatever happens."""
    if not sound:
        return path
    estimate, throughput = (
        None if rate is None else max(0.0, rate - sound) for rate in (path.estimate, path.throughput)
    )
    return replace(path, estimate=estimate, throughput=throughput)
