"""Pacing: a big frame leaves in slices, so that it neither bursts a viewer's route nor holds up the event loop."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from broadcaster.stream import EncodedFrame
from workers.forward.fanout import Audience, Fanout
from workers.forward.outlet import Outlet
from workers.forward.packets import CHUNK_SIZE, packets_of


@dataclass(frozen=True, slots=True)
class PacingSettings:
    """How frames are spread.

    A frame of up to `at_once` packets leaves whole: what lies between the keyframes of a 720p stream rarely has more,
    and is not to be delayed. A bigger one leaves in slices, one every `interval` seconds (libwebrtc's pacer wakes as
    often). A slice is at least `least` packets to each viewer, and more where that takes `rate` times the rung's
    bitrate (libwebrtc's pacing factor is 2.5) or the frame would not leave within `spread` seconds: one picture at 30
    fps, so that the next frame finds the way free.

    Slices send `turn` packets in one turn of the event loop at most, about 4 ms; what more they have follows in the
    next turns. A rung of which more than `backlog` frames wait, because the machine cannot keep up, sends them all at
    once: then the frame link waits, and the broadcaster leaves out frames from a keyframe on.
    """

    at_once: int = 16
    interval: float = 0.005
    least: int = 8
    rate: float = 2.5
    spread: float = 1 / 30
    turn: int = 2000
    backlog: int = 8


class Timer(Protocol):
    def cancel(self) -> None: ...


CallAt = Callable[[float, Callable[[], None]], Timer]
"""Calls back at a monotonic time: an event loop's `call_at`."""


def call_at(when: float, callback: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_at(when, callback)


class _Sending:
    """A frame on its way. All viewers in `parts` have been sent the packets before `sent`, and those of the first
    `turn` parts the packets before `end` too.
    """

    __slots__ = ("end", "frame", "parts", "sent", "serial", "step", "total", "turn")

    def __init__(self, frame: EncodedFrame, serial: int, step: int, parts: list[Audience]) -> None:
        self.frame = frame
        self.serial = serial
        self.step = step
        self.parts = parts
        self.total = packets_of(frame)
        self.sent = 0
        self.end = min(step, self.total)
        self.turn = 0

    def start_of(self, part: int) -> int:
        """The first packet that this part has not been sent."""
        return self.end if part < self.turn else self.sent


class _Lane:
    """What waits of one rung, in order, and how many more packets to each viewer this interval allows."""

    __slots__ = ("allowance", "sendings")

    def __init__(self) -> None:
        self.sendings: deque[_Sending] = deque()
        self.allowance = 0


class Pacer:
    """Between who decides what a viewer gets and the fan-out: sends small frames at once and big ones in slices.

    The frames of a rung leave in order. A viewer gets one frame whole before the next, also across rungs: who is given
    a frame of another rung gets at once what is left of the one before. `call_at` and `monotonic` are of one clock.
    """

    def __init__(
        self,
        fanout: Fanout,
        *,
        settings: PacingSettings,
        call_at: CallAt,
        monotonic: Callable[[], float],
    ) -> None:
        self.bitrates: Mapping[int, int] = {}
        """Bits per second by rung, as far as they are known."""
        self._fanout = fanout
        self._settings = settings
        self._call_at = call_at
        self._monotonic = monotonic
        self._lanes: dict[int, _Lane] = {}
        """Of rungs of which something waits; who is served next comes first."""
        self._timer: Timer | None = None
        self._wake_at = 0.0
        self._next_interval = 0.0

    def send(self, frame: EncodedFrame, audience: Audience, asked: Sequence[Outlet]) -> None:
        """Send a frame to an audience, and to viewers that may have been on another rung until now."""
        others = [lane for rung, lane in self._lanes.items() if rung != frame.rung]
        if others and asked:
            self._finish(others, set(asked))
        groups = [group for group in (audience, Audience.of(asked)) if group]
        if not groups:
            return
        lane = self._lanes.get(frame.rung)
        total = packets_of(frame)
        if lane is None and total <= self._settings.at_once and total * sum(map(len, groups)) <= self._settings.turn:
            for group in groups:
                self._fanout.send(frame, group)
            return
        if lane is not None and len(lane.sendings) >= self._settings.backlog:
            self._drain(lane)
        step = self._step(frame.rung, total)
        parts = [part for group in groups for part in group.parts(max(1, self._settings.turn // step))]
        sending = _Sending(frame, self._fanout.shelve(frame), step, parts)
        if lane is not None:
            lane.sendings.append(sending)
            return
        if not self._lanes:
            self._next_interval = self._monotonic() + self._settings.interval
        lane = self._lanes[frame.rung] = _Lane()
        lane.sendings.append(sending)
        lane.allowance = step
        self._run(frame.rung, lane, self._settings.turn)
        self._schedule()

    def forget(self, outlet: Outlet) -> None:
        """Send no more to a viewer that has left."""
        for lane in self._lanes.values():
            _take(lane, {outlet})

    def _step(self, rung: int, total: int) -> int:
        """Packets to a viewer in each interval."""
        settings = self._settings
        if total <= settings.at_once:
            return total
        by_rate = settings.rate * self.bitrates.get(rung, 0) * settings.interval / (8 * CHUNK_SIZE)
        by_spread = total * settings.interval / settings.spread
        return min(total, math.ceil(max(settings.least, by_rate, by_spread)))

    def _run(self, rung: int, lane: _Lane, budget: int) -> int:
        """Send what this interval allows to `lane`, and `budget` packets at most; return what is left of them."""
        sendings = lane.sendings
        while sendings and lane.allowance > 0:
            sending = sendings[0]
            part = sending.parts[sending.turn]
            count = sending.end - sending.sent
            cost = count * len(part)
            if cost > budget < self._settings.turn:
                return 0
            budget -= cost
            if part:
                self._fanout.send_part(sending.frame, sending.serial, part, sending.sent, sending.end)
            sending.turn += 1
            if sending.turn == len(sending.parts):
                lane.allowance -= count
                sending.turn, sending.sent = 0, sending.end
                sending.end = min(sending.sent + sending.step, sending.total)
                if sending.sent == sending.total:
                    sendings.popleft()
        if not sendings:
            del self._lanes[rung]
        return budget

    def _wake(self) -> None:
        self._timer = None
        settings = self._settings
        if not self._is_behind:
            self._next_interval = self._monotonic() + settings.interval
            for lane in self._lanes.values():
                lane.allowance = lane.sendings[0].step
        budget = settings.turn
        for rung, lane in list(self._lanes.items()):
            budget = self._run(rung, lane, budget)
            if rung in self._lanes:
                self._lanes[rung] = self._lanes.pop(rung)
            if budget <= 0:
                break
        self._schedule()

    @property
    def _is_behind(self) -> bool:
        """Whether something of this interval is still to be sent."""
        return any(lane.allowance > 0 for lane in self._lanes.values())

    def _schedule(self) -> None:
        if not self._lanes:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        now = self._monotonic()
        at = now if self._is_behind else max(now, self._next_interval)
        if self._timer is not None:
            if self._wake_at <= at:
                return
            self._timer.cancel()
        self._wake_at = at
        self._timer = self._call_at(at, self._wake)

    def _finish(self, lanes: Iterable[_Lane], outlets: Collection[Outlet]) -> None:
        """Send at once what waits for these viewers in these lanes."""
        for lane in lanes:
            for sending, start, part in _take(lane, outlets):
                self._fanout.send_part(sending.frame, sending.serial, part, start, sending.total)

    def _drain(self, lane: _Lane) -> None:
        """Send at once all that waits in `lane`."""
        for sending in lane.sendings:
            for number, part in enumerate(sending.parts):
                start = sending.start_of(number)
                if part and start < sending.total:
                    self._fanout.send_part(sending.frame, sending.serial, part, start, sending.total)
        lane.sendings.clear()


def _take(lane: _Lane, outlets: Collection[Outlet]) -> list[tuple[_Sending, int, Audience]]:
    """Take viewers out of a lane: what they were still to get, each with the number of its first packet, in order."""
    taken = []
    for sending in lane.sendings:
        for number, part in enumerate(sending.parts):
            leaving = Audience(outlet for outlet in part if outlet in outlets)
            if not leaving:
                continue
            sending.parts[number] = Audience(outlet for outlet in part if outlet not in outlets)
            start = sending.start_of(number)
            if start < sending.total:
                taken.append((sending, start, leaving))
    return taken
