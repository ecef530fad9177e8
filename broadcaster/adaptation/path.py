"""PathState: what is believed of the path to one viewer, whoever measured it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class PathState:
    """None is unknown. Bitrates count octets of RTP on the wire (header, extensions, tag), in bit/s; times are seconds.

    `estimate` is what the path has shown to carry; it never grows on what was not sent. `throughput` is what
    arrives now. `capacity` is how fast bursts come through, which is a hint of what the path may carry at most.
    `queue_delay` is how much longer packets take than at the best of the last minute. `congested`: the queue grows,
    or more is lost than the path always loses; `sinking`: it grows so steadily that the path has become narrower.
    `loss` is the fraction (0 to 1) that did not arrive lately and `excess_loss` what of it the rate explains.
    `silent` is for how long nothing was heard although something was sent. `measured` counts up with every
    measurement that arrived. `follows` is how long the estimate takes to rise to what is sent, and `times_bursts`
    says whether `capacity` can ever be known.

    Nobody changes one. Not to enforce that makes it four times as fast to make, which happens at each feedback during a
    probe.
    """

    estimate: float | None = None
    throughput: float | None = None
    capacity: float | None = None
    queue_delay: float | None = None
    congested: bool = False
    sinking: bool = False
    loss: float | None = None
    excess_loss: float | None = None
    rtt: float | None = None
    silent: float = 0.0
    measured: int = 0
    follows: float = 0.6
    times_bursts: bool = True
