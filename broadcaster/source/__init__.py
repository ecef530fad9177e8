"""Sources: test pattern, file, URL, camera; each becomes one flow of paced pictures for all its readers."""

from broadcaster.source.opening import default_source, open_source
from broadcaster.source.picture import Picture, SourceStatus
from broadcaster.source.shared import SharedSource
from broadcaster.source.snapshot import jpeg

__all__ = ["Picture", "SharedSource", "SourceStatus", "default_source", "jpeg", "open_source"]
