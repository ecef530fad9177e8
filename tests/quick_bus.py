"""A bus that renews, looks and gives up quickly, and what is sent over it."""

from __future__ import annotations

from broadcaster.bus import BusSettings
from broadcaster.bus.messages import SessionRecord, Stats

QUICK = BusSettings(
    lease_ttl=0.6, renew_every=0.1, refresh_every=0.05, fresh_for=0.3, tick=0.01, command_timeout=0.5, ping_every=0.1,
    silence=0.5, first_delay=0.02, longest_delay=0.1, session_ttl=1.0,
)  # fmt: skip

STATS = Stats(
    fps=30.0, rung="720p", bitrate=2_400_000, packet_loss=0.0, rtt=0.021, jitter=0.002, estimate=4_000_000,
    bytes_sent=123_456_789, packets_sent=120_000, packets_lost=3, nacks=2, retransmissions=2, plis=1,
)  # fmt: skip

SESSION = SessionRecord(worker="worker-1", stream="main", viewer="v-5f3a", since=1767225600.0)
