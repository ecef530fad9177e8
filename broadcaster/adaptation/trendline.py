"""Trendline: whether the queue in front of a viewer grows, from how long packets take to arrive."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

Usage = Literal["normal", "over", "under"]


@dataclass(frozen=True, slots=True)
class TrendlineSettings:
    """The detector of Google Congestion Control (draft-ietf-rmcat-gcc-02 section 5; the linear trend instead of the
    Kalman filter and its gains as libwebrtc has them).

    `window` delays of at most `span` seconds make the line; each is smoothed by `smoothing`. The trend, times the
    number of delays (at most `full`) times `gain`, is held against a threshold in milliseconds that adapts: it starts
    at `threshold`, keeps within `lowest` and `highest`, and moves by `up` or `down` towards what it sees, per
    millisecond of at most `longest_step`; what exceeds it by more than `outlier` does not move it. Above the threshold
    for `overuse` seconds and not falling, the queue grows.
    """

    window: int = 20
    span: float = 1.0
    smoothing: float = 0.7
    gain: float = 4.0
    full: int = 60
    threshold: float = 12.5
    lowest: float = 6.0
    highest: float = 600.0
    up: float = 0.0087
    down: float = 0.039
    longest_step: float = 0.1
    outlier: float = 15.0
    overuse: float = 0.01


class Trendline:
    """Fed with one delay for each group of packets that left together."""

    def __init__(self, settings: TrendlineSettings | None = None) -> None:
        self._settings = settings or TrendlineSettings()
        self._points: deque[tuple[float, float]] = deque(maxlen=self._settings.window)
        self._count = 0
        self._smoothed = 0.0
        self._threshold = self._settings.threshold
        self._trend = 0.0
        self._over_for = 0.0
        self._overs = 0
        self.usage: Usage = "normal"

    def update(self, arrived: float, delay: float) -> Usage:
        """`arrived` in seconds of any clock, not before the last call's; `delay` in seconds from any zero."""
        settings, points = self._settings, self._points
        if self._count == 0:
            self._smoothed = delay
        self._count += 1
        self._smoothed = settings.smoothing * self._smoothed + (1.0 - settings.smoothing) * delay
        step = arrived - points[-1][0] if points else 0.0
        points.append((arrived, self._smoothed))
        while arrived - points[0][0] > settings.span:
            points.popleft()
        slope = _slope(points)
        trend = slope * min(self._count, settings.full) * settings.gain
        self._detect(trend, step)
        self._adapt(trend, step)
        return self.usage

    def _detect(self, trend: float, step: float) -> None:
        if trend > self._threshold:
            self._over_for = self._over_for + step if self._overs else step / 2.0
            self._overs += 1
            if self._over_for > self._settings.overuse and self._overs > 1 and trend >= self._trend:
                self._over_for = 0.0
                self._overs = 0
                self.usage = "over"
        else:
            self._over_for = 0.0
            self._overs = 0
            self.usage = "under" if trend < -self._threshold else "normal"
        self._trend = trend

    def _adapt(self, trend: float, step: float) -> None:
        settings, size = self._settings, abs(trend)
        if size > self._threshold + settings.outlier:
            return
        gain = settings.down if size < self._threshold else settings.up
        moved = self._threshold + gain * (size - self._threshold) * 1000.0 * min(step, settings.longest_step)
        self._threshold = min(settings.highest, max(settings.lowest, moved))


def _slope(points: deque[tuple[float, float]]) -> float:
    """Of the line through the points with the least squares; 0 while there are too few."""
    count = len(points)
    if count < 2:
        return 0.0
    origin = points[0][0]
    sum_x = sum_y = 0.0
    for x, y in points:
        sum_x += x - origin
        sum_y += y
    mean_x, mean_y = sum_x / count, sum_y / count
    numerator = denominator = 0.0
    for x, y in points:
        distance = x - origin - mean_x
        numerator += distance * (y - mean_y)
        denominator += distance * distance
    return numerator / denominator if denominator > 0.0 else 0.0
