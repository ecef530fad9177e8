"""OverloadMeter: whether this process keeps up, told apart from what the viewers' networks do. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from broadcaster.adaptation.smoothing import Hold


@dataclass(frozen=True, slots=True)
class OverloadSettings:
    """A worker is overloaded when its event loop has been late by more than `late` seconds, or has dropped more than
    `dropped` of its packets at its own sockets, at every look for `sheds` seconds; and no longer when it was late by
    less than `prompt` and has dropped nothing for `recovers` seconds. Like Jitsi's, which sheds at a load of 0.9 and
    recovers at 0.72, the two lie apart, so that relief does not bring the overload back.
    """

    late: float = 0.05
    dropped: float = 0.01
    sheds: float = 2.0
    prompt: float = 0.015
    recovers: float = 10.0


class OverloadMeter:
    """Looks at the loop's lateness and the kernel's drops, about once a second."""

    def __init__(self, settings: OverloadSettings | None = None) -> None:
        self._settings = settings or OverloadSettings()
        self._strained, self._easy = Hold(), Hold()
        self._counts: Mapping[str, tuple[int, int]] = {}
        self.overloaded = False
        self.lag = 0.0
        """Seconds by which the last look was late."""

    def update(self, now: float, *, lag: float, counts: Mapping[str, tuple[int, int]]) -> bool:
        """`lag` in seconds; of each viewer the packets that left and those that did not, since its start. Whether it is
        overloaded.

        Viewers come and go, so each is compared with itself; and one to which nothing left at all cannot be reached,
        which is no fault of ours.
        """
        settings = self._settings
        before, self._counts, self.lag = self._counts, counts, lag
        sent = lost = 0
        for viewer, (packets, drops) in counts.items():
            earlier = before.get(viewer)
            if earlier is not None and packets > earlier[0]:
                sent += packets - earlier[0]
                lost += max(0, drops - earlier[1])
        strained = lag > settings.late or lost > settings.dropped * (sent + lost)
        easy = lag < settings.prompt and not lost
        if self._strained.seconds(now, strained) >= settings.sheds:
            self.overloaded = True
        if self._easy.seconds(now, easy) >= settings.recovers:
            self.overloaded = False
        return self.overloaded
