"""What a port has seen and dropped."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Statistics:
    """Counters since the start."""

    datagrams: int = 0
    """Everything that came in."""
    checks: int = 0
    """Authentic STUN checks."""
    strangers: int = 0
    """From addresses without an authentic check, or STUN for nobody here."""
    bad_auth: int = 0
    """STUN with a ufrag of ours and a wrong MESSAGE-INTEGRITY."""
    malformed: int = 0
    """Empty, too large, or not what its first byte promises."""
    replayed: int = 0
    """Authentic checks that were seen before, from a new address."""
    takeovers: int = 0
    """Checks from an address that belongs to another peer."""
    dtls_dropped: int = 0
    """Datagrams from viewers without a DTLS record that may pass, or too many with one."""
    media_dropped: int = 0
    """RTP from viewers, or RTCP before there are keys."""
    sends_dropped: int = 0
    tcp_refused: int = 0
    """TCP connections that were hung up because of their number or their silence."""
