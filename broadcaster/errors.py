"""Every error that Beamcast raises on purpose.

    BeamcastError
    ├── ConfigurationError      an option, an environment variable or an argument makes no sense
    ├── ConnectionClosedError   the peer connection was closed before or during the call
    ├── SourceError             a source cannot be opened, or what it delivers cannot be used
    ├── EncoderError            an encoder refused its settings or a picture
    ├── LinkError               the frame link
    │   ├── LinkProtocolError   the other end sent what the protocol does not allow
    │   └── LinkLimitError      a message is larger than its limit
    ├── BusError                Redis
    │   ├── BusUnavailableError no answer from Redis
    │   ├── CallTimeoutError    a process did not answer a call before its deadline
    │   │   └── CallUnheardError nobody listens under that id: the call has surely not run
    │   └── MessageError        bytes from Redis that are no message of ours
    ├── StunError               a STUN message that cannot be parsed or is not authentic
    ├── RtcpError               an RTCP packet that cannot be parsed
    ├── LoadError               `beamcast load` did not get what it asked a server for
    └── RequestError            an HTTP request that cannot be served; `status` says how
        ├── OfferError          422  the SDP makes no sense for this server
        ├── NoCommonCodecError  406  the player decodes nothing that we encode
        ├── MediaTypeError      415  the body has the wrong content type
        ├── UnauthorizedError   401  the token is missing or wrong
        ├── StreamNotFoundError 404  no such stream
        ├── SessionNotFoundError 404 no such session
        ├── PreconditionFailedError 412  If-Match names another ICE session
        ├── PreconditionRequiredError 428 If-Match is missing
        ├── StreamNotLiveError  409  the stream exists but has no live source
        └── OverloadedError     503  no worker can take another viewer

Each class carries the HTTP `status` and the short `title` that the gateway answers with (RFC 9457); the message of
the instance is the `detail`: one sentence that says what was wrong and what to do.
"""

from __future__ import annotations


class BeamcastError(Exception):
    """The root of the tree."""

    status: int = 500
    title: str = "Internal error"
    retry_after: int | None = None

    @property
    def detail(self) -> str:
        return str(self) or self.title


class ConfigurationError(BeamcastError, ValueError):
    """An option, an environment variable or an argument makes no sense."""

    status = 400
    title = "Invalid setting"


class ConnectionClosedError(BeamcastError):
    """The peer connection was closed before or during the call."""

    status = 410
    title = "The connection is closed"


class SourceError(BeamcastError):
    """A source cannot be opened, or what it delivers cannot be used."""

    title = "The source cannot be read"


class EncoderError(BeamcastError):
    """An encoder refused its settings or a picture."""

    title = "The encoder failed"


class LinkError(BeamcastError):
    """The frame link between a broadcaster and a worker."""

    status = 502
    title = "The frame link failed"


class LinkProtocolError(LinkError):
    """The other end sent what the protocol does not allow."""


class LinkLimitError(LinkError):
    """A message is larger than its limit."""


class BusError(BeamcastError):
    """Redis."""

    status = 503
    title = "The registry is not available"
    retry_after = 2


class BusUnavailableError(BusError):
    """No answer from Redis."""


class CallTimeoutError(BusError):
    """A process did not answer a call before its deadline."""

    status = 504
    title = "The worker did not answer in time"


class CallUnheardError(CallTimeoutError):
    """Nobody listens under that id, so the call has surely not run and may go to another process."""

    status = 503
    title = "The worker is gone"


class MessageError(BusError):
    """Bytes from Redis that are no message of ours."""

    status = 502
    title = "Unreadable message"


class StunError(BeamcastError):
    """A STUN message that cannot be parsed or is not authentic."""


class RtcpError(BeamcastError):
    """An RTCP packet that cannot be parsed."""


class LoadError(BeamcastError):
    """`beamcast load` did not get what it asked a server for."""

    title = "The load was not carried"


class RequestError(BeamcastError):
    """An HTTP request that cannot be served; `status` says how."""

    status = 400
    title = "The request cannot be served"


class OfferError(RequestError):
    """The SDP makes no sense for this server."""

    status = 422
    title = "The SDP offer cannot be used"


class NoCommonCodecError(RequestError):
    """The player decodes nothing that we encode."""

    status = 406
    title = "No common codec"


class MediaTypeError(RequestError):
    """The body has the wrong content type."""

    status = 415
    title = "Unsupported content type"


class UnauthorizedError(RequestError):
    """The token is missing or wrong."""

    status = 401
    title = "A valid bearer token is needed"


class StreamNotFoundError(RequestError):
    """No such stream."""

    status = 404
    title = "No such stream"


class SessionNotFoundError(RequestError):
    """No such session."""

    status = 404
    title = "No such session"


class PreconditionFailedError(RequestError):
    """If-Match names another ICE session."""

    status = 412
    title = "The session has moved on"


class PreconditionRequiredError(RequestError):
    """If-Match is missing."""

    status = 428
    title = "If-Match is needed"


class StreamNotLiveError(RequestError):
    """The stream exists but has no live source."""

    status = 409
    title = "The stream is not live"
    retry_after = 5


class OverloadedError(RequestError):
    """No worker can take another viewer."""

    status = 503
    title = "No capacity"
    retry_after = 5


def by_name() -> dict[str, type[BeamcastError]]:
    """Every class of the tree by its name, so that an error crosses a process border as itself."""
    found: dict[str, type[BeamcastError]] = {}
    waiting: list[type[BeamcastError]] = [BeamcastError]
    while waiting:
        cls = waiting.pop()
        found[cls.__name__] = cls
        waiting.extend(cls.__subclasses__())
    return found
