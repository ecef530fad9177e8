"""Interleaving: an input's packets in an order in which sound is there before the pictures that it belongs to.

Containers mix both as they like. A reader that waits because its pictures are not due yet must have read the sound of
this moment before, or there would be gaps. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class InterleavingConfig:
    """Seconds. Sound comes `lead` before the pictures. These wait for sound until there are `pictures` of them: where
    the two lie further apart, or the sound has ended, sound is late and pictures are not. Sound waits for the next
    picture, as in a slide show, until there are `sounds` of it."""

    lead: float = 0.25
    pictures: float = 3.0
    sounds: float = 30.0


class Packet(Protocol):
    """What PyAV's packets tell; times are None where the container does not."""

    @property
    def pts(self) -> int | None: ...

    @property
    def dts(self) -> int | None: ...

    @property
    def time_base(self) -> Fraction | None: ...

    @property
    def stream_index(self) -> int: ...


P = TypeVar("P", bound=Packet)


class _Waiting(deque[tuple[float, P]]):
    """Packets of one kind, each with its time."""

    last = 0.0

    def put(self, packet: P) -> None:
        ticks = packet.pts if packet.dts is None else packet.dts
        if ticks is not None and packet.time_base is not None:
            self.last = float(ticks * packet.time_base)
        self.append((self.last, packet))

    @property
    def span(self) -> float:
        return self[-1][0] - self[0][0] if self else 0.0


def sound_ahead(packets: Iterable[P], sound: int, config: InterleavingConfig | None = None) -> Iterator[P]:
    """The packets of one round of an input in their new order; those with the stream index `sound` are its sound.

    Sound that goes on for longer than `lead` after the last picture is left out: the next round begins there.
    """
    config = config or InterleavingConfig()
    pictures: _Waiting[P] = _Waiting()
    sounds: _Waiting[P] = _Waiting()
    for packet in packets:
        (sounds if packet.stream_index == sound else pictures).put(packet)
        while (pictures and sounds) or pictures.span > config.pictures or sounds.span > config.sounds:
            yield _first(pictures, sounds, config.lead)
    while pictures or sounds:
        if not pictures and sounds[0][0] - config.lead > pictures.last:
            return
        yield _first(pictures, sounds, config.lead)


def _first(pictures: _Waiting[P], sounds: _Waiting[P], lead: float) -> P:
    heard = bool(sounds) and (not pictures or sounds[0][0] - lead <= pictures[0][0])
    return (sounds if heard else pictures).popleft()[1]
