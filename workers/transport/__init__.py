"""The worker's transport: one port, ICE-lite, DTLS, and the guard against strangers."""

from workers.transport.addresses import Candidate
from workers.transport.dtls import SrtpKeys
from workers.transport.endpoint import Endpoint
from workers.transport.mux import TransportSettings
from workers.transport.path import Path
from workers.transport.peer import PeerTransport
from workers.transport.statistics import Statistics

__all__ = ["Candidate", "Endpoint", "Path", "PeerTransport", "SrtpKeys", "Statistics", "TransportSettings"]
