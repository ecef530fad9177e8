"""The types of everything that crosses Redis, as msgpack maps with string keys.

Leases say who is alive, calls go from a gateway to one worker and back, events tell subscribers what happened.
The AsyncAPI document is generated from these types, and golden bytes in the tests pin their encoding.
"""

from __future__ import annotations

import time
from typing import Any, Literal, TypeVar

import msgspec

from broadcaster.errors import MessageError

VERSION = 1
PREFIX = f"beamcast:v{VERSION}:"
CLUSTER = "_cluster"
"""The channel of events that concern no stream (workers coming and going); no stream can bear this name."""

WorkerState = Literal["ready", "draining"]
EventType = Literal["adaptation", "joined", "connected", "left", "up", "draining", "lost", "stats"]


def key(*parts: str) -> str:
    """A Redis key or channel of ours: `key("worker", "w-1")` is `beamcast:v1:worker:w-1`."""
    return PREFIX + ":".join(parts)


def new_epoch() -> int:
    """The fencing token of a run that starts now: microseconds since 1970, exact even as a JavaScript number."""
    return time.time_ns() // 1000


_T = TypeVar("_T", bound=msgspec.Struct)

encode = msgspec.msgpack.Encoder().encode
"""A message of ours as msgpack bytes."""


def decode(payload: bytes, kind: type[_T]) -> _T:
    """Read `payload` as a `kind`, else raise MessageError; fields that we do not know are skipped."""
    try:
        message = msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MessageError(f"{len(payload)} bytes are no {kind.__name__}: {error}") from None
    if getattr(message, "v", VERSION) != VERSION:
        raise MessageError(f"this {kind.__name__} has a version other than {VERSION}: update the older process")
    return message


# --- leases: who is alive --------------------------------------------------------------------------------------


class RungInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One rung as the registry shows it; `bitrate` in bit/s, `active` says whether it is being encoded now."""

    name: str
    width: int
    height: int
    fps: float
    bitrate: int
    layers: int
    active: bool = True


class WorkerLease(msgspec.Struct, kw_only=True):
    """A worker that is alive. `epoch` fences: a later run of the same id has a higher one."""

    id: str
    epoch: int
    pid: int
    host: str
    capacity: int
    viewers: int
    streams: dict[str, int]
    """Viewers by stream."""
    state: WorkerState
    udp_port: int
    since: float


class StreamLease(msgspec.Struct, kw_only=True):
    """A stream that is on the air. `link` lists the "host:port" addresses of its frame link."""

    name: str
    epoch: int
    pid: int
    host: str
    source: str
    live: bool
    """False while a slate stands in for the source."""
    link: list[str]
    fps: float
    rungs: list[RungInfo]
    since: float


class GatewayLease(msgspec.Struct, kw_only=True):
    """A gateway that is alive."""

    id: str
    epoch: int
    pid: int
    host: str
    url: str
    since: float


class SessionRecord(msgspec.Struct, kw_only=True):
    """Which worker holds a session; its key is the secret of the WHEP URL. Written by the worker alone."""

    worker: str
    stream: str
    viewer: str
    """The public id, the one in events and pages."""
    since: float


# --- calls: a gateway asks one worker ---------------------------------------------------------------------------

Method = Literal["offer", "patch", "leave", "viewers"]


class Call(msgspec.Struct, kw_only=True):
    """A request; the answer goes to the channel `reply_to`, and nobody waits for it after `deadline` seconds."""

    id: str
    method: Method
    params: dict[str, Any]
    reply_to: str
    deadline: float
    v: int = VERSION


class Failure(msgspec.Struct, kw_only=True):
    """An error of broadcaster.errors by its class name."""

    error: str
    detail: str


class Reply(msgspec.Struct, kw_only=True):
    id: str
    result: dict[str, Any] | None = None
    failure: Failure | None = None
    v: int = VERSION


class OfferParams(msgspec.Struct, kw_only=True):
    """`offer`: make a session for this SDP offer."""

    stream: str
    sdp: str


class OfferResult(msgspec.Struct, kw_only=True):
    secret: str
    viewer: str
    etag: str
    """The entity tag of the ICE session, without quotes."""
    sdp: str


class PatchParams(msgspec.Struct, kw_only=True):
    """`patch`: trickled candidates, or new ICE credentials for a restart (RFC 8840 fragment)."""

    secret: str
    if_match: str | None
    fragment: str


class PatchResult(msgspec.Struct, kw_only=True):
    """`fragment` is None after trickle, and the new local ICE parameters after a restart."""

    etag: str
    fragment: str | None = None


class LeaveParams(msgspec.Struct, kw_only=True):
    """`leave`: end a session; ending one that has ended already is SessionNotFoundError."""

    secret: str
    reason: str = "deleted"


class LeaveResult(msgspec.Struct, kw_only=True):
    viewer: str


class ViewersParams(msgspec.Struct, kw_only=True):
    """`viewers`: the viewers of one stream, or of all when None."""

    stream: str | None = None


class ViewerStatus(msgspec.Struct, kw_only=True):
    """One row of /api/viewers; rates in bit/s, times in seconds, `loss` a fraction. None: not known yet."""

    id: str
    worker: str
    stream: str
    state: str
    level: str | None
    """For example "720p30"."""
    fps: float | None
    bitrate: int | None
    loss: float | None
    rtt: float | None
    estimate: int | None
    since: float


class ViewersResult(msgspec.Struct, kw_only=True):
    viewers: list[ViewerStatus]


# --- events: what happened --------------------------------------------------------------------------------------


class Operating(msgspec.Struct, kw_only=True):
    """Where a viewer is or goes: `fps` frames per second, `rung` its name, `bitrate` in bit/s."""

    fps: float
    rung: str
    bitrate: int


class Probe(msgspec.Struct, kw_only=True):
    """A test of how much a path carries: `target` was sent in all and `reached` arrived, in bit/s."""

    target: int
    reached: int | None
    outcome: Literal["passed", "failed", "stopped"]


class Adaptation(msgspec.Struct, kw_only=True, rename={"from_": "from"}):
    """A decision, with all that led to it. `inputs` are the measurements, `thresholds` what they were held against,
    `estimate` what the path is believed to carry in bit/s, `probe` the last test of it; `reason` says it in plain
    words."""

    rule: str
    from_: Operating
    to: Operating
    inputs: dict[str, float | None]
    thresholds: dict[str, float]
    estimate: int | None = None
    probe: Probe | None = None
    reason: str = ""


class Joined(msgspec.Struct, kw_only=True):
    """A session was made."""

    worker: str
    user_agent: str | None = None


class Connected(msgspec.Struct, kw_only=True):
    """Media can flow; `elapsed` seconds after the offer."""

    elapsed: float


class Left(msgspec.Struct, kw_only=True):
    """A session ended; `reason` is one of deleted, closed, timeout, failed, stopped."""

    reason: str
    duration: float


class WorkerNotice(msgspec.Struct, kw_only=True):
    """Data of `up`, `draining` and `lost`."""

    worker: str
    host: str
    capacity: int
    viewers: int


class Stats(msgspec.Struct, kw_only=True):
    """One viewer, once a second. Octets and packets count since the viewer joined; see ViewerStatus for the units."""

    fps: float | None
    rung: str | None
    bitrate: int | None
    packet_loss: float | None
    rtt: float | None
    jitter: float | None
    estimate: int | None
    bytes_sent: int
    packets_sent: int
    packets_lost: int | None
    nacks: int
    retransmissions: int
    plis: int


EventData = Adaptation | Joined | Connected | Left | WorkerNotice | Stats

EVENT_DATA: dict[EventType, type[msgspec.Struct]] = {
    "adaptation": Adaptation,
    "joined": Joined,
    "connected": Connected,
    "left": Left,
    "up": WorkerNotice,
    "draining": WorkerNotice,
    "lost": WorkerNotice,
    "stats": Stats,
}


class Event(msgspec.Struct, kw_only=True):
    """The envelope of every event. `seq` counts per source, so a subscriber can see what it lost; `ts` is wall time."""

    type: EventType
    id: str
    seq: int
    ts: float
    source: str
    stream: str | None
    viewer: str | None
    data: dict[str, Any]
    v: int = VERSION
