"""What offer and answer agreed on for one viewer."""

from __future__ import annotations

from dataclasses import dataclass

from workers.forward.packets import ExtensionIds


@dataclass(frozen=True, slots=True)
class SoundParameters:
    """Of its sound."""

    ssrc: int
    payload_type: int
    extensions: ExtensionIds
    mid: str


@dataclass(frozen=True, slots=True)
class OutletParameters:
    """Of its pictures, and of what comes with them. `rtx_payload_type` is None where the viewer cannot take
    retransmissions, `sound` where it gets none."""

    ssrc: int
    rtx_ssrc: int
    payload_type: int
    rtx_payload_type: int | None
    extensions: ExtensionIds
    mid: str
    cname: str
    sound: SoundParameters | None = None
