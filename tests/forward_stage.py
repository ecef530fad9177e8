"""A forwarder with everything around it at hand: selectors that note what they are asked, a fan-out that remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from broadcaster.adaptation.levels import Level
from broadcaster.opening import OpeningSettings
from broadcaster.stream import EncodedFrame, EncodedSound, Rung, StreamDescription
from workers.forward.fanout import Audience
from workers.forward.forwarder import Forwarder, ForwarderSettings
from workers.forward.history import LostPacket
from workers.forward.outlet import Outlet

LADDER = StreamDescription("main", 1, tuple(Rung(f"r{rung}", 64, 36, 30.0, 100_000 - rung, 3) for rung in (0, 1)))

LEVELS = LADDER.levels()

SLOTS = ((0, False), (2, True), (1, True), (2, False))

YOUNG = OpeningSettings(age=0.6, octets=50_000, late_age=0.0, late_octets=0)


def level(rung: int) -> Level:
    return Level(rung=rung, layer=2, name=f"r{rung}", width=64, height=36, fps=30.0, bitrate=1000)


@dataclass
class Selector:
    """Takes every frame of its rung, and a keyframe of the rung that it waits for."""

    waiting_for: int | None
    current: Level | None = None
    asked: list[EncodedFrame] = field(default_factory=list)
    timestamp: int = 0
    steady: int | None = None
    entry: int | None = None

    def accepts(self, frame: EncodedFrame) -> bool:
        self.asked.append(frame)
        if frame.keyframe and frame.rung == self.waiting_for:
            self.current, self.waiting_for = level(frame.rung), None
        return self.current is not None and frame.rung == self.current.rung


class Recorder:
    """A fan-out that remembers instead of sending."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, tuple[Outlet, ...]]] = []
        self.frames: list[EncodedFrame] = []
        self.resent: list[LostPacket] = []

    def send(self, frame: EncodedFrame, outlets: Audience) -> int:
        self.sent.append((frame.index, tuple(outlets)))
        self.frames.append(frame)
        for outlet in outlets:
            outlet.state.packets += 1
        return len(outlets)

    def shelve(self, frame: EncodedFrame) -> int:
        raise AssertionError("no frame is that big")

    def send_part(self, frame: EncodedFrame, serial: int, outlets: Audience, first: int, end: int) -> int:
        raise AssertionError("no frame is that big")

    def send_sound(self, sound: EncodedSound, outlets: Audience) -> int:
        raise AssertionError("there is no sound")

    def resend(self, outlet: Outlet, lost: Sequence[LostPacket]) -> int:
        self.resent += lost
        return len(lost)

    def probe(self, outlet: Outlet, octets: int) -> int:
        raise AssertionError("nobody asked for it")


class Stage:
    """A forwarder with everything around it at hand."""

    def __init__(self, opening: OpeningSettings | None = None) -> None:
        self.now = 100.0
        self.requests: list[int] = []
        self.patient: list[int] = []
        self.demands: list[dict[int, int]] = []
        self.fanout = Recorder()
        self.forwarder = Forwarder(
            self.fanout,
            lambda rung, patient: (self.patient if patient else self.requests).append(rung),
            self._demanded,
            settings=ForwarderSettings(
                report_interval=1.0, keyframe_timeout=1.0, patience=5.0, opening=opening or YOUNG
            ),
            monotonic=lambda: self.now,
        )

    def _demanded(self, demand: Mapping[int, int]) -> None:
        self.demands.append(dict(demand))
