"""The rules: what counts as high loss, as low RTT, as room for more. Small pure functions, used by all that adapt."""

from __future__ import annotations

from dataclasses import dataclass

from broadcaster.adaptation.samples import Sample


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The lines that measurements are held against.

    - `loss_high`, `loss_low`: fractions; above 5 % quality goes down, below 2 % it may come back (Google Congestion
      Control draws its lines at 10 % and 2 %, draft-ietf-rmcat-gcc-02 section 6, but it adapts only a bitrate).
    - `loss_minimal`: at most this, so that more may be tried. `loss_severe`: fewer frames will not help any more.
    - `rtt_high`, `rtt_low`: seconds. ITU-T G.114 finds 150 ms one way (300 ms there and back) good for talking.
    - `rtt_bloat`: a high RTT means a queue only at this many times the lowest RTT of the path, and
    - `rtt_calm`: an RTT within this many times the lowest one is as low as it gets, also over a satellite.
    - `estimate_low`: the share of what is needed below which the estimate says that the path is too narrow. REMB dips
      to 0.85 of what arrives at the first sign of a queue (draft-ietf-rmcat-gcc-02 section 5.5), hence not closer to 1.
    - `estimate_fit`: the share of the estimate that a new bitrate may use.
    - `estimate_room`: how many times what is sent the estimate must be before more is tried. REMB plateaus
      at 1.5 (aiortc) to 1.6 (Chromium) times the received rate, so a higher line would never be reached.
    """

    loss_high: float = 0.05
    loss_low: float = 0.02
    loss_minimal: float = 0.01
    loss_severe: float = 0.2
    rtt_high: float = 0.3
    rtt_low: float = 0.15
    rtt_bloat: float = 2.0
    rtt_calm: float = 1.5
    estimate_low: float = 0.85
    estimate_fit: float = 0.9
    estimate_room: float = 1.4


DEFAULT_THRESHOLDS = Thresholds()


def loss_is_high(sample: Sample, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> bool:
    return sample.packet_loss is not None and sample.packet_loss > thresholds.loss_high


def loss_is_low(sample: Sample, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> bool:
    return sample.packet_loss is not None and sample.packet_loss < thresholds.loss_low


def loss_is_minimal(sample: Sample, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> bool:
    return sample.packet_loss is not None and sample.packet_loss <= thresholds.loss_minimal


def rtt_is_high(sample: Sample, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> bool:
    """Whether a queue stands in the path: an RTT that is high, and high for this path too where its lowest is known."""
    if sample.rtt is None or sample.rtt <= thresholds.rtt_high:
        return False
    return sample.rtt_min is None or sample.rtt > sample.rtt_min * thresholds.rtt_bloat


def rtt_is_low(sample: Sample, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> bool:
    if sample.rtt is None:
        return False
    if sample.rtt < thresholds.rtt_low:
        return True
    return sample.rtt_min is not None and sample.rtt <= sample.rtt_min * thresholds.rtt_calm


def estimate_is_low(sample: Sample, nominal: float, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> bool:
    """Whether the path carries less than what is needed: `nominal` bit/s, or what is really sent where that is less
    (an easy picture needs less than its encoder may use, and REMB never rises far above what arrives)."""
    return sample.estimate is not None and sample.estimate < thresholds.estimate_low * _needed(sample, nominal)


def estimate_has_room(sample: Sample, nominal: float, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> bool:
    """Whether nothing speaks against sending more than `nominal` bit/s; an unknown estimate does not."""
    return sample.estimate is None or sample.estimate >= thresholds.estimate_room * _needed(sample, nominal)


def estimate_fits(sample: Sample, bitrate: float, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> bool:
    """Whether the estimate is known to carry `bitrate` bit/s."""
    return sample.estimate is not None and bitrate <= sample.estimate * thresholds.estimate_fit


def _needed(sample: Sample, nominal: float) -> float:
    return nominal if sample.sent_bitrate is None else min(nominal, sample.sent_bitrate)


def should_reduce(sample: Sample, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> bool:
    """High loss or high RTT: less should be sent."""
    return loss_is_high(sample, thresholds) or rtt_is_high(sample, thresholds)


def should_increase(sample: Sample, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> bool:
    """Minimal loss and low RTT, both known: more may be sent."""
    return loss_is_minimal(sample, thresholds) and rtt_is_low(sample, thresholds)
