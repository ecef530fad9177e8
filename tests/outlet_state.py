"""The kernel's fan-out in a moment that lasts, and everything that is kept of a viewer."""

from __future__ import annotations

from typing import Any

from tests.rtp_viewer import CLOCK
from workers.forward.native import NativeFanout
from workers.forward.outlet import Outlet
from workers.forward.state import ffi

NOW = 5.0
PLACES = ("srtp", "cipher", "path", "records", "socket", "address", "address_size")
"""What differs between two states because they are two."""


def fanout() -> NativeFanout:
    return NativeFanout(CLOCK, monotonic=lambda: NOW)


def content(outlet: Outlet) -> dict[str, Any]:
    """Everything that a fan-out keeps of a viewer."""
    state = outlet.state
    kept = {name: getattr(state, name) for name, _ in ffi.typeof("bc_outlet").fields if name not in PLACES}
    kept["extensions"] = bytes(state.extensions)
    kept["records"] = bytes(ffi.buffer(state.records, ffi.sizeof("bc_record") * state.capacity))
    return kept


def told(outlet: Outlet) -> bytes:
    """Everything that the estimator of a viewer's path knows."""
    return bytes(ffi.buffer(outlet.state.path, ffi.sizeof("bc_path"))) if outlet.state.path else b""
