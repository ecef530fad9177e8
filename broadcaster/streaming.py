"""AdaptiveStreamingServer: one loop that watches a peer connection and adapts what it sends."""

from __future__ import annotations

import asyncio
import contextlib
import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from broadcaster.adaptation import policy
from broadcaster.adaptation.decision import Decision, Rule, State
from broadcaster.adaptation.policy import Thresholds
from broadcaster.aiortc_sender import governor
from broadcaster.errors import ConfigurationError, ConnectionClosedError
from broadcaster.monitor import QualityMonitor, sample_of, video_senders

if TYPE_CHECKING:
    from aiortc import RTCPeerConnection

    from broadcaster.track import AdaptiveVideoTrack


@dataclass(frozen=True, slots=True)
class StreamingSettings:
    """`thresholds` of the rules. `fps_factor`: what a reduction leaves of the frame rate, never less than `min_fps`.
    `bitrate_up`, `bitrate_down`: factors of a bitrate step, beyond the 10 % below which aiortc's encoders do not react;
    `min_bitrate`, `max_bitrate`: its bounds in bit/s, within those of the encoder. `cooldown`: seconds without an
    increase of the bitrate after a decrease, since each change costs a keyframe."""

    thresholds: Thresholds = policy.DEFAULT_THRESHOLDS
    fps_factor: float = 0.5
    min_fps: float = 5.0
    bitrate_up: float = 1.25
    bitrate_down: float = 0.75
    min_bitrate: int = 250_000
    max_bitrate: int = 3_000_000
    cooldown: float = 10.0


DEFAULT_SETTINGS = StreamingSettings()


class AdaptiveStreamingServer:
    """Sends adaptive video to peer connections, each adapted to its own network.

    The rules (numbers in `Thresholds`): packet loss above 5 % lowers the frame rate, below 2 % it comes back if it was
    lowered before; high RTT or packet loss lowers the bitrate, low RTT with minimal loss raises it, never above the
    receiver's estimate.
    """

    def __init__(self, *, settings: StreamingSettings = DEFAULT_SETTINGS) -> None:
        self._settings = settings
        self._full_fps: weakref.WeakKeyDictionary[AdaptiveVideoTrack, float] = weakref.WeakKeyDictionary()

    async def setup_connection(self, peer_connection: RTCPeerConnection, video_track: AdaptiveVideoTrack) -> None:
        """Add the track to the connection, before or after it was negotiated; a track that it has already stays.

        Raises ConnectionClosedError when the connection is closed.
        """
        if peer_connection.connectionState == "closed":
            raise ConnectionClosedError("the peer connection is closed: a track can only be added to an open one")
        if all(sender.track is not video_track for sender in peer_connection.getSenders()):
            peer_connection.addTrack(video_track)

    async def monitor_and_adapt(
        self,
        peer_connection: RTCPeerConnection,
        video_track: AdaptiveVideoTrack,
        monitor_interval: float = 2.0,
        *,
        on_decision: Callable[[Decision], None] | None = None,
    ) -> None:
        """Measure and adapt every `monitor_interval` seconds until the connection closes; then return.

        `on_decision` is called with each change. A track that ended is left alone. Cancel the task to end it earlier.
        Raises ConfigurationError (a ValueError) for an interval that is not above 0.
        """
        interval = _checked_interval(monitor_interval)
        monitor = QualityMonitor(peer_connection, thresholds=self._settings.thresholds)
        closed = asyncio.Event()

        def watch() -> None:
            if peer_connection.connectionState == "closed":
                closed.set()

        peer_connection.on("connectionstatechange", watch)
        loop = asyncio.get_running_loop()
        no_increase_before = -math.inf
        try:
            watch()
            while not closed.is_set():
                try:
                    stats = await monitor.get_connection_stats()
                    may_increase = loop.time() >= no_increase_before
                    decisions = await self._adapt(peer_connection, video_track, stats, may_increase)
                except ConnectionClosedError:
                    return
                for decision in decisions:
                    if decision.rule in ("loss-high", "rtt-high"):
                        no_increase_before = loop.time() + self._settings.cooldown
                    if on_decision is not None:
                        on_decision(decision)
                try:
                    async with asyncio.timeout(interval):
                        await closed.wait()
                except TimeoutError:
                    continue
        finally:
            with contextlib.suppress(KeyError):  # a connection that closed has dropped its listeners
                peer_connection.remove_listener("connectionstatechange", watch)

    def adjust_frame_rate(self, video_track: AdaptiveVideoTrack, increase: bool) -> float:
        """Halve the track's frame rate, or double it up to what it was before it was lowered first; returns it.

        An increase of a track that was never lowered changes nothing.
        """
        fps = video_track.fps
        if increase:
            full = self._full_fps.get(video_track, fps)
            wanted = min(full, fps / self._settings.fps_factor)
            if wanted >= full:
                self._full_fps.pop(video_track, None)
        else:
            wanted = max(min(self._settings.min_fps, fps), fps * self._settings.fps_factor)
            if wanted < fps:
                self._full_fps.setdefault(video_track, fps)
        if (wanted > fps) == increase and wanted != fps:
            video_track.set_fps(wanted)
        return video_track.fps

    async def adjust_bitrate(self, peer_connection: RTCPeerConnection, increase: bool) -> int | None:
        """Reconfigure the running codec of the connection's video: one step up or down.

        Returns what the encoder aims at now, in bit/s; None when nothing could be changed: no encoder runs yet, or the
        bitrate is at its bound (those of the settings and of the encoder) or at the receiver's estimate already.
        What is set lasts: a later REMB lowers the target and lets it come back, but does not raise it above.
        Raises ConnectionClosedError when the connection is closed.
        """
        if peer_connection.connectionState == "closed":
            raise ConnectionClosedError("the peer connection is closed: it has no bitrate to adjust")
        factor = self._settings.bitrate_up if increase else self._settings.bitrate_down
        changed = None
        for sender in video_senders(peer_connection):
            encoder = governor(sender)
            if encoder is None:
                continue
            before = encoder.target_bitrate
            wanted = max(self._settings.min_bitrate, min(self._settings.max_bitrate, int(before * factor)))
            if (wanted > before) == increase and encoder.limit(wanted) != before:
                changed = encoder.target_bitrate
        return changed

    async def _adapt(
        self,
        peer_connection: RTCPeerConnection,
        video_track: AdaptiveVideoTrack,
        stats: Mapping[str, Any],
        may_increase: bool,
    ) -> list[Decision]:
        """Apply the rules to one measurement; returns what changed."""
        thresholds = self._settings.thresholds
        sample = sample_of(stats)
        found: list[Decision] = []
        before = State(video_track.fps, None, stats["target_bitrate"])

        def changed(rule: Rule, fps: float, bitrate: int | None, lines: dict[str, float]) -> None:
            nonlocal before
            after = State(fps, None, before.bitrate if bitrate is None else bitrate)
            if after != before:
                found.append(Decision(rule, before, after, sample.as_dict(), lines))
            before = after

        live = video_track.readyState == "live"
        if policy.loss_is_high(sample, thresholds):
            fps = self.adjust_frame_rate(video_track, increase=False) if live else before.fps
            bitrate = await self.adjust_bitrate(peer_connection, increase=False)
            changed("loss-high", fps, bitrate, {"packet_loss": thresholds.loss_high})
        elif policy.rtt_is_high(sample, thresholds):
            bitrate = await self.adjust_bitrate(peer_connection, increase=False)
            changed("rtt-high", before.fps, bitrate, {"rtt": thresholds.rtt_high, "rtt_bloat": thresholds.rtt_bloat})
        else:
            if policy.loss_is_low(sample, thresholds) and live and video_track in self._full_fps:
                fps = self.adjust_frame_rate(video_track, increase=True)
                changed("loss-low", fps, None, {"packet_loss": thresholds.loss_low})
            if may_increase and policy.should_increase(sample, thresholds):
                bitrate = await self.adjust_bitrate(peer_connection, increase=True)
                lines = {"packet_loss": thresholds.loss_minimal, "rtt": thresholds.rtt_low}
                changed("headroom", before.fps, bitrate, lines)
        return found


def _checked_interval(seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ConfigurationError(f"{seconds!r} is not an interval: use a number of seconds above 0")
    return seconds
