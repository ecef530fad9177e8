"""Controller: estimator and adapter of one viewer together, for whoever has packets and feedback and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from broadcaster.adaptation.adapter import DEFAULT_SETTINGS, AdaptationSettings, ViewerAdapter
from broadcaster.adaptation.decision import Decision
from broadcaster.adaptation.estimator import EstimatorSettings, PathEstimator
from broadcaster.adaptation.levels import Level
from broadcaster.adaptation.samples import Sample


class Controller:
    """A viewer with transport-wide feedback. Pure, replayable: times are passed in."""

    def __init__(
        self,
        levels: Sequence[Level],
        start: Level,
        settings: AdaptationSettings = DEFAULT_SETTINGS,
        estimation: EstimatorSettings | None = None,
    ) -> None:
        self.estimator = PathEstimator(estimation)
        self.adapter = ViewerAdapter(levels, start, settings)
        self.decisions: list[tuple[float, Decision]] = []
        self._report = Sample()
        self._octets = 0
        self._padded = 0
        self._ticked: tuple[float, int] | None = None
        self._sent_bitrate: float | None = None

    @property
    def level(self) -> Level | None:
        """What should be sent; None: nothing."""
        return self.adapter.level

    @property
    def probe(self) -> float:
        """Bit/s that should leave in all, padding included; 0: no padding."""
        limit = self.adapter.probe_octets
        return 0.0 if limit is not None and self._padded >= limit else self.adapter.probe

    @property
    def place(self) -> int:
        """The place of the level, 0 for the cheapest."""
        return self.adapter.place

    def queue(self, now: float) -> float:
        """Seconds of queue in the path."""
        return self.estimator.state(now).queue_delay or 0.0

    @property
    def tight(self) -> bool:
        """Whether the path has next to no room for what was lost."""
        return self.adapter.tight

    @property
    def congested(self) -> bool:
        """Whether the queue in the path grows."""
        return self.estimator.congested

    @property
    def copies(self) -> int:
        """How often a lost packet should be sent again at once."""
        return self.adapter.copies

    @property
    def estimate(self) -> float | None:
        return self.estimator.state(0.0).estimate

    def sent(self, now: float, sequence: int, packets: int, octets: int) -> None:
        """`packets` packets with consecutive transport-wide numbers from `sequence` on left together."""
        self.estimator.sent(now, sequence, packets, octets)
        self._octets += octets
        if self.adapter.probe:
            self._padded += octets

    def arrived(self, now: float, arrivals: Sequence[tuple[int, int | None]]) -> None:
        """One transport-wide feedback."""
        self.estimator.arrived(now, arrivals)

    def reported(
        self, now: float, *, loss: float | None, rtt: float | None, jitter: float | None, remb: float | None = None
    ) -> None:
        """A receiver report."""
        self._report = Sample(packet_loss=loss, rtt=rtt, jitter=jitter)

    def tick(self, now: float) -> None:
        """Decide; after each feedback and each second."""
        if self._ticked is None or now - self._ticked[0] >= 1.0:
            if self._ticked is not None:
                self._sent_bitrate = 8.0 * (self._octets - self._ticked[1]) / (now - self._ticked[0])
            self._ticked = now, self._octets
        report = self._report
        sample = Sample(report.packet_loss, report.rtt, report.jitter, sent_bitrate=self._sent_bitrate)
        self._report = Sample(rtt=report.rtt, jitter=report.jitter)
        probing = self.adapter.probe
        decision = self.adapter.update(now, sample, self.estimator.state(now))
        if not probing:
            self._padded = 0
        if decision is not None:
            self.decisions.append((now, decision))
