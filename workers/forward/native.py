"""NativeFanout: the fan-out by the C kernel, and the choice between it and its twin in Python."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from pylibsrtp._binding import ffi as srtp_ffi
from pylibsrtp._binding import lib as srtp_lib

from broadcaster.clock import WallClock
from broadcaster.errors import ConfigurationError
from broadcaster.stream import EncodedFrame, EncodedSound
from workers.forward.fanout import Audience, Fanout, PythonFanout
from workers.forward.history import LostPacket
from workers.forward.outlet import Outlet
from workers.forward.packets import packets_of
from workers.forward.srtp import DIRECT, check_choice
from workers.forward.state import address_of, ffi, lib

log = logging.getLogger(__name__)

CHOICE = "BEAMCAST_FANOUT"
"""The environment variable that forces a fan-out: "native" or "python"."""


def obstacle() -> str | None:
    """Why the kernel cannot be used here; None when it can."""
    if lib is None:
        return "the C kernel was not built"
    if not DIRECT:
        return "libsrtp's functions have other signatures than version 2's"
    return None


def kernel_does(work: str, variable: str) -> bool:
    """Whether the kernel does some work, or its twin in Python: as the environment's `variable` says, "native" or
    "python", or else the fastest that there is. The choice is logged; `work` is how that sentence begins.

    Raises ConfigurationError for any other word. Whether the kernel can be used where it is asked for is not judged.
    """
    choice = os.environ.get(variable, "")
    if choice not in {"", "native", "python"}:
        raise ConfigurationError(f"{variable} is {choice!r}; it can be native or python.")
    reason = obstacle()
    if choice == "native" or (not choice and reason is None):
        log.info("%s by the C kernel", work)
        return True
    log.info("%s by Python: %s", work, reason or f"{variable} says so")
    return False


class NativeFanout:
    """The fan-out by the kernel (kernel.c). What the kernel does not know (TCP, retransmissions) its twin does, out of
    the same states.

    Another clock than `time.monotonic` is read once for each frame, not for each viewer.

    Raises ConfigurationError where there is no kernel.
    """

    def __init__(self, clock: WallClock, monotonic: Callable[[], float] = time.monotonic) -> None:
        if (reason := obstacle()) is not None:
            raise ConfigurationError(f"The native fan-out cannot be used: {reason}; set {CHOICE}=python.")
        kernel = lib.bc_open(address_of(srtp_ffi.addressof(srtp_lib, "srtp_protect")))
        if kernel == ffi.NULL:
            raise MemoryError("no memory for the fan-out kernel")
        self._kernel = ffi.gc(kernel, lib.bc_close)
        self._send = lib.bc_send
        self._monotonic = monotonic
        self._twin = PythonFanout(clock, monotonic)
        self._frame: Any = ffi.new("bc_frame *", {"offset": clock.offset, "frozen": monotonic is not time.monotonic})
        self._skipped = ffi.new("uint32_t *")

    def send(self, frame: EncodedFrame, outlets: Audience) -> int:
        return self.send_part(frame, self.shelve(frame), outlets, 0, packets_of(frame))

    def shelve(self, frame: EncodedFrame) -> int:
        return self._twin.shelve(frame)

    def send_part(self, frame: EncodedFrame, serial: int, outlets: Audience, first: int, end: int) -> int:
        shape, payload, skipped = self._frame, frame.payload, self._skipped
        shape.serial = serial
        shape.now = self._monotonic()
        shape.first, shape.end = first, end
        shape.payload = memory = ffi.from_buffer("uint8_t[]", payload)
        shape.size = len(payload)
        shape.timestamp = frame.timestamp
        shape.keyframe, shape.layer, shape.sync = frame.keyframe, frame.layer, frame.sync
        sent: int = self._send(self._kernel, outlets.states, len(outlets), shape, skipped)
        ffi.release(memory)
        if sent < 0:
            log.warning("a frame of %d octets on layer %d cannot be sent", len(payload), frame.layer)
            return 0
        if skipped[0]:
            others = [outlet for outlet in outlets if outlet.state.socket < 0]
            sent += self._twin.send_part(frame, serial, others, first, end)
        return sent

    def send_sound(self, sound: EncodedSound, outlets: Audience) -> int:
        shape, skipped = self._frame, self._skipped
        shape.now = self._monotonic()
        shape.payload = memory = ffi.from_buffer("uint8_t[]", sound.payload)
        shape.size, shape.timestamp = len(sound.payload), sound.timestamp
        sent: int = lib.bc_send_sound(self._kernel, outlets.states, len(outlets), shape, skipped)
        ffi.release(memory)
        if sent < 0:
            log.warning("a packet of sound of %d octets cannot be sent", len(sound.payload))
            return 0
        if skipped[0]:
            sent += self._twin.send_sound(sound, [outlet for outlet in outlets if outlet.state.socket < 0])
        return sent

    def resend(self, outlet: Outlet, lost: Sequence[LostPacket]) -> int:
        return self._twin.resend(outlet, lost)

    def probe(self, outlet: Outlet, octets: int) -> int:
        return self._twin.probe(outlet, octets)


def default_fanout(clock: WallClock) -> Fanout:
    """The fan-out that the environment asks for, or else the fastest there is.

    Raises ConfigurationError when BEAMCAST_FANOUT or BEAMCAST_CIPHER asks for what is not there.
    """
    check_choice()
    return NativeFanout(clock) if kernel_does("packets are sent", CHOICE) else PythonFanout(clock)
