"""From encoded frames to protected packets: packetised once per rung, rewritten per viewer; and the RTCP back."""

from workers.forward.agreement import OutletParameters, SoundParameters
from workers.forward.fanout import Audience, Fanout, PythonFanout
from workers.forward.feedback import Feedback
from workers.forward.forwarder import Forwarder, ForwarderSettings, FrameSelector
from workers.forward.history import HistoryLimits
from workers.forward.native import NativeFanout, default_fanout
from workers.forward.outlet import Outlet, OutletSettings
from workers.forward.packets import ExtensionIds

__all__ = [
    "Audience",
    "ExtensionIds",
    "Fanout",
    "Feedback",
    "Forwarder",
    "ForwarderSettings",
    "FrameSelector",
    "HistoryLimits",
    "NativeFanout",
    "Outlet",
    "OutletParameters",
    "OutletSettings",
    "PythonFanout",
    "SoundParameters",
    "default_fanout",
]
