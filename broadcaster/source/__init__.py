"""Sources: test pattern, file, URL, camera; each becomes one flow of paced pictures and sound for all its readers."""

from broadcaster.source.opening import default_source, open_source
from broadcaster.source.picture import Picture, SourceStatus
from broadcaster.source.shared import SharedSource
from broadcaster.source.snapshot import jpeg
from broadcaster.source.sound import Sound

__all__ = ["Picture", "SharedSource", "Sound", "SourceStatus", "default_source", "jpeg", "open_source"]
