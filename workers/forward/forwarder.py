"""Forwarder: the frames of one stream to the viewers that want them, and their wishes back to the broadcaster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from broadcaster.adaptation.levels import Level
from broadcaster.opening import Opening, OpeningSettings
from broadcaster.stream import EncodedFrame, EncodedSound, StreamDescription
from workers.forward.fanout import Audience, Fanout
from workers.forward.history import LostPacket
from workers.forward.outlet import Outlet
from workers.forward.pacing import CallAt, Pacer, PacingSettings, call_at


class FrameSelector(Protocol):
    """What decides which frames a viewer gets.

    `accepts` is asked once for every frame of the rung of `current`, of the rung `waiting_for` and of `entry`, another
    rung that will do for a start, in order, and takes each frame that it accepts as sent. It need not be asked while
    there is a `steady` layer: then every frame of the rung of `current` up to this layer is sent, and `timestamp` is
    set to the last one's before `accepts` is called again.
    """

    timestamp: int

    @property
    def current(self) -> Level | None: ...

    @property
    def waiting_for(self) -> int | None: ...

    @property
    def entry(self) -> int | None: ...

    @property
    def steady(self) -> int | None: ...

    def accepts(self, frame: EncodedFrame) -> bool: ...


@dataclass(frozen=True, slots=True)
class ForwarderSettings:
    """`report_interval`: seconds between the sender reports of a viewer (RFC 3550 section 6.2 recommends 5). The first
    leaves at once, the second after `report_soon` and each other one after twice as long, until that is the interval,
    because one may be lost. The round-trip time is told by the viewer's own reports, which come each second.
    `keyframe_timeout`: seconds after which a keyframe
    that was asked for and did not come is asked for again. `patience`: seconds that a newcomer which has a picture of
    another rung waits for a keyframe that costs those who watch little (KeyframeConfig.patient_interval), before it
    asks as everybody does. `opening`: what a newcomer is sent of the frames that came before it.

    A probe makes up for at most `probe_burst` seconds in which too little was sent, at a time by `probe_least` octets
    at least and `probe_most` octets at most.
    """

    report_interval: float = 5.0
    report_soon: float = 1.0
    keyframe_timeout: float = 1.0
    probe_burst: float = 0.1
    probe_least: int = 600
    probe_most: int = 24_000
    patience: float = 5.0
    opening: OpeningSettings = field(default_factory=OpeningSettings)
    pacing: PacingSettings = field(default_factory=PacingSettings)


@dataclass(slots=True, eq=False)
class _Place:
    """A viewer of the stream: `rungs` are those whose frames concern it. While it is on a steady layer `shown` is the
    RTP timestamp that was the layer's last when it came there. `patient_until` is the time until which it is content
    with another rung than the one it waits for.
    """

    outlet: Outlet
    selector: FrameSelector
    report_at: float
    report_after: float
    patient_until: float = 0.0
    waiting_for: int | None = None
    rungs: frozenset[int] = frozenset()
    steady: int | None = None
    shown: int = 0


class _Probe:
    """What a viewer is sent beyond its media: up to `bitrate` bit/s in all, `left` octets at most (None: no end)."""

    __slots__ = ("at", "bitrate", "counted", "credit", "left")

    def __init__(self, now: float, counted: int) -> None:
        self.at = now
        self.counted = counted
        self.credit = 0.0
        self.bitrate = 0.0
        self.left: int | None = None

    def due(self, now: float, counted: int, settings: ForwarderSettings) -> int:
        """Octets of padding that are due now, where `counted` octets have left since the start."""
        elapsed, sent = now - self.at, counted - self.counted
        self.at, self.counted = now, counted
        longest = settings.probe_burst * self.bitrate / 8
        self.credit = max(-longest, min(longest, self.credit + elapsed * self.bitrate / 8 - sent))
        due = self.credit if self.left is None else min(self.credit, self.left)
        return int(due) if due >= settings.probe_least else 0


class _Rung:
    """The viewers of one rung: those whose layer stands, and those that are asked about every frame."""

    __slots__ = ("asked", "audiences", "shown", "steady")

    def __init__(self) -> None:
        self.asked: dict[_Place, None] = {}
        self.steady: dict[int, dict[_Place, None]] = {}
        self.shown: dict[int, int] = {}
        """RTP timestamp of the last frame that was sent to those on a steady layer."""
        self.audiences: dict[int, Audience] = {}
        """Who gets a frame of a layer unasked, made when it is needed."""

    def __len__(self) -> int:
        return len(self.asked) + sum(map(len, self.steady.values()))

    def audience(self, frame: EncodedFrame) -> Audience:
        """Those who get `frame` unasked."""
        layer = frame.layer
        for steady in self.steady:
            if steady >= layer:
                self.shown[steady] = frame.timestamp
        audience = self.audiences.get(layer)
        if audience is None:
            members = [place for steady, places in self.steady.items() if steady >= layer for place in places]
            audience = self.audiences[layer] = Audience.of(place.outlet for place in members)
        return audience

    def add(self, place: _Place) -> None:
        if place.steady is None:
            self.asked[place] = None
            return
        self.steady.setdefault(place.steady, {})[place] = None
        place.shown = self.shown.setdefault(place.steady, place.selector.timestamp)
        self.audiences.clear()

    def remove(self, place: _Place) -> None:
        if place.steady is None:
            del self.asked[place]
            return
        places, shown = self.steady[place.steady], self.shown[place.steady]
        del places[place]
        if shown != place.shown:
            place.selector.timestamp = shown
        if not places:
            del self.steady[place.steady], self.shown[place.steady]
        self.audiences.clear()


class Forwarder:
    """The viewers of one stream in one worker, ordered by rung, so that a frame costs nothing to the others.

    `request_keyframe(rung, patient)` is called when somebody needs one and none is on its way. `on_demand` gets the
    number of viewers by rung, those that wait for a rung included, whenever it or `listeners` changes. `now` is
    monotonic seconds throughout; `call_at` is the event loop's, where big frames are spread over time.
    """

    def __init__(
        self,
        fanout: Fanout,
        request_keyframe: Callable[[int, bool], None],
        on_demand: Callable[[Mapping[int, int]], None],
        *,
        settings: ForwarderSettings = ForwarderSettings(),
        monotonic: Callable[[], float] = time.monotonic,
        call_at: CallAt = call_at,
    ) -> None:
        self._fanout = fanout
        self._request_keyframe = request_keyframe
        self._on_demand = on_demand
        self._settings = settings
        self._monotonic = monotonic
        self._pacer = Pacer(fanout, settings=settings.pacing, monotonic=monotonic, call_at=call_at)
        self._places: dict[Outlet, _Place] = {}
        self._by_rung: dict[int, _Rung] = {}
        self._openings: dict[int, Opening] = {}
        """Of rungs with viewers only: the frames of others do not come, or have gaps."""
        self._description: StreamDescription | None = None
        self._requested: dict[int, tuple[float, bool]] = {}
        """When a keyframe of a rung was asked for, and whether patiently."""
        self._probes: dict[Outlet, _Probe] = {}
        self._demand: dict[int, int] = {}
        self._listeners: dict[Outlet, None] = {}
        self._hearing: Audience | None = None
        """The listeners, made when it is needed."""
        self._told_listeners = 0

    def __len__(self) -> int:
        return len(self._places)

    @property
    def demand(self) -> Mapping[int, int]:
        """Viewers by rung; a viewer that changes rungs counts on both."""
        return self._demand

    @property
    def listeners(self) -> int:
        """Viewers that get the sound, whatever pictures they get, if any."""
        return len(self._listeners)

    def describe(self, description: StreamDescription) -> None:
        """Take the stream's description, before the frames that it is about."""
        if self._description is None or not description.continues(self._description):
            self._openings.clear()
        self._description = description
        self._pacer.bitrates = {number: rung.bitrate for number, rung in enumerate(description.rungs)}

    def attach(self, outlet: Outlet, selector: FrameSelector) -> None:
        """Begin to forward to `outlet`. It starts with the frames since a recent keyframe of the rung that it waits
        for, else of its entry; where there was none, one is asked for at once.
        """
        now = self._monotonic()
        place = _Place(outlet, selector, now, min(self._settings.report_soon, self._settings.report_interval))
        if selector.entry is not None:
            place.patient_until = now + self._settings.patience
        outlet.listener = self
        self._places[outlet] = place
        if outlet.sound is not None:
            self._listeners[outlet] = None
            self._hearing = None
        self._open(place)
        self._move(place)
        self._tell_demand()

    def detach(self, outlet: Outlet) -> None:
        """Forward no more to `outlet`; one that is not attached is fine."""
        place = self._places.pop(outlet, None)
        if place is None:
            return
        outlet.listener = None
        self._probes.pop(outlet, None)
        self._listeners.pop(outlet, None)
        self._hearing = None
        self._pacer.forget(outlet)
        self._leave(place)
        self._tell_demand()

    def reselect(self, outlet: Outlet) -> None:
        """Notice that the selector of `outlet` was told another level. To be called after each such change."""
        place = self._places[outlet]
        if place.selector.waiting_for != place.waiting_for:
            place.patient_until = 0.0
        self._move(place)
        self._tell_demand()

    def probe(self, outlet: Outlet, bitrate: float, octets: int | None = None) -> None:
        """From now on send so much more to `outlet` that `bitrate` bit/s leave in all, headers and tags included, and
        `octets` of it at most; 0 ends it. It is paced by the pictures of the viewer's rung.
        """
        if not bitrate:
            self._probes.pop(outlet, None)
            return
        if outlet not in self._places:
            return
        probe = self._probes.get(outlet)
        if probe is None:
            probe = self._probes[outlet] = _Probe(self._monotonic(), outlet.wire_octets)
        if (probe.bitrate, octets is None) != (bitrate, probe.left is None):
            probe.bitrate, probe.left = bitrate, octets

    def frame(self, frame: EncodedFrame) -> None:
        """Forward one encoded frame to those whose selectors accept it."""
        if frame.keyframe:
            self._requested.pop(frame.rung, None)
        rung = self._by_rung.get(frame.rung)
        if rung is None or not frame.payload:
            return
        opening = self._openings.get(frame.rung)
        if opening is None:
            opening = self._openings[frame.rung] = Opening(self._settings.opening)
        opening.add(frame, self._monotonic())
        audience = rung.audience(frame)
        accepted = []
        moved = []
        for place in rung.asked:
            selector = place.selector
            if selector.accepts(frame):
                accepted.append(place.outlet)
            if selector.waiting_for != place.waiting_for or selector.steady is not None:
                moved.append(place)
        self._pacer.send(frame, audience, accepted)
        if self._probes:
            self._pad(frame.rung)
        if moved:
            for place in moved:
                self._move(place)
            self._tell_demand()

    def sound(self, sound: EncodedSound) -> None:
        """Forward a packet of sound, at once: it waits neither for paced frames nor for anybody's level."""
        if self._listeners:
            self._hearing = self._hearing or Audience.of(self._listeners)
            self._fanout.send_sound(sound, self._hearing)

    def tick(self, now: float) -> None:
        """Send the sender reports that are due and repeat requests that went unheard; a few times a second."""
        settings, requested = self._settings, self._requested
        for rung in [rung for rung, (at, _) in requested.items() if now - at >= settings.keyframe_timeout]:
            del requested[rung]
        for place in self._places.values():
            if now >= place.report_at and (place.outlet.packets or place.outlet.sound_packets):
                place.report_at = max(place.report_at + place.report_after, now)
                place.report_after = min(2 * place.report_after, settings.report_interval)
                place.outlet.report(now)
            self._ask(place)

    def keyframe_needed(self, outlet: Outlet, patient: bool) -> None:
        """A viewer lost its picture: ask for a keyframe of the rung that it is on."""
        place = self._places.get(outlet)
        if place is not None and place.selector.current is not None:
            self._request(place.selector.current.rung, patient=patient)

    def resend(self, outlet: Outlet, lost: list[LostPacket]) -> None:
        """A viewer lost packets that may be sent again."""
        self._fanout.resend(outlet, lost)

    def _pad(self, rung: int) -> None:
        """A picture of this rung is the time to send what probes want."""
        now, settings = self._monotonic(), self._settings
        for outlet, probe in self._probes.items():
            if rung not in self._places[outlet].rungs:
                continue
            due = min(settings.probe_most, probe.due(now, outlet.wire_octets, settings))
            if due <= 0:
                continue
            before = outlet.probe_octets
            self._fanout.probe(outlet, due)
            if probe.left is not None:
                probe.left = max(0, probe.left - (outlet.probe_octets - before))

    def _open(self, place: _Place) -> None:
        selector = place.selector
        audience = Audience.of([place.outlet])
        for rung in (selector.waiting_for, selector.entry):
            if selector.current is None and rung in self._openings:
                for frame in self._openings[rung].frames(self._monotonic()):
                    if selector.accepts(frame):
                        self._fanout.send(frame, audience)

    def _ask(self, place: _Place) -> None:
        """Ask for what the viewer waits for."""
        selector = place.selector
        if selector.entry is not None:
            self._request(selector.entry)
        if selector.waiting_for is not None:
            self._request(selector.waiting_for, patient=self._monotonic() < place.patient_until)

    def _request(self, rung: int, *, patient: bool = False) -> None:
        asked = self._requested.get(rung)
        if asked is None or (asked[1] and not patient):
            self._requested[rung] = self._monotonic(), patient
            self._request_keyframe(rung, patient)

    def _move(self, place: _Place) -> None:
        selector = place.selector
        current, waiting_for = selector.current, selector.waiting_for
        rungs = {current.rung} if current is not None else set()
        if waiting_for is not None:
            rungs.add(waiting_for)
        if selector.entry is not None:
            rungs.add(selector.entry)
        self._leave(place)
        place.rungs = frozenset(rungs)
        place.waiting_for = waiting_for
        place.steady = selector.steady
        for rung in rungs:
            self._by_rung.setdefault(rung, _Rung()).add(place)
        self._ask(place)

    def _leave(self, place: _Place) -> None:
        for number in place.rungs:
            rung = self._by_rung[number]
            rung.remove(place)
            if not rung:
                del self._by_rung[number]

    def _tell_demand(self) -> None:
        demand = {number: len(rung) for number, rung in sorted(self._by_rung.items())}
        if demand != self._demand or len(self._listeners) != self._told_listeners:
            self._demand, self._told_listeners = demand, len(self._listeners)
            for number in self._openings.keys() - demand.keys():
                del self._openings[number]
            for number in self._requested.keys() - demand.keys():
                del self._requested[number]
            self._on_demand(demand)
