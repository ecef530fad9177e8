"""SoundOutlet: one viewer's sound, which leaves beside its pictures through the same outlet (RFC 7587)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from broadcaster.stream import EncodedSound, sound_timestamp_at
from workers.forward.agreement import SoundParameters
from workers.forward.packets import HEADER_SIZE, ExtensionBlock
from workers.forward.reports import SenderReports
from workers.forward.state import begin_stream, ffi

_header = struct.Struct("!HHI4s").pack


class SoundOutlet:
    """What differs of a viewer's sound. Its encryption, its transport-wide numbers and where it goes are its outlet's.

    What a fan-out advances stands in `state`, a bc_sound (kernel.h), and only there. Nothing is sent again: sound that
    comes a round-trip late is of no use, and a browser covers the gap.
    """

    __slots__ = ("_overhead", "extensions", "parameters", "reports", "state")

    def __init__(self, parameters: SoundParameters, cname: str, tag_size: int, randbelow: Callable[[int], int]) -> None:
        self.parameters = parameters
        self.extensions = ExtensionBlock(parameters.extensions, parameters.mid)
        self.state = ffi.new("bc_sound *")
        begin_stream(self.state, parameters.ssrc, parameters.payload_type, self.extensions, randbelow)
        self.reports = SenderReports(self.state, cname, sound_timestamp_at)
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
