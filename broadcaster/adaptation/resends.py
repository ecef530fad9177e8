"""Resends: how lost packets of one viewer should be sent again, by what took them."""

from __future__ import annotations

from dataclasses import dataclass

from broadcaster.adaptation.path import PathState


@dataclass(frozen=True, slots=True)
class ResendSettings:
    """`copies`: where chance takes more than these shares of all packets, lost ones are sent again twice, thrice."""

    copies: tuple[float, ...] = (0.004, 0.03)


class Resends:
    """Pure. `tight` says that the path has no room for what was lost, or next to none."""

    def __init__(self, settings: ResendSettings) -> None:
        self._settings = settings
        self._chance = 0.0
        self._loses = False
        self.tight = False

    @property
    def copies(self) -> int:
        """How often a lost packet should be sent again at once, so that its resend is not lost too: more where chance
        takes many, for a picture that waits for a second resend stands still."""
        return 1 if self._loses else 1 + sum(self._chance >= line for line in self._settings.copies)

    def see(self, path: PathState, *, loses: bool, probing: bool, of_probe: bool) -> None:
        """Take what is lost now: whether it is for the rate, as far as this update has found, whether a probe runs or
        is awaited, and whether one is over that took it and left no queue. Then there is room again, and neither then
        nor meanwhile can be told what chance takes.
        """
        self._loses = loses
        self.tight = (path.congested or loses) and not of_probe
        if not probing and not of_probe:
            self._chance = 0.0 if path.congested else max(0.0, (path.loss or 0.0) - (path.excess_loss or 0.0))
