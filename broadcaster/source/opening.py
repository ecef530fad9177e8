"""From what a user writes to a source."""

from __future__ import annotations

import re
import threading

from broadcaster.errors import SourceError
from broadcaster.source.feeds import MediaFeed, PatternFeed, ReturnConfig
from broadcaster.source.media import Location, MediaConfig, probe
from broadcaster.source.pacing import PacingConfig
from broadcaster.source.pattern import TestPattern
from broadcaster.source.shared import SharedSource
from broadcaster.source.tone import TestTone

_PATTERN = re.compile(r"pattern(?::(?P<width>\d+)x(?P<height>\d+))?(?:@(?P<fps>\d+(?:\.\d+)?))?")
_SMALLEST_SIDE = 120
_LARGEST_SIDE = 4096

_default: SharedSource | None = None
_default_lock = threading.Lock()


def open_source(
    spec: str,
    *,
    name: str,
    media: MediaConfig | None = None,
    pacing: PacingConfig | None = None,
    returning: ReturnConfig | None = None,
    sound: bool = False,
) -> SharedSource:
    """Open what `spec` says: "pattern", "pattern:1280x720@30", the path of a file, a URL, or "v4l2:/dev/video0".

    `name` is the stream's, shown by pattern and slate; `sound` asks for its sound too, where it has any. An input is
    opened and its first picture decoded here, which blocks for some seconds at worst. Raises SourceError with one
    sentence that says why it cannot be used.
    """
    if spec == "pattern" or spec.startswith(("pattern:", "pattern@")):
        return _pattern(spec, name, sound)
    media = media or MediaConfig()
    location = Location.parse(spec)
    info = probe(location, media)
    feed = MediaFeed(
        name,
        location,
        info.width,
        info.height,
        info.fps,
        media=media,
        pacing=pacing or PacingConfig(max_fps=media.max_fps),
        returning=returning or ReturnConfig(),
        sound=sound and info.sound,
    )
    return SharedSource(name, info.fps, info.width, info.height, feed, sound=sound and info.sound)


def default_source() -> SharedSource:
    """The test pattern at 640x360 and 30 fps that all readers of this process share."""
    global _default  # noqa: PLW0603 - one per process is its purpose
    with _default_lock:
        if _default is None or _default.closed:
            _default = open_source("pattern:640x360@30", name="beamcast")
        return _default


def _pattern(spec: str, name: str, sound: bool) -> SharedSource:
    match = _PATTERN.fullmatch(spec)
    if match is None:
        raise SourceError(f"{spec!r} is no test pattern: write 'pattern' or, for example, 'pattern:1280x720@30'")
    width, height = int(match["width"] or 1280), int(match["height"] or 720)
    fps = float(match["fps"] or 30)
    if not all(_SMALLEST_SIDE <= side <= _LARGEST_SIDE and side % 2 == 0 for side in (width, height)):
        raise SourceError(f"{spec!r}: the sides must be even and from {_SMALLEST_SIDE} to {_LARGEST_SIDE} pixels")
    if not 1 <= fps <= 60:
        raise SourceError(f"{spec!r}: the frame rate must be from 1 to 60")
    feed = PatternFeed(TestPattern(name, width, height, fps), fps, TestTone() if sound else None)
    return SharedSource(name, fps, width, height, feed, sound=sound)
