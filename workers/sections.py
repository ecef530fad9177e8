"""The sections of an SDP (RFC 8866): the lines about the session and those about each medium (sdp.py judges them).

What no two offers have in common is kept apart from the rest, which a browser says alike in each and is read but once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from broadcaster.errors import NoCommonCodecError, OfferError

MAX_SIZE = 65_536
"""Octets of an offer; the longest that browsers make is a tenth of it."""

MAX_LINES = 4096
MAX_MEDIA = 64

TRANSPORT_FEEDBACK = "transport-cc"
FEEDBACK = ("nack", "nack pli", "ccm fir", TRANSPORT_FEEDBACK, "goog-remb")
"""What is answered of the rtcp-fb offered; REMB only where there is no transport-wide feedback, which says more."""

_OWN = re.compile(r"\na=(ice-ufrag|ice-pwd|fingerprint|candidate|ssrc|msid):([^\n]*)")
"""What no two offers have in common."""
_LONGEST = 8192
"""Characters of a section that is remembered."""
_TOKEN = re.compile(r"[!-~]{1,64}")
_MEDIA = re.compile(r" *[!-~]{1,64}(?: +[!-~]{1,64}){3,} *")
"""Four tokens or more; what is printable has no other space than this one."""


@dataclass(frozen=True, slots=True)
class Section:
    """An m-line of the offer as the answer must mirror it; `mid` is None where it has none."""

    kind: str
    protocol: str
    formats: str
    mid: str | None


class _Usual:
    """What a session or an m-line says that other offers say, too: all of them share it, so nobody may change it.
    `media` is the text behind `m=`, `attributes` are in the order sent."""

    def __init__(self, media: str, attributes: dict[str, list[str]]) -> None:
        self.media = media
        self.attributes = attributes

    def all(self, name: str) -> Sequence[str]:
        return self.attributes.get(name, ())

    def first(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    @cached_property
    def section(self) -> Section:
        parts = self.media.split()
        if not _MEDIA.fullmatch(self.media):
            raise OfferError(
                f"The media line 'm={self.media[:40]}' makes no sense: it needs kind, port, protocol, formats."
            )
        kind, port, protocol = parts[:3]
        bounded(port.partition("/")[0], 65_535, "port")
        mid = self.first("mid")
        if mid is not None and not _TOKEN.fullmatch(mid):
            raise OfferError(f"a=mid:{mid[:40]} is not a token of 1 to 64 characters.")
        return Section(kind, protocol, " ".join(parts[3:]), mid)

    @cached_property
    def encodings(self) -> tuple[list[int], dict[int, str]]:
        """The payload types in the order preferred, and what each stands for, in lower case."""
        formats = [bounded(text, 127, "payload type") for text in self.section.formats.split()]
        names = {}
        for text in self.all("rtpmap"):
            number, _, encoding = text.partition(" ")
            names[bounded(number, 127, "payload type")] = encoding.strip().lower()
        return formats, names

    @cached_property
    def codecs(self) -> tuple[int, int | None]:
        """The payload types of VP8 and of its retransmissions, if there are any (RFC 4588)."""
        formats, names = self.encodings
        vp8 = next((number for number in formats if names.get(number) == "vp8/90000"), None)
        if vp8 is None:
            raise NoCommonCodecError("The offer has no VP8, which is what this server sends.")
        for text in self.all("fmtp"):
            number, _, parameters = text.partition(" ")
            rtx = bounded(number, 127, "payload type")
            if names.get(rtx) == "rtx/90000" and rtx in formats and rtx != vp8:
                values = dict(part.strip().partition("=")[::2] for part in parameters.split(";"))
                if values.get("apt") == str(vp8):
                    return vp8, rtx
        return vp8, None

    @cached_property
    def feedback(self) -> tuple[str, ...]:
        """What of FEEDBACK is offered for VP8."""
        payload_type, rtx = self.codecs
        offered, numbers = set(), {str(payload_type), "*"}
        for text in self.all("rtcp-fb"):
            number, _, kind = text.partition(" ")
            if number in numbers:
                offered.add(kind.strip())
        return tuple(kind for kind in FEEDBACK if kind in offered and (kind != "nack" or rtx is not None))


class Lines:
    """The attributes of the session or of one m-line."""

    __slots__ = ("own", "usual")

    def __init__(self, text: str, *, session: bool = False) -> None:
        """`text` is what stands behind `m=`, or all that stands before the first."""
        parts = _OWN.split(text)
        self.own: dict[str, list[str]] = {}
        for name, value in zip(parts[1::3], parts[2::3], strict=True):
            self.own.setdefault(name, []).append(value.strip())
        usual = "".join(parts[::3])
        self.usual = _read(usual, session) if session or len(usual) > _LONGEST else _remembered(usual)

    @property
    def media(self) -> str:
        return self.usual.media

    def all(self, name: str) -> Sequence[str]:
        return self.own.get(name) or self.usual.all(name)

    def first(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)


def split(text: str, *, fragment: bool = False) -> tuple[Lines, list[Lines]]:
    """The session's lines and those of each medium, of a whole SDP or a fragment of one. Raises OfferError."""
    if len(text) > MAX_SIZE or len(text.encode(errors="replace")) > MAX_SIZE:
        raise OfferError(f"The SDP is larger than {MAX_SIZE} octets.")
    text = text.replace("\r\n", "\n")
    if text.count("\n") >= MAX_LINES:
        raise OfferError(f"The SDP has more than {MAX_LINES} lines.")
    if not fragment and text != "v=0" and not text.startswith("v=0\n"):
        raise OfferError("The body is no SDP: its first line must be v=0.")
    if not text.replace("\n", "").isprintable():
        raise _malformed(next(line for line in text.split("\n") if not line.isprintable()))
    session, *media = ("\n" + text).split("\nm=")
    if len(media) > MAX_MEDIA:
        raise OfferError(f"The SDP has more than {MAX_MEDIA} media sections.")
    return Lines(session, session=True), [Lines(lines) for lines in media]


@lru_cache(maxsize=64)
def _remembered(text: str) -> _Usual:
    return _read(text, session=False)


def _read(text: str, session: bool) -> _Usual:
    first, *lines = text.split("\n")
    attributes: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("a="):
            name, _, value = line[2:].partition(":")
            attributes.setdefault(name, []).append(value.strip())
        elif line and line[1:2] != "=":
            raise _malformed(line)
    return _Usual("" if session else first, attributes)


def _malformed(line: str) -> OfferError:
    return OfferError(f"The SDP has a line that is not of the form type=value: {line[:40]!r}.")


def bounded(text: str, highest: int, what: str) -> int:
    """The number that `text` is, 0 to `highest`; `what` it stands for. Raises OfferError."""
    if not (text.isdigit() and text.isascii() and len(text) <= 10) or int(text) > highest:
        raise OfferError(f"{text[:20]!r} is no {what}: it must be a number from 0 to {highest}.")
    return int(text)
