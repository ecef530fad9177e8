"""What Prometheus reads at /metrics: its text format 0.0.4, which is small enough to write by hand."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping

from aiohttp import hdrs, web

from broadcaster.bus import Registry
from gateway.problems import Handler, loggable

log = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds in seconds of the WHEP answer times: from one quick worker to two slow ones."""

Sample = tuple[str, Mapping[str, str], float]
"""A suffix of the family's name, the labels, the value."""


def escaped(label: str) -> str:
    """A label's value as it stands between quotes."""
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> str:
    """One metric family: HELP, TYPE and a line for each sample."""
    escaped_text = text.replace("\\", r"\\").replace("\n", r"\n")
    lines = [f"# HELP {name} {escaped_text}", f"# TYPE {name} {kind}"]
    for suffix, labels, value in samples:
        inner = ",".join(f'{key}="{escaped(label)}"' for key, label in labels.items())
        lines.append(f"{name}{suffix}{{{inner}}} {value:.10g}" if inner else f"{name}{suffix} {value:.10g}")
    return "\n".join(lines) + "\n"


class Histogram:
    """Counts of observed seconds by bucket."""

    def __init__(self, bounds: tuple[float, ...] = BUCKETS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        for index, bound in enumerate(self._bounds):
            if value <= bound:
                self._counts[index] += 1
                break
        else:
            self._counts[-1] += 1
        self._sum += value

    def samples(self) -> list[Sample]:
        """Cumulative buckets, sum and count."""
        samples: list[Sample] = []
        total = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            samples.append(("_bucket", {"le": "+Inf" if bound == float("inf") else f"{bound:g}"}, total))
        return [*samples, ("_sum", {}, self._sum), ("_count", {}, total)]


class Metrics:
    """What this gateway counts itself; streams, viewers and workers come from the registry when asked."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._answers = Histogram()

    def answered(self, seconds: float) -> None:
        """A WHEP POST was answered with a session."""
        self._answers.observe(seconds)

    def requested(self, route: str, method: str, status: int) -> None:
        """An HTTP request was answered. `route` is the pattern, never the path: paths are the players' to choose."""
        self._requests[route, method if method in hdrs.METH_ALL else "other", status] += 1

    def text(self, registry: Registry) -> str:
        streams = [living.lease for _, living in sorted(registry.streams.items())]
        workers = [living.lease for _, living in sorted(registry.workers.items())]
        return "".join(
            (
                family("beamcast_registry_fresh", "gauge", "1 while Redis answers.", [("", {}, registry.fresh)]),
                family(
                    "beamcast_registry_age_seconds",
                    "gauge",
                    "Time since the registry was read.",
                    [("", {}, registry.age)],
                ),
                family("beamcast_streams", "gauge", "Streams on the air.", [("", {}, len(streams))]),
                family(
                    "beamcast_stream_live",
                    "gauge",
                    "1 while the source delivers, 0 while a slate stands in.",
                    [("", {"stream": stream.name}, stream.live) for stream in streams],
                ),
                family(
                    "beamcast_viewers",
                    "gauge",
                    "Viewers by stream and worker.",
                    [
                        ("", {"stream": stream, "worker": worker.id}, viewers)
                        for worker in workers
                        for stream, viewers in sorted(worker.streams.items())
                    ],
                ),
                family(
                    "beamcast_worker_capacity",
                    "gauge",
                    "Viewers that a worker takes.",
                    [("", {"worker": worker.id}, worker.capacity) for worker in workers],
                ),
                family(
                    "beamcast_worker_ready",
                    "gauge",
                    "1 while a worker takes viewers, 0 while it drains.",
                    [("", {"worker": worker.id}, worker.state == "ready") for worker in workers],
                ),
                family(
                    "beamcast_worker_lease_age_seconds",
                    "gauge",
                    "Time since a worker renewed its lease.",
                    [
                        ("", {"worker": name}, living.age + registry.age)
                        for name, living in sorted(registry.workers.items())
                    ],
                ),
                family(
                    "beamcast_http_requests_total",
                    "counter",
                    "HTTP requests by route, method and status.",
                    [
                        ("", {"route": route, "method": method, "status": str(status)}, count)
                        for (route, method, status), count in sorted(self._requests.items())
                    ],
                ),
                family(
                    "beamcast_whep_answer_seconds",
                    "histogram",
                    "Time from a WHEP offer to its answer.",
                    self._answers.samples(),
                ),
            )
        )

    @web.middleware
    async def observe(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The outermost middleware: it counts every request, and logs it at debug level."""
        began = time.perf_counter()
        status = 499  # the player hung up before there was an answer
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            resource = request.match_info.route.resource
            route = "unmatched" if resource is None else resource.canonical
            self.requested(route, request.method, status)
            elapsed = 1000 * (time.perf_counter() - began)
            log.debug("%s %s %d %.1f ms", request.method, loggable(request), status, elapsed)
