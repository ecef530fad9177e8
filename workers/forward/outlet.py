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
from broadcaster.stream import RTP_CLOCK, EncodedFrame, timestamp_at
from workers.forward import rtcp
from workers.forward.estimate import NativeEstimator, path_estimator
from workers.forward.history import History, HistoryLimits, LostPacket
from workers.forward.inbox import Inbox
from workers.forward.packets import (
    CHUNK_SIZE,
    CONTINUATION,
    DESCRIPTOR_SIZE,
    FIRST,
    HEADER_SIZE,
    OSN_SIZE,
    ExtensionBlock,
    ExtensionIds,
    head_packer,
    rtx_packer,
)
from workers.forward.sound import SoundOutlet, SoundParameters
from workers.forward.srtp import DIRECT, SrtpKeys, SrtpSession
from workers.forward.state import NOBODYS, RECORD, address_of, ffi, new_state, socket_address

_MAX_RTT = 10 * 65_536
_MAX_REMB = 10_000_000_000


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
class OutletParameters:
    """What offer and answer agreed on. `rtx_payload_type` is None where the viewer cannot take retransmissions, `sound`
    where it gets none."""

    ssrc: int
    rtx_ssrc: int
    payload_type: int
    rtx_payload_type: int | None
    extensions: ExtensionIds
    mid: str
    cname: str
    sound: SoundParameters | None = None


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


@dataclass(slots=True)
class Feedback:
    """What the viewer reported last; None is not known yet.

    `loss` is the fraction (0 to 1) of the packets between the last two reports. `packets_lost` and `packets_expected`
    count since the start, so that anyone can take the loss over an interval of his own. `rtt` and `jitter` in
    seconds, `remb` in bit/s; `reported_at` and `remb_at` are the monotonic times of arrival.
    """

    loss: float | None = None
    packets_lost: int | None = None
    packets_expected: int = 0
    rtt: float | None = None
    jitter: float | None = None
    reported_at: float | None = None
    remb: int | None = None
    remb_at: float | None = None
    goodbye: bool = False


class OutletListener(Protocol):
    """Who acts on what a viewer asks for."""

    def keyframe_needed(self, outlet: Outlet, patient: bool) -> None:
        """`patient`: the viewer has had its share; the next keyframe that costs the others little will do."""

    def resend(self, outlet: Outlet, lost: list[LostPacket]) -> None: ...


class Outlet:
    """One viewer's end of the fan-out.

    `copies` is how often a lost packet is sent again at once, and `tight` says that the path has no room for resends,
    `congested` that its queue grows.

    What a fan-out advances stands in `state`, a bc_outlet (kernel.h), and only there. `sound` is None where the viewer
    gets none.

    Counters, of pictures but for `drops`: `packets` and `octets` (RTP payload) of media, `retransmissions` (packets),
    `rtx_octets`, `probe_packets`, `probe_octets`, `nacks` (packets asked for), `plis` (PLI and FIR), `drops` (packets
    that did not leave), `rtcp_failures` (unreadable or forged), `rtcp_dropped` (over the rate).
    """

    __slots__ = (
        "_allowance",
        "_allowed_at",
        "_clock",
        "_highest",
        "_inbox",
        "_keyframe_asked_at",
        "_keyframe_share",
        "_lost",
        "_path",
        "_records",
        "_reported",
        "_sdes",
        "_settings",
        "_view",
        "congested",
        "copies",
        "estimator",
        "extensions",
        "feedback",
        "header_word",
        "history",
        "listener",
        "nacks",
        "pack_head",
        "pack_rtx",
        "parameters",
        "plis",
        "probe_octets",
        "probe_packets",
        "retransmissions",
        "rtcp_dropped",
        "rtcp_failures",
        "rtx_octets",
        "rtx_prefix",
        "rtx_sequence",
        "rtx_word",
        "shape",
        "sound",
        "source",
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
        self.feedback, self.copies, self.tight, self.congested = Feedback(), 1, False, False
        self.srtp = SrtpSession(keys)
        self.state, self._records = new_state(settings.history.frames)
        self._view = memoryview(ffi.buffer(self._records))
        self.history = History(self.state, settings.history)
        self._clock = clock
        self._settings = settings
        self._sdes = rtcp.source_description(parameters.ssrc, parameters.cname)

        self.extensions = ExtensionBlock(parameters.extensions, parameters.mid, settings.playout_delay)
        flags = 0x9000 if self.extensions.present else 0x8000
        self.header_word = flags | parameters.payload_type
        self.rtx_word, self.source = flags | (parameters.rtx_payload_type or 0), parameters.ssrc.to_bytes(4, "big")
        header = HEADER_SIZE + self.extensions.size
        self.shape = header + DESCRIPTOR_SIZE, self.srtp.tag_size
        self.rtx_prefix = header + OSN_SIZE + DESCRIPTOR_SIZE
        self.pack_head = head_packer(self.extensions.size)
        self.pack_rtx = rtx_packer(self.extensions.size)

        self._fill_state(randbelow)
        self.estimator = path_estimator() if self.extensions.transport_at else None
        """Of the viewer's path; None where transport-wide feedback was not negotiated."""
        if isinstance(self.estimator, NativeEstimator):
            self.state.path = self.estimator.pointer
        self.sound = self._open_sound(randbelow)
        self._path = path
        self._aim()

        self.retransmissions = self.rtx_octets = self.probe_octets = self.probe_packets = 0
        self.nacks = self.plis = self.rtcp_failures = self.rtcp_dropped = 0
        self._highest, self._lost = self.state.sequence - 1, 0
        self._reported = (0, 0)
        self._keyframe_asked_at: float | None = None
        self._keyframe_share = float(settings.keyframe_burst)
        self._allowance = settings.rtcp_rate
        self._allowed_at: float | None = None
        self._inbox: Inbox | None = None

    def _fill_state(self, randbelow: Callable[[int], int]) -> None:
        parameters, state = self.parameters, self.state
        if DIRECT:
            state.srtp = address_of(self.srtp.context)
        state.cipher = self.srtp.cipher or ffi.NULL
        state.ssrc = parameters.ssrc
        state.payload_type = parameters.payload_type
        state.tag_size = self.srtp.tag_size
        state.extensions_size = self.extensions.size
        state.time_at, state.transport_at = self.extensions.time_at, self.extensions.transport_at
        block = self.extensions.at(0.0)
        state.extensions[0 : len(block)] = block
        state.segmentation = True
        # The lower half, because a number that wraps before the first packet arrives breaks SRTP at the receiver.
        state.sequence = randbelow(32_768)
        self.rtx_sequence = randbelow(32_768)
        state.picture_id = randbelow(32_768)
        state.tl0 = randbelow(256)
        state.key_index = randbelow(32)

    def _open_sound(self, randbelow: Callable[[int], int]) -> SoundOutlet | None:
        parameters = self.parameters
        if parameters.sound is None:
            return None
        sound = SoundOutlet(parameters.sound, parameters.cname, self.srtp.tag_size, randbelow)
        self.state.sound = sound.state
        return sound

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
        overhead = self.shape[0] - DESCRIPTOR_SIZE + self.shape[1]
        pictures = self.octets + self.rtx_octets + self.probe_octets + packets * overhead
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

    def begin(self, frame: EncodedFrame, serial: int, now: float, wall: float) -> tuple[bytes, bytes]:
        """Start a frame: advance what counts frames, remember it, and return what stands between sequence number and
        chunk in its first packet and in the others. `now` is monotonic, `wall` the same moment since 1970.

        Picture ids and TL0PICIDX are contiguous for each viewer whatever it skipped, because a gap without a keyframe
        freezes players. The timestamp is the frame's own, except right after a switch to a rung that encodes later: a
        player must not see time stand still, so such a frame is one tick younger than the last.
        """
        state = self.state
        layer, timestamp, recorded = frame.layer, frame.timestamp, state.recorded
        if recorded and (state.timestamp - timestamp) & 0xFFFFFFFF < RTP_CLOCK:
            timestamp = (state.timestamp + 1) & 0xFFFFFFFF
        state.timestamp = timestamp
        state.picture_id = picture_id = (state.picture_id + 1) & 0x7FFF
        if layer == 0:
            state.tl0 = (state.tl0 + 1) & 0xFF
            if frame.keyframe:
                state.key_index = (state.key_index + 1) & 0x1F
        tl0, last = state.tl0, layer << 6 | frame.sync << 5 | state.key_index
        picture = 0x8000 | picture_id
        pack, source, extensions = self.pack_head, self.source, self.extensions.at(wall)
        head = pack(timestamp, source, extensions, FIRST, picture, tl0, last)
        size, place = len(frame.payload), recorded % state.capacity * RECORD.size
        RECORD.pack_into(self._view, place, state.sequence, serial, now, timestamp, size, head[-DESCRIPTOR_SIZE:])
        state.recorded = recorded + 1
        if size <= CHUNK_SIZE:
            return head, head
        return head, pack(timestamp, source, extensions, CONTINUATION, picture, tl0, last)

    def resume(self, frame: EncodedFrame, serial: int, first: int, wall: float) -> bytes | None:
        """What stands between sequence number and chunk in the packets of the frame begun last, from number `first` on;
        None when what was sent last is not the part before.
        """
        state = self.state
        if not state.recorded:
            return None
        place = (state.recorded - 1) % state.capacity * RECORD.size
        begun, known, _, timestamp, size, descriptor = RECORD.unpack_from(self._view, place)
        if known != serial or size != len(frame.payload) or state.sequence != begun + first:
            return None
        _, picture, tl0, last = struct.unpack("!HHBB", descriptor)
        return self.pack_head(timestamp, self.source, self.extensions.at(wall), CONTINUATION, picture, tl0, last)

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
        if not self._may_speak(now):
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
            self._take_report(*report)
        if estimate := inbox.take_remb():
            self._take_remb(*estimate)
        if inbox.feedback.goodbye:
            self.feedback.goodbye = True
        if count := inbox.take_pictures_lost():
            self._take_picture_loss(count, now)
        if lost := inbox.take_lost():
            self._take_nack(lost, now)
        self._repair(now)

    def report(self, now: float) -> None:
        """Send a sender report for the pictures and one for the sound, each if packets have left since the one before
        the last (RFC 3550 section 6.4)."""
        if self.sound is not None and (report := self.sound.report(now, self._clock)) is not None:
            self.path.send(self.srtp.protect_rtcp(report))
        if self.packets == self._reported[0]:
            return
        self._reported = (self._reported[1], self.packets)
        clock = self._clock
        report = rtcp.sender_report(
            self.parameters.ssrc,
            clock.ntp(now),
            timestamp_at(clock.wall(now)),
            packets=self.packets,
            octets=self.octets,
            description=self._sdes,
        )
        self.path.send(self.srtp.protect_rtcp(report))

    def _may_speak(self, now: float) -> bool:
        rate = self._settings.rtcp_rate
        if self._allowed_at is not None:
            self._allowance = min(rate, self._allowance + rate * (now - self._allowed_at))
        self._allowed_at = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def _apply(self, compound: rtcp.Compound, now: float) -> None:
        ssrc = self.parameters.ssrc
        for block in compound.reports:
            if block.ssrc == ssrc:
                self._take_report(block, now)
        if compound.remb is not None and ssrc in compound.remb_ssrcs:
            self._take_remb(compound.remb, now)
        if compound.goodbye:
            self.feedback.goodbye = True
        if self.estimator is not None and compound.arrivals:
            self.estimator.arrived(now, compound.arrivals)
        if ssrc in compound.pictures_lost:
            self._take_picture_loss(1, now)
        lost = [number for source, number in compound.lost if source == ssrc]
        if lost:
            self._take_nack(lost, now)

    def _take_report(self, block: rtcp.ReportBlock, now: float) -> None:
        feedback = self.feedback
        feedback.reported_at = now
        feedback.jitter = block.jitter / RTP_CLOCK
        if block.lsr:
            elapsed = (self._clock.ntp_middle(now) - block.lsr - block.dlsr) & 0xFFFFFFFF
            if elapsed < _MAX_RTT:
                feedback.rtt = elapsed / 65_536
        expected = block.highest_sequence - self._highest
        if 0 < expected <= 0xFFFF:
            feedback.loss = min(1.0, max(0.0, (block.cumulative_lost - self._lost) / expected))
            feedback.packets_lost = block.cumulative_lost
            feedback.packets_expected += expected
            self._highest = block.highest_sequence
            self._lost = block.cumulative_lost

    def _take_remb(self, remb: int, now: float) -> None:
        self.feedback.remb = min(remb, _MAX_REMB)
        self.feedback.remb_at = now

    def _take_picture_loss(self, count: int, now: float) -> None:
        self.plis += count
        self._ask_keyframe(now)

    def _ask_keyframe(self, now: float) -> None:
        asked, settings = self._keyframe_asked_at, self._settings
        if self.listener is None or (asked is not None and now - asked < settings.keyframe_pause):
            return
        earned = 0.0 if asked is None else (now - asked) / settings.keyframe_every
        self._keyframe_share = min(settings.keyframe_burst, self._keyframe_share + earned)
        self._keyframe_asked_at = now
        patient = self._keyframe_share < 1.0
        if not patient:
            self._keyframe_share -= 1.0
        self.listener.keyframe_needed(self, patient)

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
