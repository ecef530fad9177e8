"""SoundOutlet: one viewer's sound, which leaves beside its pictures through the same outlet (RFC 7587)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from broadcaster.clock import WallClock
from broadcaster.stream import EncodedSound, sound_timestamp_at
from workers.forward import rtcp
from workers.forward.packets import HEADER_SIZE, ExtensionBlock, ExtensionIds
from workers.forward.state import ffi

_header = struct.Struct("!HHI4s").pack


@dataclass(frozen=True, slots=True)
class SoundParameters:
    """What offer and answer agreed on for the sound."""

    ssrc: int
    payload_type: int
    extensions: ExtensionIds
    mid: str


class SoundOutlet:
    """What differs of a viewer's sound. Its encryption, its transport-wide numbers and where it goes are its outlet's.

    What a fan-out advances stands in `state`, a bc_sound (kernel.h), and only there. Nothing is sent again: sound that
    comes a round-trip late is of no use, and a browser covers the gap.
    """

    __slots__ = ("_overhead", "_reported", "_sdes", "extensions", "parameters", "state")

    def __init__(self, parameters: SoundParameters, cname: str, tag_size: int, randbelow: Callable[[int], int]) -> None:
        self.parameters = parameters
        self.extensions = ExtensionBlock(parameters.extensions, parameters.mid)
        self.state = state = ffi.new("bc_sound *")
        state.ssrc, state.payload_type = parameters.ssrc, parameters.payload_type
        block = self.extensions.at(0.0)
        state.extensions[0 : len(block)] = block
        state.extensions_size = self.extensions.size
        state.time_at, state.transport_at = self.extensions.time_at, self.extensions.transport_at
        # The lower half, as of the pictures.
        state.sequence = randbelow(32_768)
        self._sdes = rtcp.source_description(parameters.ssrc, cname)
        self._reported = (0, 0)
        self._overhead = HEADER_SIZE + self.extensions.size + tag_size

    @property
    def packets(self) -> int:
        return int(self.state.packets)

    @property
    def octets(self) -> int:
        """Of RTP payload."""
        return int(self.state.octets)

    @property
    def wire_octets(self) -> int:
        """Of RTP on the wire, with headers and tags."""
        return self.octets + self.packets * self._overhead

    def packet(self, sound: EncodedSound, wall: float) -> bytes:
        """The next packet, still unprotected and without its transport-wide number, as sent at `wall` seconds since
        1970."""
        state = self.state
        word = (0x9000 if self.extensions.present else 0x8000) | state.payload_type
        sequence, state.sequence = state.sequence & 0xFFFF, state.sequence + 1
        header = _header(word, sequence, sound.timestamp, self.parameters.ssrc.to_bytes(4, "big"))
        return header + self.extensions.at(wall) + sound.payload

    def report(self, now: float, clock: WallClock) -> bytes | None:
        """The sender report that is due at the monotonic time `now`; None when nothing has left since the one before
        the last. The moment that it dates is told as for the pictures, which is what players sync both by.
        """
        packets = self.packets
        if packets == self._reported[0]:
            return None
        self._reported = (self._reported[1], packets)
        return rtcp.sender_report(
            self.parameters.ssrc,
            clock.ntp(now),
            sound_timestamp_at(clock.wall(now)),
            packets=packets,
            octets=self.octets,
            description=self._sdes,
        )
