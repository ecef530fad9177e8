"""One run: a source, a link, viewers, and somebody who decides for each. Deterministic: events in the order of time."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from operator import itemgetter
from typing import Any, NamedTuple

from benchmarks.adaptation.control import Control, MakeControl
from benchmarks.adaptation.link import Link
from benchmarks.adaptation.player import Frame, Player, Remb
from benchmarks.adaptation.source import FPS, LEVELS, START, Source
from benchmarks.adaptation.traces import Trace
from broadcaster.adaptation.controller import Controller
from broadcaster.adaptation.levels import Level
from broadcaster.adaptation.neighbours import Neighbours
from broadcaster.selection import FrameSelector
from workers.forward.history import HISTORY_LIMITS

CHUNK, OVERHEAD = 1132, 60
AT_ONCE, SLICE, SLICE_EVERY = 16, 8, 0.005
"""As workers.forward sends: bigger frames leave in slices."""

PADDING = 1200
BURST = 0.1
"""Seconds of a probe's rate that may be made up for at once."""

PLAIN, PLAIN_BURST = 0.25, 20_000
"""The share of the media that may be sent again, and octets at once, of others; of ours the history's
limits say it. Which packets go first, and what there is after a keyframe, is the same for all."""

LOOK = 0.02
FEEDBACK = 3
"""Looks of the player between two transport-wide feedbacks; Chromium sends one every 50 to 100 ms."""

SAMPLE = 0.1


class Report(NamedTuple):
    """Of a viewer: what it believes of the path in bit/s, and in a receiver report what it expected and got so far."""

    remb: float
    until: tuple[int, int] | None = None


@dataclass(slots=True)
class Sample:
    """Every 0.1 s: the time, the level that is sent, the queue, and what the controller aims at."""

    at: float
    level: Level | None
    waiting: float
    estimate: float | None
    probe: float


@dataclass(slots=True)
class Viewer:
    """One viewer's sender and player."""

    control: Control
    selector: FrameSelector
    player: Player
    remb: Remb = field(default_factory=Remb)
    sequence: int = 0
    media: int = 0
    kept: dict[int, tuple[int, bool]] = field(default_factory=dict)
    """Octets of each packet, and whether all that follows builds on its frame."""
    key_from: int = 0
    """The first packet of the last keyframe."""
    topped_from: int = -1
    """The same, when resends were counted last."""
    resent: dict[int, tuple[int, float]] = field(default_factory=dict)
    budget: float = PLAIN_BURST
    earned_to: int = 0
    unaffordable: bool = False
    flying: deque[tuple[int, float | None]] = field(default_factory=deque)
    arriving: list[tuple[float, int, int, float, int, bool]] = field(default_factory=list)
    owed: float = 0.0
    owed_at: float = 0.0
    left: int = 0
    counted: int = 0
    looks: int = 0
    lost_until: tuple[int, int] = (0, 0)
    got: int = 0
    reported_at: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    padding: int = 0
    paused: bool = False


class Session:
    """Runs a trace with a controller for each viewer."""

    def __init__(self, trace: Trace, make: MakeControl, seed: int = 1) -> None:
        self.trace = trace
        self.link = Link(trace.link, seed)
        self._source = Source(seed + 100)
        chance = random.Random(seed + 200)
        self._events: list[tuple[float, int, str, int, Any]] = []
        self._order = count()
        self._neighbours: Neighbours[int] = Neighbours()
        self.viewers = []
        for number in range(trace.viewers):
            self.viewers.append(Viewer(make(LEVELS, START), FrameSelector(LEVELS, START), Player()))
            self._at(0.3 + LOOK * chance.random(), "look", number)
            self._source.ask(START.rung)
        self._at(0.0, "picture", 0)
        self._at(0.0, "sample", 0)
        self._at(1.0, "tick", 0)

    def run(self) -> None:
        end = self.trace.seconds
        while self._events:
            now, _, kind, number, what = heapq.heappop(self._events)
            if now > end:
                break
            if kind == "look":
                self._look(now, number)
            elif kind == "picture":
                self._picture(now)
            elif kind == "slice":
                self._slice(now, self.viewers[number], *what)
            elif kind == "feedback":
                self._feedback(now, number, what)
            elif kind == "nack":
                self._resend(now, self.viewers[number], what)
            elif kind == "pli":
                selector = self.viewers[number].selector
                if selector.current is not None:
                    self._source.ask(selector.current.rung)
            elif kind == "tick":
                self._tick(now)
            elif kind == "sample":
                self._sample(now)
        for viewer in self.viewers:
            viewer.player.finish(end)

    def _at(self, time: float, kind: str, number: int, what: Any = None) -> None:
        heapq.heappush(self._events, (time, next(self._order), kind, number, what))

    # --- the sender ------------------------------------------------------------------------------------------------

    def _picture(self, now: float) -> None:
        frames = self._source.picture(now)
        turns = list(enumerate(self.viewers))
        for number, viewer in turns:
            for frame, size in frames:
                selector = viewer.selector
                if frame.rung not in (selector.waiting_for, selector.current.rung if selector.current else None):
                    continue
                if selector.accepts(frame):
                    level = selector.current
                    assert level is not None
                    self._begin(
                        now, number, viewer, Frame(frame.rung, frame.layer, frame.keyframe, level, now, set()), size
                    )
            self._pad(now, viewer)
        self._at(now + 1 / FPS, "picture", 0)

    def _begin(self, now: float, number: int, viewer: Viewer, frame: Frame, size: int) -> None:
        packets = -(-size // CHUNK)
        first = viewer.media
        viewer.media += packets
        if frame.keyframe:
            viewer.key_from = first
        frame.missing = set(range(first, viewer.media))
        viewer.player.expect(frame)
        sizes = [min(CHUNK, size - CHUNK * place) + OVERHEAD for place in range(packets)]
        viewer.kept.update({first + place: (octets, frame.layer == 0) for place, octets in enumerate(sizes)})
        if packets <= AT_ONCE:
            self._slice(now, viewer, first, sizes)
            return
        step = max(SLICE, -(-packets * 5 // 33))
        for turn, start in enumerate(range(0, packets, step)):
            self._at(now + turn * SLICE_EVERY, "slice", number, (first + start, sizes[start : start + step]))

    def _slice(self, now: float, viewer: Viewer, first: int, sizes: list[int]) -> None:
        for place, octets in enumerate(sizes):
            self._launch(now, viewer, first + place, octets, first=True)
        viewer.control.sent(now, viewer.sequence - len(sizes) & 0xFFFF, len(sizes), sum(sizes))

    def _launch(self, now: float, viewer: Viewer, media: int, octets: int, *, first: bool = False) -> None:
        """One packet; `media` is its number, -1 for padding; `first`: not a resend."""
        arrival = self.link.send(now, octets)
        viewer.flying.append((viewer.sequence, arrival))
        viewer.sequence += 1
        viewer.left += octets
        if arrival is not None:
            heapq.heappush(viewer.arriving, (arrival, viewer.sequence, media, now, octets, first))

    def _resend(self, now: float, viewer: Viewer, numbers: object) -> None:
        assert isinstance(numbers, list)
        copies = getattr(viewer.control, "copies", 1)
        tight = getattr(viewer.control, "tight", None)
        share, burst = {
            None: (PLAIN, PLAIN_BURST),
            False: (HISTORY_LIMITS.share, HISTORY_LIMITS.burst),
            True: (HISTORY_LIMITS.tight_share, HISTORY_LIMITS.tight_burst),
        }[tight]
        earned = sum(viewer.kept[number][0] for number in range(viewer.earned_to, viewer.media))
        viewer.earned_to = viewer.media
        viewer.budget = min(burst, viewer.budget + share * earned)
        if viewer.topped_from != viewer.key_from:
            viewer.topped_from = viewer.key_from
            viewer.budget = max(viewer.budget, min(burst, HISTORY_LIMITS.tight_burst))
        asked = []
        for number in numbers:
            times, last = viewer.resent.get(number, (0, -math.inf))
            if now - last >= 2 * self.trace.link.delay:
                octets, is_base = viewer.kept[number]
                asked.append((is_base and number >= viewer.key_from, number, octets, times))
        asked.sort(key=itemgetter(0), reverse=True)
        copies = copies if len(asked) <= HISTORY_LIMITS.few else 1
        for missed, number, octets, times in asked:
            if times >= HISTORY_LIMITS.resends or octets > viewer.budget or (tight and not missed):
                viewer.unaffordable |= missed
                continue
            count = copies if viewer.budget - copies * octets > HISTORY_LIMITS.burst / 2 else 1
            viewer.budget -= count * octets
            viewer.resent[number] = times + 1, now
            for _ in range(count):
                self._launch(now, viewer, number, octets)
                viewer.control.sent(now, viewer.sequence - 1 & 0xFFFF, 1, octets)

    def _pad(self, now: float, viewer: Viewer) -> None:
        rate = viewer.control.probe
        if not rate:
            viewer.owed, viewer.owed_at, viewer.counted = 0.0, now, viewer.left
            return
        longest = BURST * rate / 8
        owed = viewer.owed + (now - viewer.owed_at) * rate / 8 - (viewer.left - viewer.counted)
        viewer.owed, viewer.owed_at, viewer.counted = max(-longest, min(longest, owed)), now, viewer.left
        packets = min(20, int(viewer.owed // PADDING))
        if packets > 0:
            for _ in range(packets):
                self._launch(now, viewer, -1, PADDING)
            viewer.padding += packets * PADDING
            viewer.control.sent(now, viewer.sequence - packets & 0xFFFF, packets, packets * PADDING)

    def _aim(self, viewer: Viewer) -> None:
        level, selector = viewer.control.level, viewer.selector
        if level is None:
            selector.pause()
        elif selector.paused or level != selector.target:
            selector.aim(level)
        if selector.waiting_for is not None:
            self._source.ask(selector.waiting_for)

    # --- the viewer ------------------------------------------------------------------------------------------------

    def _look(self, now: float, number: int) -> None:
        viewer = self.viewers[number]
        player, arriving = viewer.player, viewer.arriving
        while arriving and arriving[0][0] <= now:
            arrival, _, media, sent, octets, first = heapq.heappop(arriving)
            viewer.remb.packet(sent, arrival, octets)
            if media >= 0:
                viewer.got += first
                player.packet(arrival, media)
        asked = player.nacks(now)
        back = self.link.back(now)
        if asked and back is not None:
            self._at(back, "nack", number, asked)
        if player.wants_keyframe(now) and back is not None:
            self._at(back, "pli", number)
        viewer.looks += 1
        if viewer.looks % FEEDBACK == 0:
            told = []
            newest = max((at for at in (one[1] for one in viewer.flying) if at is not None and at <= now), default=None)
            while newest is not None and viewer.flying:
                sequence, at = viewer.flying[0]
                if at is not None and at > newest:
                    break
                if at is None and all(other is None or other > now for _, other in viewer.flying):
                    break
                viewer.flying.popleft()
                told.append((sequence & 0xFFFF, None if at is None else int(at / 250e-6)))
            report: Report | None = None
            if viewer.looks % (5 * FEEDBACK) == 0:
                report = Report(viewer.remb.update(now))
            if now - viewer.reported_at >= 1.0:
                report = Report(viewer.remb.update(now), (player.highest + 1, viewer.got))
                viewer.reported_at = now
            if back is not None:
                self._at(back, "feedback", number, (told, report))
        self._at(now + LOOK, "look", number)

    def _feedback(self, now: float, number: int, what: tuple[list[tuple[int, int | None]], Report | None]) -> None:
        viewer = self.viewers[number]
        told, report = what
        control = viewer.control
        if told:
            control.arrived(now, told)
        if report is not None and report.until is not None:
            before, viewer.lost_until = viewer.lost_until, report.until
            due, came = (after - then for after, then in zip(report.until, before, strict=True))
            loss = min(1.0, max(0.0, 1.0 - came / due)) if due > 0 else 0.0
            rtt = 2 * self.trace.link.delay + self.link.waiting(now)
            control.reported(now, loss=loss, rtt=rtt, jitter=0.001, remb=report.remb)
        elif report is not None:
            control.reported(now, loss=None, rtt=None, jitter=None, remb=report.remb)
        self._decide(now, number)
        if viewer.unaffordable and getattr(control, "congested", None) is False and viewer.selector.current is not None:
            viewer.unaffordable = False  # ours asks for the keyframe itself (workers.forward.outlet)
            self._source.ask(viewer.selector.current.rung)

    def _tick(self, now: float) -> None:
        ours = {number: one.control for number, one in enumerate(self.viewers) if isinstance(one.control, Controller)}
        self._neighbours.compare(now, {number: (one.place, one.queue(now)) for number, one in ours.items()})
        for number in range(len(self.viewers)):
            self._decide(now, number)
        self._at(now + 1.0, "tick", 0)

    def _decide(self, now: float, number: int) -> None:
        viewer = self.viewers[number]
        control = viewer.control
        if isinstance(control, Controller):
            control.adapter.share = self._neighbours.share(now, number, control.place)
            control.tick(now)
            adapter, path = control.adapter, control.estimator.state(now)
            self._neighbours.see(
                now,
                number,
                place=adapter.place,
                aim=adapter.aim,
                queue=path.queue_delay or 0.0,
                congested=path.congested,
                capacity=path.capacity,
            )
        else:
            control.tick(now)
        self._aim(viewer)

    def _sample(self, now: float) -> None:
        waiting = self.link.waiting(now)
        for viewer in self.viewers:
            estimate = getattr(viewer.control, "estimate", None)
            viewer.samples.append(Sample(now, viewer.selector.current, waiting, estimate, viewer.control.probe))
        self._at(now + SAMPLE, "sample", 0)
