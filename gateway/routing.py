"""Which worker takes the next viewer: pure, told the time and the leases, so that a burst of joins can be replayed.

A lease is a second old on average, and a hundred players may come back within that second, when their worker died.
So the router counts its own assignments on top of each lease until a renewal must contain them, and keeps away from a
worker that refused or did not answer until that worker has renewed its lease.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """Tunables. A lease is renewed every second: at `late` seconds of age a renewal is a second overdue."""

    late: float = 2.0
    remembered: float = 600.0
    """Seconds for which a stream that went off the air is told apart from one that never was."""
    names: int = 1000
    """Streams remembered at most."""
    settling: float = 30.0
    """Seconds for the first stream to come on the air, after the gateway did."""


DEFAULT_ROUTING = RoutingSettings()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker as its lease shows it: the lease's `age` in seconds, and whether it `carries` the viewer's stream."""

    id: str
    ready: bool
    age: float
    viewers: int
    capacity: int
    carries: bool


@dataclass(slots=True, eq=False)
class Assignment:
    """A viewer given to a worker. It weighs on that worker from now on; `joined` is when the worker accepted it."""

    worker: str
    joined: float | None = None


class Router:
    """The fewest viewers per capacity win; then the worker that carries the stream already; then the lowest id."""

    def __init__(self, settings: RoutingSettings = DEFAULT_ROUTING) -> None:
        self._settings = settings
        self._assigned: dict[str, list[Assignment]] = {}
        self._avoided: dict[str, float] = {}

    def assign(self, now: float, workers: Iterable[Candidate], *, tried: frozenset[str] = frozenset()) -> Assignment:
        """Choose a worker that is not in `tried`, and count the viewer on it.

        Full is only who says so in the lease, whatever was assigned since: some may have left again, and a worker
        itself knows best. Raises LookupError when no worker can take one.
        """
        known = list(workers)
        self._forget({worker.id: now - worker.age for worker in known})
        best: tuple[float, bool, str] | None = None
        for worker in known:
            full = worker.viewers >= worker.capacity
            if full or not self.usable(worker) or worker.id in tried or worker.id in self._avoided:
                continue
            viewers = worker.viewers + len(self._assigned.get(worker.id, ()))
            rank = (viewers / worker.capacity, not worker.carries, worker.id)
            best = rank if best is None else min(best, rank)
        if best is None:
            raise LookupError("no worker can take a viewer")
        assignment = Assignment(best[2])
        self._assigned.setdefault(assignment.worker, []).append(assignment)
        return assignment

    def usable(self, worker: Candidate) -> bool:
        """Whether the worker serves viewers, though it may be full, and its lease is on time."""
        return worker.ready and worker.age < self._settings.late

    def joined(self, assignment: Assignment, now: float) -> None:
        """The worker accepted the viewer: the next renewal of its lease contains it."""
        assignment.joined = now

    def withdraw(self, assignment: Assignment) -> None:
        """The viewer did not join, and the worker is not to blame."""
        self._assigned[assignment.worker].remove(assignment)

    def refused(self, assignment: Assignment, now: float) -> None:
        """The worker is full, draining or silent: avoid it until its next renewal says more."""
        self.withdraw(assignment)
        self._avoided[assignment.worker] = now

    def _forget(self, renewed: dict[str, float]) -> None:
        """Drop what the leases, renewed at the given times, contain by now. Viewers on their way always count."""
        for worker, assignments in self._assigned.items():
            at = renewed.get(worker, float("inf"))
            assignments[:] = [entry for entry in assignments if entry.joined is None or entry.joined >= at]
        self._assigned = {worker: entries for worker, entries in self._assigned.items() if entries}
        self._avoided = {
            worker: since for worker, since in self._avoided.items() if since >= renewed.get(worker, float("inf"))
        }


class RecentStreams:
    """The streams that were on the air lately, so that a player learns to wait (409) rather than to give up (404)."""

    def __init__(self, started: float, settings: RoutingSettings = DEFAULT_ROUTING) -> None:
        self._settings = settings
        self._started = started
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._none_yet = True

    def note(self, names: Iterable[str], now: float) -> None:
        """These streams, and no others, are on the air now."""
        for name in names:
            self._seen[name] = now
            self._seen.move_to_end(name)
            self._none_yet = False
        while len(self._seen) > self._settings.names:
            self._seen.popitem(last=False)
        while self._seen and next(iter(self._seen.values())) < now - self._settings.remembered:
            self._seen.popitem(last=False)

    def awaited(self, name: str, now: float) -> bool:
        """Whether a stream that is off the air may come on again.

        That holds for every name while this gateway is young and has seen no stream at all: then the whole house was
        just started, and a page that was left open must not hear that its stream does not exist.
        """
        if self._none_yet and now - self._started < self._settings.settling:
            return True
        return now - self._seen.get(name, float("-inf")) <= self._settings.remembered
