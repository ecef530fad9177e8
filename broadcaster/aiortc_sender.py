"""The one private touch of aiortc in this package: the encoder of a running RTCRtpSender.

aiortc gives no public way to a sender's encoder, nor to the REMB that it feeds to it. So a governor is put between
the two: it sees each REMB, and bounds the encoder's target by it and by what was asked for. A contract test fails
when aiortc renames what is used here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiortc.codecs.base import Encoder

if TYPE_CHECKING:
    from aiortc import RTCRtpSender
    from av.frame import Frame
    from av.packet import Packet

ENCODER = "_RTCRtpSender__encoder"
"""Where aiortc 1.16 keeps a sender's encoder; None before the first frame and after the last."""


class EncoderGovernor(Encoder):
    """An encoder whose target is the lower of REMB and `ceiling`.

    Left alone it behaves as aiortc does: the target is the last REMB. Once a `ceiling` is set, it lasts: REMB lowers
    the target below it and lets it come back to it, never above. The encoder clamps to bounds of its own (aiortc's
    VP8: 0.25 to 1.5 Mbit/s, H.264: 0.5 to 3) and opens its codec anew, with a keyframe, when the target has moved by
    more than 10 %.
    """

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self._ceiling: int | None = None
        self.estimate: int | None = None
        """The last REMB in bit/s; None before the first."""

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        encoded: tuple[list[bytes], int] = self._encoder.encode(frame, force_keyframe)
        return encoded

    def pack(self, packet: Packet[Any]) -> tuple[list[bytes], int]:
        packed: tuple[list[bytes], int] = self._encoder.pack(packet)
        return packed

    @property
    def target_bitrate(self) -> int:
        """What the encoder aims at, in bit/s."""
        return int(self._encoder.target_bitrate)

    @target_bitrate.setter
    def target_bitrate(self, remb: int) -> None:
        self.estimate = remb
        self._encoder.target_bitrate = remb if self._ceiling is None else min(remb, self._ceiling)

    def limit(self, ceiling: int) -> int:
        """Aim at `ceiling` bit/s or at the last REMB, whichever is lower; returns what the encoder made of it."""
        self._encoder.target_bitrate = ceiling if self.estimate is None else min(ceiling, self.estimate)
        self._ceiling = max(ceiling, self.target_bitrate)
        return self.target_bitrate


def governor(sender: RTCRtpSender) -> EncoderGovernor | None:
    """The governor of the sender's encoder, put there at the first call.

    None while there is no encoder (nothing was sent yet, or the sender has stopped), or one without a bitrate.
    """
    encoder = getattr(sender, ENCODER, None)
    if isinstance(encoder, EncoderGovernor):
        return encoder
    if encoder is None or not hasattr(encoder, "target_bitrate"):
        return None
    found = EncoderGovernor(encoder)
    setattr(sender, ENCODER, found)
    return found
