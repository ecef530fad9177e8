"""Viewer: one connected player, from its offer to its end."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from aiortc.stats import RTCStatsReport
from pyee.asyncio import AsyncIOEventEmitter

from broadcaster.adaptation.samples import Sample
from broadcaster.bus import Bus
from broadcaster.bus.messages import Connected, Left, PatchResult, ViewerStatus
from broadcaster.clock import WallClock
from broadcaster.errors import NoCommonCodecError, PreconditionFailedError, PreconditionRequiredError
from broadcaster.stream import OPUS, StreamDescription
from workers import sdp
from workers.answer import answer, restart_fragment
from workers.figures import Figures
from workers.forward import Outlet, OutletParameters, SoundParameters
from workers.gauge import Gauge
from workers.steering import Steering, SteeringSettings
from workers.streams import Feed
from workers.transport import Candidate, Endpoint, Path, SrtpKeys
from workers.transport.addresses import line_of


class Viewer(AsyncIOEventEmitter):
    """One player of one stream: its connection, and who measures it (Gauge), decides for it (Steering) and tells of it
    (Figures), whom it calls when the connection has something to say and once a second.

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
        settings: SteeringSettings,
    ) -> None:
        super().__init__()
        self.id = id
        self.stream = feed.stream
        self.since = time.time()
        self.playing = False
        """Whether media has left between the last two ticks."""
        self._offer = offer
        self._remote_ufrag = offer.ufrag
        self._feed = feed
        self._endpoint = endpoint
        self._bus = bus
        self._clock = clock
        self._started = started
        self._on_left = on_left
        self._outlet: Outlet | None = None
        self._session_id = secrets.randbits(62)
        self._ssrc, self._rtx_ssrc = (secrets.randbits(30) << 2 | bits for bits in (0, 1))
        heard = offer.sound is not None and description.sound == OPUS
        if offer.video is None and not heard:
            raise NoCommonCodecError(f"The stream {feed.stream!r} has no sound, and the offer takes nothing else.")
        self._sound_ssrc = secrets.randbits(30) << 2 | 2 if heard else None
        self._reported_at: float | None = None
        self._gauge = Gauge(started)
        self.steering = Steering(
            id,
            feed,
            description,
            self._gauge,
            bus,
            settings,
            pictures=offer.video is not None,
            probes=offer.rtx_payload_type is not None,
        )
        self.track = self.steering.track
        self._figures = Figures(id, feed.stream, worker, self.track, self._gauge)
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
            now = time.monotonic()
            self._outlet.receive_rtcp(datagram, now)
            self._heed(self._outlet, now)

    def _hear(self) -> None:
        if self._outlet is not None:
            now = time.monotonic()
            self._outlet.hear(now)
            self._heed(self._outlet, now)

    def _heed(self, outlet: Outlet, now: float) -> None:
        feedback = outlet.feedback
        if feedback.reported_at != self._reported_at:
            self._reported_at = feedback.reported_at
            self._peer.alive()
        if feedback.goodbye:
            self.close("closed")
        elif outlet.estimator is not None and outlet.estimator.take_told():
            self.steering.update(outlet, now, Sample(rtt=feedback.rtt, jitter=feedback.jitter))

    def _closed(self, reason: str) -> None:
        if self._outlet is not None:
            self._feed.forwarder.detach(self._outlet)
        self.track.stop()
        left = Left(reason=reason, duration=self.age)
        self._bus.publish("left", left, stream=self.stream, viewer=self.id)
        self.emit("connectionstatechange")
        self._on_left(self)

    # --- what the worker looks at --------------------------------------------------------------------------------

    def relevel(self, description: StreamDescription) -> None:
        """The stream's ladder has changed."""
        self.steering.relevel(description)
        if self._outlet is not None:
            self._feed.forwarder.reselect(self._outlet)

    def tick(self, now: float) -> None:
        """Once a second: measure, decide, publish. `now` is monotonic seconds.

        While no picture leaves there is nothing to decide, and nothing to tell after the one time that the bitrate is
        0.
        """
        self._hear()
        outlet, gauge = self._outlet, self._gauge
        if outlet is None or self._peer.state == "closed":
            return
        heard = gauge.sounds(outlet, now)
        if self._offer.video is None:
            self.playing = heard
            return
        shown = gauge.shows(outlet)
        self.playing = shown or heard
        if not shown and not gauge.bitrate and self.steering.adapter.level is not None:
            gauge.rest(now)
            return
        self.steering.update(outlet, now, gauge.measure(outlet, now))
        self._bus.publish("stats", self._figures.stats(outlet), stream=self.stream, viewer=self.id)

    @property
    def age(self) -> float:
        """Seconds since its offer came, whatever the wall clock has done meanwhile."""
        return time.monotonic() - self._started

    @property
    def line(self) -> str | None:
        """What this viewer is behind, the same for all who may share it; None before it is connected, and where it has
        no share of pictures to compare with others'."""
        path = self._peer.path
        unknown = path is None or self._outlet is None or self._offer.video is None
        return None if unknown or path is None else line_of(str(path.address[0]))

    @property
    def queue(self) -> float:
        """Seconds of queue in the path, as far as it is known."""
        return self._gauge.queue

    @property
    def counts(self) -> tuple[int, int] | None:
        """Media packets that left, and packets that did not; None over TCP, where the viewer's own network refuses
        them."""
        outlet = self._outlet
        return None if outlet is None or outlet.path.is_tcp else (outlet.packets, outlet.drops)

    # --- what others see -----------------------------------------------------------------------------------------

    @property
    def connectionState(self) -> str:  # noqa: N802
        return {"checking": "connecting"}.get(self._peer.state, self._peer.state)

    def getSenders(self) -> list[Any]:  # noqa: N802
        """No RTCRtpSender: frames are encoded once for all, so there is no codec of this viewer's to configure."""
        return []

    async def getStats(self) -> RTCStatsReport:  # noqa: N802
        """`outbound-rtp` and `remote-inbound-rtp` as aiortc's own connections give them (W3C webrtc-stats)."""
        return self._figures.report(self._outlet)

    def status(self) -> ViewerStatus:
        """The viewer as the API shows it."""
        return self._figures.status(self._outlet, self.connectionState, self.since)
