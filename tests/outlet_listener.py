"""What an outlet tells its forwarder, written down."""

from __future__ import annotations

from tests.rtp_viewer import RtpViewer
from workers.forward.history import LostPacket
from workers.forward.outlet import Outlet

NOW = 1000.0


class Listener:
    def __init__(self) -> None:
        self.keyframes = 0
        self.patient: list[bool] = []
        self.resent: list[LostPacket] = []

    def keyframe_needed(self, outlet: Outlet, patient: bool) -> None:
        self.keyframes += 1
        self.patient.append(patient)

    def resend(self, outlet: Outlet, lost: list[LostPacket]) -> None:
        self.resent += lost


def listening(viewer: RtpViewer) -> Listener:
    listener = Listener()
    viewer.outlet.listener = listener
    return listener
