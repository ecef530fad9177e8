"""Viewer: one connected player, from its offer to its end; its connection, its track and its adaptation."""

from __future__ import annotations

import datetime
import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aiortc.stats import RTCOutboundRtpStreamStats, RTCRemoteInboundRtpStreamStats, RTCStatsReport
from pyee.asyncio import AsyncIOEventEmitter

from broadcaster.adaptation.adapter import DEFAULT_SETTINGS, AdaptationSettings, ViewerAdapter
from broadcaster.adaptation.audience import carrying, quantile
from broadcaster.adaptation.decision import Decision, State
from broadcaster.adaptation.levels import Level
from broadcaster.adaptation.neighbours import Neighbours
from broadcaster.adaptation.path import PathState
from broadcaster.adaptation.plan import PlanSettings
from broadcaster.adaptation.remb import RembEstimator
from broadcaster.adaptation.samples import Sample
from broadcaster.adaptation.words import reason
from broadcaster.bus import Bus
from broadcaster.bus.messages import Adaptation, Connected, Left, Operating, PatchResult, Probe, Stats, ViewerStatus
from broadcaster.clock import WallClock
from broadcaster.errors import NoCommonCodecError, PreconditionFailedError, PreconditionRequiredError
from broadcaster.stream import OPUS, RTP_CLOCK, StreamDescription
from broadcaster.track import AdaptiveVideoTrack
from workers import sdp
from workers.answer import answer, restart_fragment
from workers.forward import Outlet, OutletParameters, SoundParameters
from workers.streams import Feed
from workers.transport import Candidate, Endpoint, Path, SrtpKeys

FIRST_WORD = 2.0
"""Seconds that a newcomer may be silent beyond what counts as silence: many report once a second, at first later."""

PLANNING = PlanSettings()


@dataclass(frozen=True)
class ViewerSettings:
    start_bitrate: int = 1_000_000
    """A viewer starts on the best rung of at most so many bits per second."""
    start_share: float = 0.25
    """Where the paths of other viewers of the stream are known, it starts on the best rung that all but this share of
    them could take."""
    burst_trust: float = 0.85
    """The share of the rate at which bursts come through that a viewer on the best level is believed to carry."""
    adaptation: AdaptationSettings = DEFAULT_SETTINGS


DEFAULT_VIEWER_SETTINGS = ViewerSettings()


class Viewer(AsyncIOEventEmitter):
    """One player of one stream.

    It offers what AdaptiveStreamingServer and QualityMonitor read of an RTCPeerConnection (`connectionState`,
    `getStats()`, `getSenders()` and the event "connectionstatechange"), so the library's classes watch it like any
    other.
    """

    def __init__(
        self,
        id: str,  # noqa: A002
        offer: sdp.Offer,
        feed: Feed,
        description: StreamDescription,
        endpoint: Endpoint,
        bus: Bus,
        *,
        worker: str,
        clock: WallClock,
        started: float,
        on_left: Callable[[Viewer], None],
        settings: ViewerSettings,
    ) -> None:
        super().__init__()
        self.id = id
        self.stream = feed.stream
        self.since = time.time()
        self.playing = False
        """Whether media has left between the last two ticks."""
        self._worker = worker
        self._offer = offer
        self._remote_ufrag = offer.ufrag
        self._feed = feed
        self._endpoint = endpoint
        self._bus = bus
        self._clock = clock
        self._started = started
        self._on_left = on_left
        self._settings = settings
        self._outlet: Outlet | None = None
        self._session_id = secrets.randbits(62)
        self._ssrc, self._rtx_ssrc = (secrets.randbits(30) << 2 | bits for bits in (0, 1))
        heard = offer.sound is not None and description.sound == OPUS
        if offer.video is None and not heard:
            raise NoCommonCodecError(f"The stream {feed.stream!r} has no sound, and the offer takes nothing else.")
        self._sound_ssrc = secrets.randbits(30) << 2 | 2 if heard else None
        self._sent = (started, 0)
        self._heard = (started, 0)
        self._sound_bitrate = 0.0
        """Of the sound, in bit/s on the wire."""
        self._reported_at: float | None = None
        self._bitrate: int | None = None
        self._loss: float | None = None
        self._counted = (0, 0)
        known = quantile(feed.audience, settings.start_share)
        levels = description.levels()
        start = starting_level(levels, int(known or settings.start_bitrate))
        probes = offer.rtx_payload_type is not None
        self.adapter = ViewerAdapter(levels, start, settings.adaptation, probes=probes)
        self._remb: RembEstimator | None = None
        """Made for a player that sends no transport-wide feedback."""
        self._heard_at: tuple[float | None, float | None] = None, None
        self._path = PathState()
        self.neighbours: Neighbours[str] | None = None
        """Those behind the same address; to be set before `tick`."""
        self.track = AdaptiveVideoTrack()
        self.track.set_fps(start.fps)
        self.track.follow(description, start, entry=levels[0].rung)
        if offer.video is None:
            self.adapter.level = None
            self.track.set_level(None)
        self._peer = endpoint.accept(
            remote_fingerprint=offer.fingerprints[0],
            on_connected=self._connected,
            on_rtcp=self._receive_rtcp,
            on_closed=self._closed,
        )

    # --- signalling ----------------------------------------------------------------------------------------------

    @property
    def etag(self) -> str:
        """Names the ICE session: it changes with a restart (RFC 9725 section 4.3.1)."""
        return hashlib.blake2s(self._peer.ufrag.encode(), digest_size=8).hexdigest()

    def answer(self, candidates: Sequence[Candidate]) -> str:
        """The SDP answer, complete: this side trickles nothing."""
        return answer(
            self._offer,
            ufrag=self._peer.ufrag,
            password=self._peer.password,
            fingerprint=self._endpoint.fingerprint,
            candidates=[str(candidate) for candidate in candidates],
            ssrc=self._ssrc,
            rtx_ssrc=self._rtx_ssrc,
            sound_ssrc=self._sound_ssrc,
            cname=self.id,
            session_id=self._session_id,
        )

    async def patch(self, if_match: str | None, text: str) -> PatchResult:
        """Trickled candidates change nothing, for the player's checks tell where it is; credentials restart ICE.

        Raises PreconditionRequiredError and PreconditionFailedError (RFC 9725 section 4.3).
        """
        fragment = sdp.parse_fragment(text)
        restarts = fragment.ufrag is not None and fragment.ufrag != self._remote_ufrag
        if restarts and if_match is None:
            raise PreconditionRequiredError("Send the session's ETag, or *, as If-Match.")
        if if_match not in {None, "*", self.etag}:
            raise PreconditionFailedError("If-Match does not name the present ICE session; make a new session by POST.")
        if fragment.ufrag is None or not restarts:
            return PatchResult(etag=self.etag)
        self._remote_ufrag = fragment.ufrag
        ufrag, password = self._peer.restart()
        candidates = [str(candidate) for candidate in await self._endpoint.candidates()]
        restarted = restart_fragment(
            self._offer, ufrag=ufrag, password=password, candidates=candidates, sound=self._sound_ssrc is not None
        )
        return PatchResult(etag=self.etag, fragment=restarted)

    def close(self, reason: str) -> None:
        """End the session; `reason` is told to subscribers. Later calls do nothing."""
        self._peer.close(reason)

    # --- the connection's life -----------------------------------------------------------------------------------

    def _connected(self, keys: SrtpKeys) -> None:
        path = self._peer.path
        assert path is not None, "a connection without a path"
        parameters = OutletParameters(
            ssrc=self._ssrc,
            rtx_ssrc=self._rtx_ssrc,
            payload_type=self._offer.payload_type,
            rtx_payload_type=self._offer.rtx_payload_type,
            extensions=self._offer.extensions,
            mid=self._offer.mid,
            cname=self.id,
            sound=self._sound_parameters(),
        )
        self._outlet = Outlet(parameters, keys, path, self._clock)
        self._peer.on_moved = self._moved
        self._peer.listen(self._outlet.open_inbox, self._hear)
        assert self.track.selector is not None
        self._feed.forwarder.attach(self._outlet, self.track.selector)
        elapsed = time.monotonic() - self._started
        self._bus.publish("connected", Connected(elapsed=elapsed), stream=self.stream, viewer=self.id)
        self.emit("connectionstatechange")

    def _sound_parameters(self) -> SoundParameters | None:
        offered = self._offer.sound
        if offered is None or self._sound_ssrc is None:
            return None
        return SoundParameters(self._sound_ssrc, offered.payload_type, offered.extensions, offered.mid)

    def _moved(self, path: Path) -> None:
        if self._outlet is not None:
            self._outlet.path = path

    def _receive_rtcp(self, datagram: bytes) -> None:
        if self._outlet is not None:
            self._outlet.receive_rtcp(datagram, time.monotonic())
            self._heed(self._outlet)

    def _hear(self) -> None:
        if self._outlet is not None:
            self._outlet.hear(time.monotonic())
            self._heed(self._outlet)

    def _heed(self, outlet: Outlet) -> None:
        if outlet.feedback.reported_at != self._reported_at:
            self._reported_at = outlet.feedback.reported_at
            self._peer.alive()
        if outlet.feedback.goodbye:
            self.close("closed")
        elif outlet.estimator is not None and outlet.estimator.take_told():
            feedback = outlet.feedback
            self._adapt(outlet, time.monotonic(), Sample(rtt=feedback.rtt, jitter=feedback.jitter))

    def _closed(self, reason: str) -> None:
        if self._outlet is not None:
            self._feed.forwarder.detach(self._outlet)
        self.track.stop()
        left = Left(reason=reason, duration=self.age)
        self._bus.publish("left", left, stream=self.stream, viewer=self.id)
        self.emit("connectionstatechange")
        self._on_left(self)

    # --- adaptation ----------------------------------------------------------------------------------------------

    def relevel(self, description: StreamDescription) -> None:
        """The stream's ladder has changed."""
        levels = description.levels()
        self.adapter.relevel(levels)
        self.track.follow(description, self.adapter.level or levels[-1])
        if self.adapter.level is None:
            self.track.set_level(None)
        if self._outlet is not None:
            self._feed.forwarder.reselect(self._outlet)

    def tick(self, now: float) -> None:
        """Once a second: measure, decide, publish. `now` is monotonic seconds.

        While no picture leaves there is nothing to decide, and nothing to tell after the one time that the bitrate is
        0.
        """
        self._hear()
        outlet = self._outlet
        if outlet is None or self._peer.state == "closed":
            return
        before = self._sent[1]
        if self._offer.video is None:
            self.playing = self._measure_sound(outlet, now)
            return
        shown, heard = outlet.octets + outlet.rtx_octets > before, self._measure_sound(outlet, now)
        self.playing = shown or heard
        if not shown and not self._bitrate and self.adapter.level is not None:
            self._sent = (now, before)
            return
        sample = self._measure(outlet, now)
        self._adapt(outlet, now, sample)
        self._publish_stats(outlet)

    def _measure_sound(self, outlet: Outlet, now: float) -> bool:
        """Whether sound has left since the last look."""
        (before, octets), total = self._heard, outlet.sound_octets
        if now > before:
            self._sound_bitrate = (total - octets) * 8 / (now - before)
        self._heard = (now, total)
        return total > octets

    def _adapt(self, outlet: Outlet, now: float, sample: Sample) -> None:
        """Decide on what is known now. The sound goes first, so the decision is on what it leaves of the path."""
        path = self._believe(outlet, now, sample)
        self._path = without(path, self._sound_bitrate) if outlet.sound_is_estimated else path
        neighbours = self.neighbours
        self.adapter.share = None if neighbours is None else neighbours.share(now, self.id, self.adapter.place)
        decision = self.adapter.update(now, sample, self._path)
        if decision is not None:
            self._apply(outlet, decision)
        if neighbours is not None:
            neighbours.see(
                now,
                self.id,
                place=self.adapter.place,
                aim=self.adapter.aim,
                queue=self.queue,
                congested=self._path.congested,
                capacity=self._path.capacity,
            )
        outlet.copies, outlet.tight = self.adapter.copies, self.adapter.tight
        outlet.congested = self._path.congested
        if outlet.estimator is not None:
            # The end of congestion has to be heard, too: two short ones would count as one that lasts.
            outlet.estimator.watched = self.adapter.probing or self._path.congested
        probe = self.adapter.probe
        self._feed.forwarder.probe(outlet, probe and probe + self._sound_bitrate, self.adapter.probe_octets)

    def _believe(self, outlet: Outlet, now: float, sample: Sample) -> PathState:
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

    def _measure(self, outlet: Outlet, now: float) -> Sample:
        before, octets = self._sent
        total = outlet.octets + outlet.rtx_octets
        if now > before:
            self._bitrate = int((total - octets) * 8 / (now - before))
        self._sent = (now, total)
        feedback = outlet.feedback
        expected, lost = feedback.packets_expected - self._counted[0], (feedback.packets_lost or 0) - self._counted[1]
        loss = None
        if expected > 0:
            loss = self._loss = min(1.0, max(0.0, lost / expected))
            self._counted = (feedback.packets_expected, feedback.packets_lost or 0)
        return Sample(
            packet_loss=loss,
            rtt=feedback.rtt,
            jitter=feedback.jitter,
            sent_bitrate=self._bitrate,
        )

    def _apply(self, outlet: Outlet, decision: Decision) -> None:
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
        self._bus.publish("adaptation", event, stream=self.stream, viewer=self.id)

    @property
    def age(self) -> float:
        """Seconds since its offer came, whatever the wall clock has done meanwhile."""
        return time.monotonic() - self._started

    @property
    def host(self) -> str | None:
        """The address that this viewer is behind; None before it is connected, and where it has no share of pictures to
        compare with others'."""
        path = self._peer.path
        unknown = path is None or self._outlet is None or self._offer.video is None
        return None if unknown or path is None else str(path.address[0])

    @property
    def queue(self) -> float:
        """Seconds of queue in the path, as far as it is known."""
        return self._path.queue_delay or 0.0

    @property
    def counts(self) -> tuple[int, int] | None:
        """Media packets that left, and packets that did not; None over TCP, where the viewer's own network refuses
        them."""
        outlet = self._outlet
        return None if outlet is None or outlet.path.is_tcp else (outlet.packets, outlet.drops)

    @property
    def carried(self) -> tuple[int, float] | None:
        """The rung that this viewer has settled on and what its path carries, in bit/s; None while that is not known.

        What it has settled on, it carries, even if so much was seldom needed, or others fill the line for a moment:
        otherwise a rung would follow what was sent, and less would be sent each time. On the best level nothing more is
        probed, so how fast bursts come through has to tell; on a line that is shared they have it for themselves.
        """
        level, path = self.adapter.level, self._path
        if level is None or path.estimate is None or not self.adapter.settled:
            return None
        carried = max(path.estimate, carrying(PLANNING.overhead * level.bitrate))
        if path.capacity is not None and self.adapter.on_top and self.adapter.alone:
            carried = max(carried, self._settings.burst_trust * path.capacity)
        return level.rung, carried

    # --- what others see -----------------------------------------------------------------------------------------

    @property
    def connectionState(self) -> str:  # noqa: N802
        return {"checking": "connecting"}.get(self._peer.state, self._peer.state)

    def getSenders(self) -> list[Any]:  # noqa: N802
        """No RTCRtpSender: frames are encoded once for all, so there is no codec of this viewer's to configure."""
        return []

    async def getStats(self) -> RTCStatsReport:  # noqa: N802
        """`outbound-rtp` and `remote-inbound-rtp` as aiortc's own connections give them (W3C webrtc-stats)."""
        report = RTCStatsReport()
        outlet = self._outlet
        if outlet is None:
            return report
        common: dict[str, Any] = {
            "timestamp": datetime.datetime.now(datetime.UTC),
            "ssrc": self._ssrc,
            "kind": "video",
            "transportId": self.id,
        }
        report.add(
            RTCOutboundRtpStreamStats(
                **common,
                type="outbound-rtp",
                id=f"outbound-rtp_{self.id}",
                packetsSent=outlet.packets,
                bytesSent=outlet.octets,
                trackId=self.track.id,
            )
        )
        feedback = outlet.feedback
        if feedback.packets_lost is not None and feedback.rtt is not None:
            report.add(
                RTCRemoteInboundRtpStreamStats(
                    **common,
                    type="remote-inbound-rtp",
                    id=f"remote-inbound-rtp_{self.id}",
                    packetsReceived=feedback.packets_expected - feedback.packets_lost,
                    packetsLost=feedback.packets_lost,
                    jitter=int((feedback.jitter or 0.0) * RTP_CLOCK),
                    roundTripTime=feedback.rtt,
                    fractionLost=min(255, int((feedback.loss or 0.0) * 256)),
                )
            )
        return report

    def status(self) -> ViewerStatus:
        """The viewer as the API shows it."""
        level = self._shown()
        feedback = self._outlet.feedback if self._outlet is not None else None
        return ViewerStatus(
            id=self.id,
            worker=self._worker,
            stream=self.stream,
            state=self.connectionState,
            level=f"{level.name}{level.fps:g}" if level else None,
            fps=level.fps if level else None,
            bitrate=self._bitrate,
            loss=self._loss,
            rtt=feedback.rtt if feedback else None,
            estimate=None if self._path.estimate is None else int(self._path.estimate),
            since=self.since,
        )

    def _shown(self) -> Level | None:
        return self.track.selector.current if self.track.selector is not None else None

    def _publish_stats(self, outlet: Outlet) -> None:
        level, feedback = self._shown(), outlet.feedback
        stats = Stats(
            fps=level.fps if level else None,
            rung=level.name if level else None,
            bitrate=self._bitrate,
            packet_loss=self._loss,
            rtt=feedback.rtt,
            jitter=feedback.jitter,
            estimate=None if self._path.estimate is None else int(self._path.estimate),
            bytes_sent=outlet.octets,
            packets_sent=outlet.packets,
            packets_lost=feedback.packets_lost,
            nacks=outlet.nacks,
            retransmissions=outlet.retransmissions,
            plis=outlet.plis,
        )
        self._bus.publish("stats", stats, stream=self.stream, viewer=self.id)


def starting_level(levels: Sequence[Level], bitrate: int) -> Level:
    """The best level at full frame rate of at most `bitrate` bit/s; the cheapest full-rate one when none is."""
    top = {level.rung: level for level in sorted(levels, key=lambda level: level.layer)}
    full_rate = sorted(top.values(), key=lambda level: level.bitrate)
    return next((level for level in reversed(full_rate) if level.bitrate <= bitrate), full_rate[0])


def without(path: PathState, sound: float) -> PathState:
    """What of a path is left for the pictures beside `sound` bit/s that are sent whatever happens."""
    if not sound:
        return path
    estimate, throughput = (
        None if rate is None else max(0.0, rate - sound) for rate in (path.estimate, path.throughput)
    )
    return replace(path, estimate=estimate, throughput=throughput)


def _probe(decision: Decision) -> Probe | None:
    last = decision.probe
    return None if last is None else Probe(target=last.target, reached=last.reached, outcome=last.outcome)


def _operating(state: State) -> Operating:
    return Operating(fps=state.fps, rung=state.rung or "", bitrate=state.bitrate or 0)
