"""Steering: what one viewer is sent of its stream, decided by what its path carries, and carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broadcaster.adaptation.adapter import DEFAULT_SETTINGS, AdaptationSettings, ViewerAdapter
from broadcaster.adaptation.audience import carrying, quantile
from broadcaster.adaptation.decision import Decision, State
from broadcaster.adaptation.levels import Level
from broadcaster.adaptation.neighbours import Neighbours
from broadcaster.adaptation.plan import PlanSettings
from broadcaster.adaptation.samples import Sample
from broadcaster.adaptation.words import reason
from broadcaster.bus import Bus
from broadcaster.bus.messages import Adaptation, Operating, Probe
from broadcaster.stream import StreamDescription
from broadcaster.track import AdaptiveVideoTrack
from workers.forward import Outlet
from workers.gauge import Gauge
from workers.streams import Feed

PLANNING = PlanSettings()


@dataclass(frozen=True)
class SteeringSettings:
    start_bitrate: int = 1_000_000
    """A viewer starts on the best rung of at most so many bits per second."""
    start_share: float = 0.25
    """Where the paths of other viewers of the stream are known, it starts on the best rung that all but this share of
    them could take."""
    burst_trust: float = 0.85
    """The share of the rate at which bursts come through that a viewer on the best level is believed to carry."""
    adaptation: AdaptationSettings = DEFAULT_SETTINGS


DEFAULT_STEERING_SETTINGS = SteeringSettings()


class Steering:
    """Tells the adapter of one viewer what its gauge finds, and does what it decides: by the track, which picks frames,
    by the forwarder, which adds probes, and by the outlet, which sends again. Each change is published.

    Its viewer calls it, once a second and whenever feedback should be acted on. The worker, which sees all viewers,
    sets `neighbours` and `adapter.overloaded`, and reads where `adapter` is and what is `carried`.
    """

    def __init__(
        self,
        viewer: str,
        feed: Feed,
        description: StreamDescription,
        gauge: Gauge,
        bus: Bus,
        settings: SteeringSettings,
        *,
        pictures: bool,
        probes: bool,
    ) -> None:
        """`pictures` says whether the viewer takes any, `probes` whether padding can be sent to it."""
        self._viewer = viewer
        self._feed = feed
        self._gauge = gauge
        self._bus = bus
        self._settings = settings
        known = quantile(feed.audience, settings.start_share)
        levels = description.levels()
        start = starting_level(levels, int(known or settings.start_bitrate))
        self.adapter = ViewerAdapter(levels, start, settings.adaptation, probes=probes)
        self.neighbours: Neighbours[str] | None = None
        """Those who may share its line; to be set before `update`."""
        self.track = AdaptiveVideoTrack()
        self.track.set_fps(start.fps)
        self.track.follow(description, start, entry=levels[0].rung)
        if not pictures:
            self.adapter.level = None
            self.track.set_level(None)

    def relevel(self, description: StreamDescription) -> None:
        """The stream's ladder has changed. The forwarder is to be told afterwards, if it knows the viewer."""
        levels = description.levels()
        self.adapter.relevel(levels)
        self.track.follow(description, self.adapter.level or levels[-1])
        if self.adapter.level is None:
            self.track.set_level(None)

    def update(self, outlet: Outlet, now: float, sample: Sample) -> None:
        """Decide on what is known now, `sample` included. The sound goes first, so the decision is on what it leaves of
        the path. `now` is monotonic seconds.
        """
        adapter, neighbours = self.adapter, self.neighbours
        path = self._gauge.believe(outlet, now, sample)
        adapter.share = None if neighbours is None else neighbours.share(now, self._viewer, adapter.place)
        decision = adapter.update(now, sample, path)
        if decision is not None:
            self._carry_out(outlet, decision)
        if neighbours is not None:
            neighbours.see(
                now,
                self._viewer,
                place=adapter.place,
                aim=adapter.aim,
                queue=self._gauge.queue,
                congested=path.congested,
                capacity=path.capacity,
            )
        outlet.copies, outlet.tight, outlet.congested = adapter.copies, adapter.tight, path.congested
        if outlet.estimator is not None:
            # The end of congestion has to be heard, too: two short ones would count as one that lasts.
            outlet.estimator.watched = adapter.probing or path.congested
        probe = adapter.probe
        self._feed.forwarder.probe(outlet, probe and probe + self._gauge.sound_bitrate, adapter.probe_octets)

    @property
    def carried(self) -> tuple[int, float] | None:
        """The rung that this viewer has settled on and what its path carries, in bit/s; None while that is not known.

        What it has settled on, it carries, even if so much was seldom needed, or others fill the line for a moment:
        otherwise a rung would follow what was sent, and less would be sent each time. On the best level nothing more is
        probed, so how fast bursts come through has to tell; on a line that is shared they have it for themselves.
        """
        adapter, path = self.adapter, self._gauge.path
        level = adapter.level
        if level is None or path.estimate is None or not adapter.settled:
            return None
        carried = max(path.estimate, carrying(PLANNING.overhead * level.bitrate))
        if path.capacity is not None and adapter.on_top and adapter.alone:
            carried = max(carried, self._settings.burst_trust * path.capacity)
        return level.rung, carried

    def _carry_out(self, outlet: Outlet, decision: Decision) -> None:
        level = self.adapter.level
        if level is not None:
            self.track.set_fps(level.fps)
        self.track.set_level(level)
        self._feed.forwarder.reselect(outlet)
        event = Adaptation(
            rule=decision.rule,
            from_=_operating(decision.before),
            to=_operating(decision.after),
            inputs=dict(decision.inputs),
            thresholds=dict(decision.thresholds),
            estimate=None if decision.estimate is None else int(decision.estimate),
            probe=_probe(decision),
            reason=reason(decision.rule, decision.before, decision.after, decision.inputs, decision.probe),
        )
        self._bus.publish("adaptation", event, stream=self._feed.stream, viewer=self._viewer)


def starting_level(levels: Sequence[Level], bitrate: int) -> Level:
    """The best level at full frame rate of at most `bitrate` bit/s; the cheapest full-rate one when none is."""
    top = {level.rung: level for level in sorted(levels, key=lambda level: level.layer)}
    full_rate = sorted(top.values(), key=lambda level: level.bitrate)
    return next((level for level in reversed(full_rate) if level.bitrate <= bitrate), full_rate[0])


def _probe(decision: Decision) -> Probe | None:
    last = decision.probe
    return None if last is None else Probe(target=last.target, reached=last.reached, outcome=last.outcome)


def _operating(state: State) -> Operating:
    return Operating(fps=state.fps, rung=state.rung or "", bitrate=state.bitrate or 0)
