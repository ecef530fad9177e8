"""Temporal layers: which frame of an encoding belongs to which layer, and where a viewer may climb."""

from __future__ import annotations

from dataclasses import dataclass

from broadcaster.errors import EncoderError
from broadcaster.stream import LAYER_SHARES


@dataclass(frozen=True, slots=True)
class LayerPattern:
    """A periodic pattern of libvpx. Slot 0 is the keyframe, and the period starts anew at every keyframe.

    `layers` gives each slot's layer. From a slot in `sync` on, all frames up to its layer decode although the frames
    of that layer before it were never received (the Y bit, RFC 7741 section 4.2). `mode` is libvpx's number of the
    pattern, `decimators` the share of the full rate of layers 0..n.
    """

    layers: tuple[int, ...]
    sync: frozenset[int]
    mode: int
    decimators: tuple[int, ...]

    @property
    def count(self) -> int:
        return len(self.decimators)

    def layer(self, since_keyframe: int) -> int:
        """The layer of the frame that is `since_keyframe` frames behind the last keyframe."""
        return self.layers[since_keyframe % len(self.layers)]

    def is_sync(self, since_keyframe: int) -> bool:
        """Whether a viewer may climb to this frame's layer here; always true of a keyframe."""
        return since_keyframe == 0 or since_keyframe % len(self.layers) in self.sync

    def parameters(self, bitrate: int) -> str:
        """libvpx's `ts-parameters` for `bitrate` bit/s; the mode comes last, because it overrides what precedes."""
        targets = ",".join(str(int(bitrate * share / 1000)) for share in LAYER_SHARES[self.count])
        decimators = ",".join(map(str, self.decimators))
        layer_ids = ",".join(map(str, self.layers))
        return (
            f"ts_number_layers={self.count}:ts_target_bitrate={targets}:ts_rate_decimator={decimators}:"
            f"ts_periodicity={len(self.layers)}:ts_layer_id={layer_ids}:ts_layering_mode={self.mode}"
        )


_PATTERNS = {
    1: LayerPattern((0,), frozenset(), 0, (1,)),
    2: LayerPattern((0, 1), frozenset({1}), 2, (2, 1)),
    3: LayerPattern((0, 2, 1, 2), frozenset({1, 2}), 3, (4, 2, 1)),
}


def layer_pattern(count: int) -> LayerPattern:
    """The pattern of `count` layers, 1 to 3; EncoderError for any other number."""
    if count not in _PATTERNS:
        raise EncoderError(f"{count} temporal layers cannot be encoded: use 1, 2 or 3")
    return _PATTERNS[count]
