"""Beamcast: one source encoded once per quality, sent to many browsers, adapted to every viewer.

As a library it works on any aiortc RTCPeerConnection (docs/library.md). Names are loaded when they are first used,
since aiortc and FFmpeg take a quarter of a second.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broadcaster.adaptation.decision import Decision
    from broadcaster.adaptation.policy import Thresholds
    from broadcaster.errors import BeamcastError, ConfigurationError, ConnectionClosedError
    from broadcaster.monitor import QualityMonitor
    from broadcaster.streaming import AdaptiveStreamingServer, StreamingSettings
    from broadcaster.track import AdaptiveVideoTrack

__all__ = [
    "AdaptiveStreamingServer",
    "AdaptiveVideoTrack",
    "BeamcastError",
    "ConfigurationError",
    "ConnectionClosedError",
    "Decision",
    "QualityMonitor",
    "StreamingSettings",
    "Thresholds",
]

_HOMES = {
    "AdaptiveStreamingServer": "streaming",
    "AdaptiveVideoTrack": "track",
    "BeamcastError": "errors",
    "ConfigurationError": "errors",
    "ConnectionClosedError": "errors",
    "Decision": "adaptation.decision",
    "QualityMonitor": "monitor",
    "StreamingSettings": "streaming",
    "Thresholds": "adaptation.policy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
