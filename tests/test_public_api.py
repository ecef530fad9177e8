"""What `broadcaster` exports, to the letter; that importing it is light; that the README's program runs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import aiortc
import pytest

import broadcaster
from broadcaster import AdaptiveStreamingServer, AdaptiveVideoTrack, QualityMonitor

ROOT = Path(__file__).parents[1]


def test_exactly_these_names_are_exported() -> None:
    assert broadcaster.__all__ == [
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
    for name in broadcaster.__all__:
        assert inspect.isclass(getattr(broadcaster, name))
    assert set(broadcaster.__all__) <= set(dir(broadcaster))
    with pytest.raises(AttributeError, match="Nothing"):
        broadcaster.Nothing  # noqa: B018


@pytest.mark.parametrize(
    ("function", "parameters", "is_async"),
    [
        (AdaptiveVideoTrack, "initial_fps=30", False),
        (AdaptiveVideoTrack.recv, "self", True),
        (AdaptiveVideoTrack.set_fps, "self, fps", False),
        (QualityMonitor, "peer_connection", False),
        (QualityMonitor.get_connection_stats, "self", True),
        (QualityMonitor.should_reduce_quality, "self, stats", False),
        (QualityMonitor.should_increase_quality, "self, stats", False),
        (AdaptiveStreamingServer, "", False),
        (AdaptiveStreamingServer.setup_connection, "self, peer_connection, video_track", True),
        (
            AdaptiveStreamingServer.monitor_and_adapt,
            "self, peer_connection, video_track, monitor_interval=2.0",
            True,
        ),
        (AdaptiveStreamingServer.adjust_frame_rate, "self, video_track, increase", False),
        (AdaptiveStreamingServer.adjust_bitrate, "self, peer_connection, increase", True),
    ],
)
def test_signatures(function: object, parameters: str, is_async: bool) -> None:
    assert callable(function)
    found = [
        parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default}"
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not parameter.KEYWORD_ONLY
    ]
    assert ", ".join(found) == parameters
    assert inspect.iscoroutinefunction(function) is is_async


def test_the_track_is_a_video_track_of_aiortc() -> None:
    assert issubclass(AdaptiveVideoTrack, aiortc.MediaStreamTrack)
    assert AdaptiveVideoTrack.kind == "video"


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys, broadcaster; print([name for name in ('aiortc', 'av', 'numpy', 'redis') if name in sys.modules])"
    )
    assert _python(program) == "[]\n"


def test_the_program_of_the_readme_runs() -> None:
    section = (ROOT / "README.md").read_text().split("## As a library", 1)[1]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    program = found[1]
    assert len(program.splitlines()) < 30
    printed = _python(program)
    assert re.match(r"\d+ \d+ \{'packet_loss': ", printed)


def _python(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, check=True, capture_output=True, text=True, timeout=50
    ).stdout
