"""ViewerAdapter: which level one viewer should be sent, from what is believed of its path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from broadcaster.adaptation import policy
from broadcaster.adaptation.aftermath import Aftermath, AftermathSettings
from broadcaster.adaptation.decision import Decision, Rule, State
from broadcaster.adaptation.frames import SLACK, FrameCap, FrameCapSettings
from broadcaster.adaptation.levels import Level
from broadcaster.adaptation.neighbours import Share
from broadcaster.adaptation.options import Options
from broadcaster.adaptation.path import PathState
from broadcaster.adaptation.pauses import Pauses, PauseSettings
from broadcaster.adaptation.policy import Thresholds
from broadcaster.adaptation.probing import Prober, ProbeSettings
from broadcaster.adaptation.resends import Resends, ResendSettings
from broadcaster.adaptation.samples import Sample
from broadcaster.adaptation.smoothing import Floor, Hold, Smoothed
from broadcaster.adaptation.tolerance import Tolerance, ToleranceSettings
from broadcaster.adaptation.trials import Trials, TrialSettings


@dataclass(frozen=True, slots=True)
class AdaptationSettings:
    """Times in seconds.

    `overhead`: octets on the wire for each of media (headers, extensions, tag, resends).
    `smoothing`: time constant of reported loss and of the sent bitrate; `stale`: how long a report counts.
    `drain`: a queue is to be empty again after about this long, so that what fits is lower while it stands;
    `least_share` of the estimate is used all the same.
    `most_burden`: how many times its need a level is at most taken to cost with all that losses add.
    Who has more than its share of a line goes a level down each `yielding` seconds after a change has shown.
    `settle`: a long way, or a queue at what should fit, counts when it has lasted so long.
    `lasting`: a level that was kept for so long tells what the path carries.
    `silence`: without any feedback for so long the viewer gets the fewest frames.
    `calm`: the queue below which the path is at rest, and `rest`: how long it is, before more is tried; after a
    downgrade `cooldown`. Where nothing can be probed, a quiet link for `quiet` is the trial.
    `rtt_window`: the lowest RTT is that of the last one to two such windows, since routes change.
    """

    thresholds: Thresholds = policy.DEFAULT_THRESHOLDS
    probing: ProbeSettings = field(default_factory=ProbeSettings)
    trials: TrialSettings = field(default_factory=TrialSettings)
    frames: FrameCapSettings = field(default_factory=FrameCapSettings)
    resends: ResendSettings = field(default_factory=ResendSettings)
    aftermath: AftermathSettings = field(default_factory=AftermathSettings)
    pauses: PauseSettings = field(default_factory=PauseSettings)
    tolerance: ToleranceSettings = field(default_factory=ToleranceSettings)
    overhead: float = 1.06
    smoothing: float = 2.0
    stale: float = 5.0
    drain: float = 0.8
    least_share: float = 0.4
    yielding: float = 2.0
    most_burden: float = 1.4
    settle: float = 1.0
    lasting: float = 6.0
    silence: float = 1.0
    calm: float = 0.07
    rest: float = 0.8
    cooldown: float = 1.2
    quiet: float = 8.0
    rtt_window: float = 300.0


DEFAULT_SETTINGS = AdaptationSettings()


class ViewerAdapter:
    """Decides for one viewer. Pure: the same calls lead to the same decisions.

    `levels` are all that the viewer can be sent (never empty), here ordered by bitrate. `level` is where it should be
    now, None while it is paused. `fps_cap` is the frame rate that loss and overload leave it. `probe` is what should
    leave in all, in bit/s, padding included, 0 where nothing is probed, and `probe_octets` how much padding at most.

    Down at once, in one step to what fits; up after a probe that went through, or where the estimate fits already.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        start: Level,
        settings: AdaptationSettings = DEFAULT_SETTINGS,
        *,
        probes: bool = True,
    ) -> None:
        """`probes` says whether padding can be sent to this viewer."""
        self._settings = settings
        self._probes = probes
        self._prober = Prober(settings.probing)
        self._trials = Trials(settings.trials)
        self._frames = FrameCap(settings.frames)
        self._bar = math.inf
        self._aim: Level | None = None
        self._options = Options(levels, self._frames, settings.overhead)
        self._resends = Resends(settings.resends)
        self.level: Level | None = start
        self.share: Share | None = None
        """What the neighbours leave, where they share a line; to be set before `update`."""
        self.overloaded = False
        """Whether the sender itself cannot keep up; to be set before `update`."""
        self._now = -math.inf
        self._loss = Smoothed(settings.smoothing, settings.stale, first=0.0)
        self._sent = Smoothed(settings.smoothing, settings.stale)
        self._rtt_min = Floor(settings.rtt_window)
        self._calm, self._stuck, self._rtt_high = (Hold() for _ in range(3))
        self._queue = 0.0
        self._loses = False
        self._aftermath = Aftermath(settings.aftermath)
        self._pauses = Pauses(settings.pauses)
        self._tolerance = Tolerance(settings.tolerance)
        self._began: float | None = None

    # --- what is asked of it --------------------------------------------------------------------------------------

    @property
    def fps_cap(self) -> float:
        """Frames per second at most."""
        return self._frames.fps

    @property
    def place(self) -> int:
        """Of the level among all, 0 for the cheapest and while it is paused."""
        return 0 if self.level is None else self._options.place(self.level)

    @property
    def aim(self) -> int | None:
        """The place of the level that is probed for; None while no probe runs."""
        return self._options.place(self._aim) if self._prober.probing and self._aim is not None else None

    @property
    def settled(self) -> bool:
        """Whether the level has lasted, so that the estimate is more than what happened to be sent."""
        began = self._now if self._began is None else self._began
        return self._now - max(began, self._aftermath.changed_at) >= self._settings.lasting

    @property
    def alone(self) -> bool:
        """Whether no line is shared, as far as one knows."""
        return self.share is None or self.share.alone

    @property
    def on_top(self) -> bool:
        """Whether there is nothing better."""
        return self.level == self._options.levels[-1]

    @property
    def probe(self) -> float:
        return self._prober.rate

    @property
    def tight(self) -> bool:
        """Whether the path has no room for what was lost, or next to none."""
        return self._resends.tight

    @property
    def copies(self) -> int:
        """How often a lost packet should be sent again at once."""
        return self._resends.copies

    @property
    def probing(self) -> bool:
        """Whether a probe runs, or its answer is awaited: every feedback should lead to an `update`."""
        return self._prober.active

    @property
    def probe_octets(self) -> int | None:
        return self._prober.octets

    def relevel(self, levels: Sequence[Level]) -> None:
        """The ladder changed: stay on the rung of the same name, else on the best level that is not dearer."""
        self._options.arrange(levels)
        self._aim = None
        self._trials.forget()
        if self.level is not None:
            self.level = self._options.instead_of(self.level)

    def update(self, now: float, sample: Sample, path: PathState) -> Decision | None:
        """Take what is reported and believed at `now` (seconds of any clock, not before the last call), and decide.

        Call it once a second, and whenever feedback came. At most one change a call, made when it returns.
        """
        now = now if math.isfinite(now) and now >= self._now else max(self._now, 0.0)
        self._now = now
        self._began = now if self._began is None else self._began
        seen = self._see(now, sample, path)
        self._bound()
        decision = self._decide(seen, path)
        if decision is not None and self._prober.active:
            self._prober.stop(now, path)
        of_probe = self._trials.excused(now) and self._queue < self._settings.calm
        self._resends.see(path, loses=self._loses, probing=self.probing, of_probe=of_probe)
        return decision

    def _see(self, now: float, sample: Sample, path: PathState) -> Sample:
        return Sample(
            packet_loss=self._loss.update(now, sample.packet_loss),
            rtt=sample.rtt,
            jitter=sample.jitter,
            estimate=path.estimate,
            sent_bitrate=self._sent.update(now, sample.sent_bitrate),
            rtt_min=self._rtt_min.update(now, sample.rtt),
        )

    def _decide(self, seen: Sample, path: PathState) -> Decision | None:
        now, settings, thresholds = self._now, self._settings, self._settings.thresholds
        self._queue = path.queue_delay or 0.0
        self._loses = (path.excess_loss or 0.0) > thresholds.loss_high
        self._trials.see(now, path)
        calm = not path.congested and path.silent < settings.silence and (path.queue_delay or 0.0) < settings.calm
        rested = self._calm.seconds(now, calm)
        self._frames.see(
            now,
            high=policy.loss_is_high(seen, thresholds),
            low=policy.loss_is_low(seen, thresholds),
            blamed=self._blames_rate(path),
        )
        rtt_high = self._rtt_high.seconds(now, path.queue_delay is None and policy.rtt_is_high(seen, thresholds))
        if (relieved := self._relieve_worker(seen)) is not None:
            return relieved
        level = self.level
        if level is None:
            return self._resume(seen)
        worse = (
            self._give_way(level, seen, path)
            or self._shorten(level, seen, path, rtt_high)
            or self._keep_to_share(level, seen)
        )
        if worse is None and self._frames.lower(now):
            worse = self._keep_to_frames(level, seen)
        if worse is not None or self._frames.blocks:
            return worse
        self._frames.excuse()
        if self._frames.give_back():
            return self._take_frames(level, seen)
        return self._climb(level, seen, path, rested)

    # --- down -----------------------------------------------------------------------------------------------------

    def _give_way(self, level: Level, seen: Sample, path: PathState) -> Decision | None:
        """The queue grows, or too much is lost: go to what fits, if this does not."""
        settings = self._settings
        failing = self._trials.failing
        crowds = self._prober.probing and self.share is not None and self.share.crowded
        if not path.congested and not failing and not crowds:
            self._stuck.reset()
            return None
        estimate = path.estimate if path.estimate is not None else path.throughput
        queue, ease, need = self._queue, self._ease(level, seen), self._options.need(level)
        tolerance = self._tolerance
        if self._prober.active:
            self._prober.fail(self._now, path)
            ease = min(1.0, ease)
            if estimate is None or not tolerance.sinks(path, estimate, ease * need):
                self._end_trial(path)
                return None
        stuck = self._stuck.seconds(self._now, True)
        spared = tolerance.spares(self.share, queue, stuck)
        if estimate is None or spared or (not failing and self._is_early(path, estimate / need)):
            return None
        sinking = tolerance.sinks(path, estimate, ease * need)
        if not (sinking or failing or self._loses):
            width = path.capacity if self.alone else None
            if tolerance.waits(queue, stuck, width=width, need=need) or tolerance.bears(path, ease * need):
                return None
        if sinking:
            # What is known of the queue is old by the way there and back.
            queue += (path.rtt or 0.0) * max(0.0, ease * need / max(estimate, 1.0) - 1.0)
        fitting = self._options.best(max(settings.least_share, 1.0 - queue / settings.drain) * estimate / ease)
        if fitting is not None and fitting.bitrate >= level.bitrate:
            fitting = self._options.below(level) if stuck >= settings.settle else level
        if failing and (before := self._trials.before) is not None:
            fitting = min(before, fitting or before, key=attrgetter("bitrate"))
            self._trials.doubt(estimate)
            self._loses = True
            self._prober.regret(self._now, need)
        fitting = fitting or self._options.allowed[0]
        if fitting.bitrate < level.bitrate:
            return self._lower("estimate-low", fitting, seen)
        return self._stop_sending(seen) if self._pauses.due(stuck) else None

    def _is_early(self, path: PathState, arriving: float) -> bool:
        """Whether what is heard may still be of a change, or of a probe; `arriving` is a share of what is needed."""
        aftermath = self._aftermath
        return aftermath.hides(self._now, arriving) if path.sinking else aftermath.lasts(self._now)

    @property
    def _since_change(self) -> float:
        return self._now - self._aftermath.changed_at

    def _stop_sending(self, seen: Sample) -> Decision:
        self._pauses.begin(self._since_change)
        return self._lower("pause", None, seen)

    def _shorten(self, level: Level, seen: Sample, path: PathState, rtt_high: float) -> Decision | None:
        """Nothing is heard, or the way has become long where nothing else tells of a queue."""
        settings = self._settings
        if path.silent >= settings.silence:
            fewest = self._options.fewest(level)
            return None if fewest == level else self._lower("silence", fewest, seen)
        if rtt_high >= settings.settle and self._since_change >= settings.settle:
            below = self._options.below(level)
            return None if below is None else self._lower("rtt-high", below, seen)
        return None

    def _blames_rate(self, path: PathState) -> bool:
        """Whether less would be lost if less were sent, as far as one can know."""
        return path.excess_loss is None or path.excess_loss > self._settings.thresholds.loss_high

    def _keep_to_share(self, level: Level, seen: Sample) -> Decision | None:
        """Others behind the same line get much less: let them have some."""
        if (
            self.share is None
            or self.place <= self.share.cap
            or self._now < self._aftermath.over_from + self._settings.yielding
        ):
            return None
        below = self._options.below(level)
        return None if below is None else self._move("fair-share", below, seen)

    def _keep_to_frames(self, level: Level, seen: Sample) -> Decision | None:
        lower = self._options.best(self._options.need(level))
        return None if lower is None or lower == level else self._lower("loss-high", lower, seen)

    def _lower(self, rule: Rule, level: Level | None, seen: Sample) -> Decision:
        blamed = rule in ("estimate-low", "rtt-high") or (rule == "loss-high" and self._loses)
        trials, settings, now, before = self._trials, self._settings.trials, self._now, self._trials.before
        if blamed and before is not None and trials.lasted(now) <= settings.longest:
            if (seen.estimate or 0.0) >= settings.carried * self._options.need(before) and self.level is not None:
                trials.fail(now, self.level, seen.estimate)
                if self._loses and trials.lasted(now) <= settings.soon:
                    self._prober.mistrust()
            if level is None or before.bitrate > level.bitrate > 0.6 * before.bitrate:
                level = before
        trials.forget()
        trials.narrowed(now, seen.estimate)
        self._frames.postpone(now)
        self._prober.postpone(self._now + self._settings.cooldown)
        return self._move(rule, level, seen)

    # --- up -------------------------------------------------------------------------------------------------------

    def _climb(self, level: Level, seen: Sample, path: PathState, rested: float) -> Decision | None:
        settings, now = self._settings, self._now
        if not self._prober.active:
            self._bar = min(self._trials.bar(now, path), self._closed())
        above = self._above(level)
        if above is None:
            return None
        if not self._prober.active:
            if above.bitrate >= self._bar or rested < settings.rest:
                return None
            if self.share is not None and self.share.waits:
                return None
            carried = path.estimate or 0.0
            if (
                self._trials.believes(carried)
                and carried >= settings.probing.enough * self._options.need(above)
                and not self._prober.refused(now, self._options.need(above))
            ):
                return self._raise("headroom", carried, seen)
            if not self._probes:
                quiet = rested >= settings.quiet and policy.should_increase(seen, settings.thresholds)
                return (
                    self._raise("headroom", self._options.need(above) * settings.probing.enough, seen)
                    if quiet
                    else None
                )
            self._prober.careful = self.share is not None and self.share.failed
        self._aim = above
        return self._try(above, level, seen, path)

    def _try(self, above: Level, level: Level, seen: Sample, path: PathState) -> Decision | None:
        """Probe, or go on with it. What is doubted counts only as far as the probe went."""
        outcome = self._prober.update(self._now, path, self._options.need(above), self._options.need(level))
        if outcome == "failed":
            self._end_trial(path)
        if outcome != "passed" or path.estimate is None:
            return None
        probed = self._settings.probing.margin * self._options.need(above)
        self._trials.trust(probed)
        carried = path.estimate if self._trials.believes(path.estimate) else min(path.estimate, probed)
        return self._raise("headroom", carried, seen)

    def _closed(self) -> float:
        """The bitrate from which on the line was found too narrow for one viewer more."""
        closed = None if self.share is None else self.share.closed
        levels = self._options.levels
        return math.inf if closed is None or closed >= len(levels) else levels[closed].bitrate

    def _raise(self, rule: Rule, carried: float, seen: Sample) -> Decision | None:
        """To the best level that `carried` bit/s are enough for."""
        level = self._options.best(carried / self._settings.probing.enough, below=self._bar)
        if level is None or (self.level is not None and level.bitrate <= self.level.bitrate):
            return None
        if self.level is not None:
            self._trials.begin(self._now, self.level)
        return self._move(rule, level, seen)

    def _take_frames(self, level: Level, seen: Sample) -> Decision | None:
        smoother = self._smoother(level, seen)
        if smoother is None or self._trials.cooling(self._now):
            return None
        self._trials.begin(self._now, level)
        return self._move("loss-low", smoother, seen)

    # --- pause, overload ------------------------------------------------------------------------------------------

    def _resume(self, seen: Sample) -> Decision | None:
        """While nothing is sent nothing is known: try the lowest level, after a longer wait each time that fails."""
        if not self._pauses.over(self._since_change):
            return None
        return self._move("resume", self._options.allowed[0], seen)

    def _relieve_worker(self, seen: Sample) -> Decision | None:
        """Our own overload sheds frames of all viewers evenly, whatever their paths carry."""
        level = self.level
        if not self._frames.shed(self._now, self.overloaded) or level is None:
            return None
        if self.overloaded:
            lower = self._options.best(self._options.need(level)) or self._options.allowed[0]
            return None if lower == level else self._move("overload", lower, seen)
        smoother = self._smoother(level, seen)
        return None if smoother is None else self._move("relief", smoother, seen)

    # --- the levels -----------------------------------------------------------------------------------------------

    def _ease(self, level: Level, seen: Sample) -> float:
        """What is sent over what the level needs: an easy picture takes less than its encoder may use, and resends and
        keyframes for losses take more."""
        if seen.sent_bitrate is None:
            return 1.0
        return min(self._settings.most_burden, max(0.2, seen.sent_bitrate / self._options.need(level)))

    def _bound(self) -> None:
        """What the neighbours leave, at least what there is now."""
        self._options.reach = None if self.share is None else max(self.place, self.share.cap, 0)

    def _above(self, level: Level) -> Level | None:
        """Where to climb next: a larger picture is not to cost frames, unless the path is known not to carry both."""
        above = self._options.above(level)
        smooth = next((one for one in above if one.fps * SLACK >= level.fps), None)
        if (
            smooth is not None
            and smooth.bitrate < self._bar
            and not self._prober.refused(self._now, self._options.need(smooth))
        ):
            return smooth
        return above[0] if above else None

    def _end_trial(self, path: PathState) -> None:
        """A probe was too much. What it lost is not the level's fault, and what came through had a bucket's help."""
        if (path.excess_loss or 0.0) > self._settings.probing.loss:
            self._trials.doubt(path.estimate or 0.0)
            self._trials.excuse(self._now)
            self._loses = True
        self._aftermath.probed(self._now, self._queue, path.rtt or 0.0, loses=self._loses)

    def _smoother(self, level: Level, seen: Sample) -> Level | None:
        """The next level of the same rung with more frames, where it is allowed and nothing speaks against it."""
        more = self._options.smoother(level)
        if more is None or (seen.estimate is not None and seen.estimate < 0.9 * self._options.need(more)):
            return None
        return more

    def _move(self, rule: Rule, level: Level | None, seen: Sample) -> Decision:
        before, self.level = self.level, level
        self._aftermath.changed(self._now, self._queue, loses=self._loses)
        for hold in (self._calm, self._stuck, self._rtt_high):
            hold.reset()
        self._frames.changed()
        probe, self._prober.last = self._prober.last, None
        lines = self._lines(rule)
        return Decision(
            rule, State.of(before), State.of(level), seen.as_dict(), lines, estimate=seen.estimate, probe=probe
        )

    def _lines(self, rule: Rule) -> dict[str, float]:
        thresholds, settings = self._settings.thresholds, self._settings
        lines: dict[Rule, dict[str, float]] = {
            "loss-high": {"packet_loss": thresholds.loss_high},
            "loss-low": {"packet_loss": thresholds.loss_low},
            "rtt-high": {"rtt": thresholds.rtt_high, "rtt_bloat": thresholds.rtt_bloat},
            "headroom": {"packet_loss": thresholds.loss_high, "queue_delay": settings.calm},
            "silence": {"silent": settings.silence},
        }
        return lines.get(rule, {})
