"""The frame link's wire format: messages to bytes and back, without any I/O.

A message is a 4-byte big-endian length followed by that many bytes of msgpack: an array whose first element is the
type. A message of a type that this version does not know is counted and skipped, so that later versions can add some.

    worker -> broadcaster   Hello, Demand, KeyframeRequest, Pong
    broadcaster -> worker   StreamDescription (the answer to Hello, and again when it changes) or Refusal,
                            EncodedFrame, EncodedSound, Ping
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import msgpack

from broadcaster.adaptation.audience import BINS
from broadcaster.errors import ConfigurationError, LinkLimitError, LinkProtocolError
from broadcaster.stream import (
    LAYER_SHARES,
    EncodedFrame,
    EncodedSound,
    Rung,
    SoundFormat,
    StreamDescription,
    stream_name,
)

MAGIC = "beamcast-link"
VERSION = 3

_LENGTH = struct.Struct("!I")
_PACK = msgpack.Packer(autoreset=True).pack


class MessageType(IntEnum):
    """The first element of every message. 16 to 31 are kept for other media than pictures."""

    HELLO = 1
    DESCRIPTION = 2
    REFUSAL = 3
    FRAME = 4
    KEYFRAME = 5
    DEMAND = 6
    PING = 7
    PONG = 8
    SOUND = 16


_TYPES = frozenset(MessageType)


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Sizes in bytes of one message without its length prefix, and counts.

    4 MiB hold the keyframe of an 8K picture; a description of 16 rungs takes about 1 KiB. The longest packet of Opus
    with one frame has 1275 octets (RFC 6716 section 3.2.1).
    """

    frame: int = 4 * 1024 * 1024
    control: int = 64 * 1024
    sound: int = 1275
    rungs: int = 16
    reason: int = 1000


WIRE_LIMITS = WireLimits()


@dataclass(frozen=True, slots=True)
class RungDemand:
    """How many viewers watch a rung, and the histogram of what their paths carry (broadcaster.adaptation.audience), as
    far as it is known."""

    viewers: int
    audience: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a connection: which version of this format, and which stream is wanted."""

    version: int
    stream: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """The broadcaster will not serve this connection, and says why in one sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class KeyframeRequest:
    """A viewer of `rung` needs a keyframe: soon where it is `patient`, for it has a picture meanwhile, else now."""

    rung: int
    patient: bool = False


@dataclass(frozen=True, slots=True)
class Demand:
    """The demand of a whole worker, by rung; rungs that are not named have no viewer. Replaces the one before.

    `listeners` are the viewers that take the sound, those whose picture is paused included.
    """

    rungs: Mapping[int, RungDemand]
    listeners: int = 0


@dataclass(frozen=True, slots=True)
class Ping:
    """Answered by a Pong with the same token."""

    token: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a Ping."""

    token: int


Message = Hello | StreamDescription | Refusal | EncodedFrame | EncodedSound | KeyframeRequest | Demand | Ping | Pong


def encode(message: Message, limits: WireLimits = WIRE_LIMITS) -> bytes:
    """The bytes of `message`, length prefix included; LinkLimitError when they are more than the other end takes."""
    body: bytes = _PACK(_fields(message))
    limit = limits.frame if isinstance(message, EncodedFrame) else limits.control
    if len(body) > limit:
        raise LinkLimitError(f"a {type(message).__name__} of {len(body)} bytes exceeds the link's limit of {limit}")
    return _LENGTH.pack(len(body)) + body


def _fields(message: Message) -> tuple[Any, ...]:
    fields: tuple[Any, ...]
    match message:
        case EncodedFrame(rung, index, timestamp, keyframe, layer, sync, payload):
            fields = (MessageType.FRAME, rung, index, timestamp, keyframe, layer, sync, payload)
        case EncodedSound(index, timestamp, payload):
            fields = (MessageType.SOUND, index, timestamp, payload)
        case StreamDescription(name, epoch, rungs, sound):
            table = [(r.name, r.width, r.height, float(r.fps), r.bitrate, r.layers) for r in rungs]
            heard = None if sound is None else (sound.codec, sound.clock, sound.channels)
            fields = (MessageType.DESCRIPTION, name, epoch, table, heard)
        case Demand(rungs, listeners):
            fields = (
                MessageType.DEMAND,
                [(rung, d.viewers, sorted(d.audience.items())) for rung, d in sorted(rungs.items())],
                listeners,
            )
        case Hello(version, stream):
            fields = (MessageType.HELLO, MAGIC, version, stream)
        case Refusal(reason):
            fields = (MessageType.REFUSAL, reason)
        case KeyframeRequest(rung, patient):
            fields = (MessageType.KEYFRAME, rung, patient)
        case Ping(token):
            fields = (MessageType.PING, token)
        case Pong(token):
            fields = (MessageType.PONG, token)
    return fields


class Decoder:
    """Makes messages of a byte stream that arrives in chunks of any size.

    `frames` says whether frames are expected at all: where they are not, the limit of control messages holds from the
    first byte. After an error the decoder is spent, because the stream has lost its boundaries: close the connection.
    """

    def __init__(self, *, frames: bool, limits: WireLimits = WIRE_LIMITS) -> None:
        self._limits = limits
        self._limit = limits.frame if frames else limits.control
        self._buffer = bytearray()
        self.unknown = 0

    def feed(self, chunk: bytes | bytearray | memoryview) -> Iterator[Message]:
        """Yield the messages that `chunk` completes; LinkProtocolError or LinkLimitError for what is not allowed."""
        self._buffer += chunk
        start = 0
        try:
            while (body := self._next_body(start)) is not None:
                start += _LENGTH.size + len(body)
                message = self._parse(body)
                if message is None:
                    self.unknown += 1
                else:
                    yield message
        finally:
            del self._buffer[:start]

    def _next_body(self, start: int) -> bytes | None:
        begin = start + _LENGTH.size
        if len(self._buffer) < begin:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer, start)
        if length > self._limit:
            raise LinkLimitError(f"the other end of the link announced {length} bytes; the limit is {self._limit}")
        if length > self._limits.control and len(self._buffer) >= begin + 2:
            # The second byte is the type: what is not a frame is refused before its bytes are gathered.
            kind = self._buffer[begin + 1]
            if kind != MessageType.FRAME:
                raise LinkLimitError(
                    f"the other end of the link announced a message of type {kind} with {length} bytes; "
                    f"the limit is {self._limits.control}"
                )
        if len(self._buffer) < begin + length:
            return None
        return bytes(memoryview(self._buffer)[begin : begin + length])

    def _parse(self, body: bytes) -> Message | None:
        try:
            fields = msgpack.unpackb(body, ext_hook=_no_extension)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise LinkProtocolError(f"a message on the link is not msgpack: {error}") from None
        if not isinstance(fields, list) or not fields or type(fields[0]) is not int:
            raise LinkProtocolError("a message on the link is not an array that starts with its type")
        kind = fields.pop(0)
        if kind not in _TYPES:
            return None
        return _message(MessageType(kind), fields, self._limits)


def _message(kind: MessageType, fields: list[Any], limits: WireLimits) -> Message:
    message: Message
    match kind, fields:
        case MessageType.FRAME, [rung, index, timestamp, keyframe, layer, sync, payload]:
            message = EncodedFrame(
                rung=_integer(rung, "rung", limits.rungs - 1),
                index=_integer(index, "index"),
                timestamp=_integer(timestamp, "timestamp", 0xFFFFFFFF),
                keyframe=_boolean(keyframe, "keyframe"),
                layer=_integer(layer, "layer", max(LAYER_SHARES) - 1),
                sync=_boolean(sync, "sync"),
                payload=_payload(payload, limits.frame),
            )
        case MessageType.SOUND, [index, timestamp, payload]:
            message = EncodedSound(
                _integer(index, "index"),
                _integer(timestamp, "timestamp", 0xFFFFFFFF),
                _payload(payload, limits.sound),
            )
        case MessageType.DESCRIPTION, [name, epoch, table, heard]:
            message = StreamDescription(
                _name(name), _integer(epoch, "epoch"), _rungs(table, limits), _sound_format(heard)
            )
        case MessageType.DEMAND, [table, listeners]:
            demands = dict(_demand(row, limits) for row in _rows(table, "demand", limits.rungs))
            message = Demand(demands, _integer(listeners, "listeners"))
        case MessageType.HELLO, [magic, version, stream]:
            if magic != MAGIC:
                raise LinkProtocolError("a connection to the link does not speak its protocol")
            message = Hello(_integer(version, "version"), _name(stream))
        case MessageType.REFUSAL, [reason]:
            message = Refusal(_text(reason, "reason", limits.reason))
        case MessageType.KEYFRAME, [rung, patient]:
            message = KeyframeRequest(_integer(rung, "rung", limits.rungs - 1), _boolean(patient, "patient"))
        case MessageType.PING, [token]:
            message = Ping(_integer(token, "token"))
        case MessageType.PONG, [token]:
            message = Pong(_integer(token, "token"))
        case _:
            raise LinkProtocolError(f"a {kind.name} message on the link has {len(fields)} fields, which does not fit")
    return message


def _payload(value: Any, most: int) -> bytes:
    if not isinstance(value, bytes) or not 0 < len(value) <= most:
        raise LinkProtocolError(f"a payload is not 1 to {most} bytes")
    return value


def _rungs(table: Any, limits: WireLimits) -> tuple[Rung, ...]:
    rows = _rows(table, "rungs", limits.rungs)
    if not rows:
        raise LinkProtocolError("a description has no rungs")
    return tuple(_rung(row) for row in rows)


def _rung(row: Any) -> Rung:
    match row:
        case [name, width, height, fps, bitrate, layers]:
            if type(fps) is not float or not math.isfinite(fps) or not 0 < fps <= 1000:
                raise LinkProtocolError("a rung's fps is not a number from 0 to 1000")
            return Rung(
                name=_text(name, "rung name", 63),
                width=_integer(width, "width", 0xFFFF, low=1),
                height=_integer(height, "height", 0xFFFF, low=1),
                fps=fps,
                bitrate=_integer(bitrate, "bitrate", low=1),
                layers=_integer(layers, "layers", max(LAYER_SHARES), low=1),
            )
    raise LinkProtocolError("a rung of a description does not have its six fields")


def _sound_format(row: Any) -> SoundFormat | None:
    match row:
        case None:
            return None
        case [codec, clock, channels]:
            return SoundFormat(
                _text(codec, "codec", 63),
                _integer(clock, "clock", 0xFFFFFFFF, low=1),
                _integer(channels, "channels", 255, low=1),
            )
    raise LinkProtocolError("a description's sound does not have its three fields")


def _demand(row: Any, limits: WireLimits) -> tuple[int, RungDemand]:
    match row:
        case [rung, viewers, audience]:
            counts = dict(_count(pair) for pair in _rows(audience, "audience", BINS))
            return _integer(rung, "rung", limits.rungs - 1), RungDemand(_integer(viewers, "viewers"), counts)
    raise LinkProtocolError("an entry of a demand does not have its three fields")


def _count(pair: Any) -> tuple[int, int]:
    match pair:
        case [number, count]:
            return _integer(number, "bin", BINS - 1), _integer(count, "count", 1_000_000, low=1)
    raise LinkProtocolError("an entry of an audience does not have its two fields")


def _rows(value: Any, what: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise LinkProtocolError(f"{what} is not a list of at most {most} entries")
    return value


def _integer(value: Any, what: str, high: int = 2**63 - 1, *, low: int = 0) -> int:
    if type(value) is not int or not low <= value <= high:
        raise LinkProtocolError(f"{what} is not a whole number from {low} to {high}")
    return value


def _boolean(value: Any, what: str) -> bool:
    if type(value) is not bool:
        raise LinkProtocolError(f"{what} is not true or false")
    return value


def _text(value: Any, what: str, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise LinkProtocolError(f"{what} is not a text of at most {longest} characters")
    return value


def _name(value: Any) -> str:
    try:
        return stream_name(_text(value, "stream", 63))
    except ConfigurationError as error:
        raise LinkProtocolError(error.detail) from None


def _no_extension(code: int, _data: bytes) -> Any:
    raise ValueError(f"extension type {code}")
