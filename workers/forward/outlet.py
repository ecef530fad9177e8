"""Outlet: one viewer's end of the fan-out, with its sending state, its feedback and its counters."""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from broadcaster.clock import WallClock
from broadcaster.errors import RtcpError
from workers.forward import rtcp
from workers.forward.agreement import OutletParameters
from workers.forward.allowance import Allowance
from workers.forward.estimate import NativeEstimator, path_estimator
from workers.forward.feedback import Feedback
from workers.forward.history import History, HistoryLimits, LostPacket
from workers.forward.inbox import Inbox
from workers.forward.packets import HEADER_SIZE
from workers.forward.pictures import PictureOutlet
from workers.forward.sound import SoundOutlet
from workers.forward.srtp import DIRECT, SrtpKeys, SrtpSession
from workers.forward.state import NOBODYS, address_of, ffi, new_state, socket_address


class Path(Protocol):
    """Where a viewer is reached. `send` never raises and says whether the datagram left."""

    @property
    def socket(self) -> socket.socket: ...

    @property
    def address(self) -> Any: ...

    @property
    def is_tcp(self) -> bool: ...

    def send(self, data: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class OutletSettings:
    """`playout_delay` is (minimum, maximum) in units of 10 ms. Of a viewer's keyframe requests one per
    `keyframe_pause` seconds is passed on (LiveKit: 0.5 to 1 s). Its share of urgent ones is `keyframe_burst` at once
    and one each `keyframe_every` seconds; what it asks for beyond that is patient, so that a viewer which asks without
    end costs the others of its rung no more than newcomers do (KeyframeConfig.patient_interval), and makes nobody else
    wait. More than `rtcp_rate` RTCP datagrams a second are dropped unread; an honest browser sends under 30, and while
    it loses packets a NACK every 20 ms.
    """

    playout_delay: tuple[int, int] = (0, 0)
    keyframe_pause: float = 0.5
    keyframe_burst: int = 4
    keyframe_every: float = 10.0
    rtcp_rate: float = 100.0
    history: HistoryLimits = field(default_factory=HistoryLimits)


class OutletListener(Protocol):
    """Who acts on what a viewer asks for."""

    def keyframe_needed(self, outlet: Outlet, patient: bool) -> None:
        """`patient`: the viewer has had its share; the next keyframe that costs the others little will do."""

    def resend(self, outlet: Outlet, lost: list[LostPacket]) -> None: ...


class Outlet:
    """One viewer's end of the fan-out.

    `copies` is how often a lost packet is sent again at once, and `tight` says that the path has no room for resends,
    `congested` that its queue grows.

    What a fan-out advances stands in `state`, a bc_outlet (kernel.h), and only there. What is of the pictures alone
    stands in `pictures`, and likewise `sound`, which is None where the viewer gets none.

    Counters, of pictures but for `drops`: `packets` and `octets` (RTP payload) of media, `retransmissions` (packets),
    `rtx_octets`, `probe_packets`, `probe_octets`, `nacks` (packets asked for), `plis` (PLI and FIR), `drops` (packets
    that did not leave), `rtcp_failures` (unreadable or forged), `rtcp_dropped` (over the rate).
    """

    __slots__ = (
        "_clock",
        "_inbox",
        "_keyframe_asked_at",
        "_keyframes",
        "_path",
        "_records",
        "_settings",
        "_speech",
        "congested",
        "copies",
        "estimator",
        "feedback",
        "history",
        "listener",
        "nacks",
        "parameters",
        "pictures",
        "plis",
        "probe_octets",
        "probe_packets",
        "retransmissions",
        "rtcp_dropped",
        "rtcp_failures",
        "rtx_octets",
        "sound",
        "srtp",
        "state",
        "tight",
    )

    def __init__(
        self,
        parameters: OutletParameters,
        keys: SrtpKeys,
        path: Path,
        clock: WallClock,
        *,
        settings: OutletSettings = OutletSettings(),
        randbelow: Callable[[int], int] = secrets.randbelow,
    ) -> None:
        self.parameters = parameters
        self.listener: OutletListener | None = None
        self.copies, self.tight, self.congested = 1, False, False
        self.srtp = SrtpSession(keys)
        self.state, self._records = new_state(settings.history.frames)
        self.history = History(self.state, settings.history)
        self._clock = clock
        self._settings = settings

        state = self.state
        if DIRECT:
            state.srtp = address_of(self.srtp.context)
        state.cipher = self.srtp.cipher or ffi.NULL
        state.tag_size = self.srtp.tag_size
        state.segmentation = True
        self.pictures = PictureOutlet(
            parameters, state, self._records, playout_delay=settings.playout_delay, randbelow=randbelow
        )
        self.sound: SoundOutlet | None = None
        if parameters.sound is not None:
            self.sound = SoundOutlet(parameters.sound, parameters.cname, self.srtp.tag_size, randbelow)
            state.sound = self.sound.state
        self.estimator = path_estimator() if self.pictures.extensions.transport_at else None
        """Of the viewer's path; None where transport-wide feedback was not negotiated."""
        if isinstance(self.estimator, NativeEstimator):
            state.path = self.estimator.pointer
        self._path = path
        self._aim()

        self.feedback = Feedback(highest=self.sequence - 1)
        self.retransmissions = self.rtx_octets = self.probe_octets = self.probe_packets = 0
        self.nacks = self.plis = self.rtcp_failures = self.rtcp_dropped = 0
        self._keyframes = Allowance(1 / settings.keyframe_every, settings.keyframe_burst)
        self._keyframe_asked_at: float | None = None
        self._speech = Allowance(settings.rtcp_rate, settings.rtcp_rate)
        self._inbox: Inbox | None = None

    @property
    def path(self) -> Path:
        """Where the viewer is now."""
        return self._path

    @path.setter
    def path(self, path: Path) -> None:
        if path is not self._path:
            self._path = path
            self._aim()

    @property
    def sequence(self) -> int:
        """Extended number of the next media packet."""
        return int(self.state.sequence)

    @property
    def packets(self) -> int:
        return int(self.state.packets)

    @property
    def octets(self) -> int:
        return int(self.state.octets)

    @property
    def wire_octets(self) -> int:
        """Octets of RTP on the wire: media, resends, probes and sound, with headers and tags."""
        packets = self.packets + self.retransmissions + self.probe_packets
        pictures = self.octets + self.rtx_octets + self.probe_octets + packets * self.pictures.overhead
        return pictures + self.sound_octets

    @property
    def sound_octets(self) -> int:
        """Octets of sound on the wire, with headers and tags."""
        return 0 if self.sound is None else self.sound.wire_octets

    @property
    def sound_is_estimated(self) -> bool:
        """Whether what is believed of the path speaks of the sound too: a player's estimate always does, our own where
        the sound has transport-wide numbers."""
        return self.sound is not None and (self.estimator is None or self.sound.extensions.transport_at > 0)

    @property
    def sound_packets(self) -> int:
        return 0 if self.sound is None else self.sound.packets

    @property
    def drops(self) -> int:
        return int(self.state.drops)

    def number_transport(self, buffer: memoryview, start: int, transport_at: int | None = None) -> None:
        """Write the next transport-wide sequence number into the packet that begins at `start`: at `transport_at` of
        its extensions where these are not the pictures'."""
        state = self.state
        place = start + HEADER_SIZE + (state.transport_at if transport_at is None else transport_at)
        struct.pack_into("!H", buffer, place, state.transport_sequence)
        state.transport_sequence = (state.transport_sequence + 1) & 0xFFFF

    def left(self, now: float, sequence: int, packets: int, octets: int) -> None:
        """Packets with consecutive transport-wide numbers left, of so many octets on the wire."""
        if self.estimator is not None:
            self.estimator.sent(now, sequence, packets, octets)

    def _aim(self) -> None:
        """Tell the kernel where the viewer is; over TCP and other ways that it does not know, Python sends."""
        state, path = self.state, self._path
        state.socket = NOBODYS
        if path.is_tcp:
            return
        try:
            address = socket_address(path.address)
        except (OSError, ValueError):
            return
        state.address_size = len(address)
        state.address[0 : len(address)] = address
        state.socket = path.socket.fileno()

    def receive_rtcp(self, datagram: bytes, now: float) -> None:
        """Take a protected RTCP datagram of the viewer, at the monotonic time `now`. Never raises."""
        if not self._speech.take(now):
            self.rtcp_dropped += 1
            return
        packet = self.srtp.unprotect_rtcp(datagram)
        if packet is None:
            self.rtcp_failures += 1
            return
        try:
            compound = rtcp.parse(packet)
        except RtcpError:
            self.rtcp_failures += 1
            return
        self._apply(compound, now)

    def open_inbox(self) -> Inbox:
        """Where a native receiver may put what it would else give to `receive_rtcp`; `hear` acts on it."""
        pointer = self.estimator.pointer if isinstance(self.estimator, NativeEstimator) else None
        self._inbox = Inbox(self.srtp, self.parameters.ssrc, rate=self._settings.rtcp_rate, path=pointer)
        return self._inbox

    def hear(self, now: float) -> None:
        """Act on what has come into the inbox since the last call."""
        inbox = self._inbox
        if inbox is None:
            return
        failures, dropped = inbox.take_failures()
        self.rtcp_failures += failures
        self.rtcp_dropped += dropped
        if report := inbox.take_report():
            self.feedback.take_report(*report, self._clock)
        if estimate := inbox.take_remb():
            self.feedback.take_remb(*estimate)
        if inbox.feedback.goodbye:
            self.feedback.goodbye = True
        if count := inbox.take_pictures_lost():
            self._take_picture_loss(count, now)
        if lost := inbox.take_lost():
            self._take_nack(lost, now)
        self._repair(now)

    def report(self, now: float) -> None:
        """Send the sender reports that are due, one for the sound and one for the pictures."""
        for stream in (self.sound, self.pictures):
            if stream is not None and (report := stream.reports.due(now, self._clock)) is not None:
                self.path.send(self.srtp.protect_rtcp(report))

    def _apply(self, compound: rtcp.Compound, now: float) -> None:
        ssrc = self.parameters.ssrc
        for block in compound.reports:
            if block.ssrc == ssrc:
                self.feedback.take_report(block, now, self._clock)
        if compound.remb is not None and ssrc in compound.remb_ssrcs:
            self.feedback.take_remb(compound.remb, now)
        if compound.goodbye:
            self.feedback.goodbye = True
        if self.estimator is not None and compound.arrivals:
            self.estimator.arrived(now, compound.arrivals)
        if ssrc in compound.pictures_lost:
            self._take_picture_loss(1, now)
        lost = [number for source, number in compound.lost if source == ssrc]
        if lost:
            self._take_nack(lost, now)

    def _take_picture_loss(self, count: int, now: float) -> None:
        self.plis += count
        self._ask_keyframe(now)

    def _ask_keyframe(self, now: float) -> None:
        asked = self._keyframe_asked_at
        if self.listener is None or (asked is not None and now - asked < self._settings.keyframe_pause):
            return
        self._keyframe_asked_at = now
        self.listener.keyframe_needed(self, not self._keyframes.take(now))

    def _take_nack(self, lost: list[int], now: float) -> None:
        self.nacks += len(lost)
        if self.parameters.rtx_payload_type is None or self.listener is None:
            return
        chosen = self.history.choose(lost, now=now, rtt=self.feedback.rtt, copies=self.copies, tight=self.tight)
        if chosen:
            self.listener.resend(self, chosen)
        self._repair(now)

    def _repair(self, now: float) -> None:
        """Ask for the keyframe that a viewer needs whose losses could not be sent again: players wait for seconds
        before they do. While the queue grows a keyframe would be lost as well.
        """
        if self.history.unaffordable and not self.congested:
            self.history.unaffordable = 0
            self._ask_keyframe(now)
