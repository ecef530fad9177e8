"""SDP of the viewers' side: what an offer says, and a fragment of trickle or restart (answer.py writes).

Offer and answer as of RFC 9429 (JSEP) and RFC 8866 (SDP), for one video stream to the offerer and its sound beside it
in the same BUNDLE (RFC 9143), ICE-lite and passive DTLS. Opus as of RFC 7587. Fragments as of RFC 8840 section 9
(`application/trickle-ice-sdpfrag`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from broadcaster.errors import NoCommonCodecError, OfferError
from workers.forward.packets import MAX_MID, ExtensionIds

MAX_SIZE = 65_536
"""Octets of an offer; the longest that browsers make is a tenth of it."""

MAX_LINES = 4096
MAX_MEDIA = 64

ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
PLAYOUT_DELAY = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
TRANSPORT_SEQUENCE = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
EXTENSIONS = (ABS_SEND_TIME, MID, PLAYOUT_DELAY, TRANSPORT_SEQUENCE)

TRANSPORT_FEEDBACK = "transport-cc"
FEEDBACK = ("nack", "nack pli", "ccm fir", TRANSPORT_FEEDBACK, "goog-remb")
"""What is answered of the rtcp-fb offered; REMB only where there is no transport-wide feedback, which says more."""

_PROTOCOLS = {
    "UDP/TLS/RTP/SAVPF",
    "TCP/DTLS/RTP/SAVPF",
    "UDP/TLS/RTP/SAVP",
    "TCP/DTLS/RTP/SAVP",
    "RTP/SAVPF",
    "RTP/SAVP",
}
"""JSEP's list (RFC 9429 section 5.1.2), without those that are not encrypted."""

_DIRECTIONS = {"sendrecv", "recvonly", "sendonly", "inactive"}
_DIGEST_SIZES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
_OWN = re.compile(r"\na=(ice-ufrag|ice-pwd|fingerprint|candidate|ssrc|msid):([^\n]*)")
"""What no two offers have in common. Else a browser says the same in each, so that is read once."""
_LONGEST = 8192
"""Characters of a section that is remembered."""
_TOKEN = re.compile(r"[!-~]{1,64}")
_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PASSWORD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_MEDIA = re.compile(r" *[!-~]{1,64}(?: +[!-~]{1,64}){3,} *")
"""Four tokens or more; what is printable has no other space than this one."""
_FINGERPRINT = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2})*")


@dataclass(frozen=True, slots=True)
class Section:
    """An m-line of the offer as the answer must mirror it; `mid` is None where it has none."""

    kind: str
    protocol: str
    formats: str
    mid: str | None


@dataclass(frozen=True, slots=True)
class SoundOffer:
    """The m-line of the offer on which Opus can be sent beside the video; `section` is its index."""

    section: int
    mid: str
    payload_type: int
    extensions: ExtensionIds
    directed: frozenset[str]
    reduced_size: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """What a viewer offers to receive.

    `video` indexes `sections`; `mid` is empty where the video section has none. `fingerprints` are (algorithm, value)
    pairs in lower and upper case. `directed` holds the URIs of header extensions that were offered with a direction.
    `rtx_payload_type` is None where the viewer takes no retransmissions, `sound` where it takes none, or only on a
    transport of its own. `video` is None where it takes sound alone; what else is about the video says nothing then.
    """

    sections: tuple[Section, ...]
    video: int | None
    mid: str
    bundled: bool
    payload_type: int
    rtx_payload_type: int | None
    extensions: ExtensionIds
    directed: frozenset[str]
    feedback: tuple[str, ...]
    reduced_size: bool
    ufrag: str
    password: str
    fingerprints: tuple[tuple[str, str], ...]
    sound: SoundOffer | None = None

    def accepted(self, *, sound: bool) -> list[int]:
        """The indexes of the sections that are answered, where a viewer gets `sound` or not. The first one stands for
        the transport (the answerer-tagged section of RFC 9143 section 7.3.1)."""
        heard = self.sound.section if sound and self.sound is not None else None
        return sorted(index for index in (self.video, heard) if index is not None)


@dataclass(frozen=True, slots=True)
class Fragment:
    """An SDP fragment of a PATCH. `ufrag` and `password` are None where it names none; `candidates` stand as sent."""

    ufrag: str | None
    password: str | None
    candidates: tuple[str, ...]


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
        return _section(self)

    @cached_property
    def encodings(self) -> tuple[list[int], dict[int, str]]:
        return _encodings(self)

    @cached_property
    def codecs(self) -> tuple[int, int | None]:
        return _codecs(self)

    @cached_property
    def feedback(self) -> tuple[str, ...]:
        return _feedback(self, *self.codecs)


class _Lines:
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


def parse_offer(sdp: str) -> Offer:
    """Read the offer of a viewer.

    Raises OfferError when the SDP makes no sense for this server, NoCommonCodecError when its video has no VP8.
    """
    session, media = _split(sdp)
    sections = tuple(lines.usual.section for lines in media)
    video = next(
        (index for index, section in enumerate(sections) if section.kind == "video" and not _is_rejected(media[index])),
        None,
    )
    if video is None:
        return _sound_alone(session, media, sections)
    lines = media[video]
    section = sections[video]
    if section.protocol.upper() not in _PROTOCOLS:
        raise OfferError(f"The video section's protocol {section.protocol!r} is not supported: use UDP/TLS/RTP/SAVPF.")
    direction = _direction(lines) or _direction(session) or "sendrecv"
    if direction not in {"recvonly", "sendrecv"}:
        raise OfferError(f"The video section is {direction}, so nothing can be sent to it: offer recvonly.")
    if lines.first("rtcp-mux") is None:
        raise OfferError("The video section lacks a=rtcp-mux, which this server needs.")
    mid = section.mid or ""
    bundle = _bundle(session, mid)
    ufrag, password, fingerprints = _transport(session, media, lines, bundle)
    payload_type, rtx = lines.usual.codecs
    extensions, directed = _extensions(session, lines)
    feedback = lines.usual.feedback
    if extensions.transport_sequence is None or TRANSPORT_FEEDBACK not in feedback:
        extensions = replace(extensions, transport_sequence=None)
        feedback = tuple(kind for kind in feedback if kind != TRANSPORT_FEEDBACK)
    else:
        feedback = tuple(kind for kind in feedback if kind != "goog-remb")
    return Offer(
        sections=sections,
        video=video,
        mid=mid,
        bundled=bool(bundle),
        payload_type=payload_type,
        rtx_payload_type=rtx,
        extensions=extensions,
        directed=directed,
        feedback=feedback,
        reduced_size=lines.first("rtcp-rsize") is not None,
        ufrag=ufrag,
        password=password,
        fingerprints=fingerprints,
        sound=_sound(session, media, sections, extensions, bundle),
    )


def _sound_alone(session: _Lines, media: Sequence[_Lines], sections: Sequence[Section]) -> Offer:
    """The offer of a viewer that takes no picture. Its sound is not numbered, for there is nothing that could follow
    what the path carries."""
    sound = _sound(session, media, sections, ExtensionIds())
    if sound is None:
        raise OfferError("The offer has no video section: add a recvonly video transceiver to the connection.")
    bundle = _bundle(session, sound.mid)
    ufrag, password, fingerprints = _transport(session, media, media[sound.section], bundle)
    return Offer(
        sections=tuple(sections),
        video=None,
        mid="",
        bundled=bool(bundle),
        payload_type=0,
        rtx_payload_type=None,
        extensions=ExtensionIds(),
        directed=frozenset(),
        feedback=(),
        reduced_size=False,
        ufrag=ufrag,
        password=password,
        fingerprints=fingerprints,
        sound=sound,
    )


def parse_fragment(text: str) -> Fragment:
    """Read the body of a PATCH: trickled candidates, new credentials, or both. Raises OfferError."""
    session, media = _split(text, fragment=True)
    parts = [session, *media]
    candidates = tuple(f"candidate:{value}" for lines in parts for value in lines.all("candidate"))
    ufrag = next((value for lines in parts for value in lines.all("ice-ufrag")), None)
    password = next((value for lines in parts for value in lines.all("ice-pwd")), None)
    if ufrag is not None and not _UFRAG.fullmatch(ufrag):
        raise OfferError("The fragment's a=ice-ufrag is not 4 to 256 of A-Z, a-z, 0-9, '+' and '/'.")
    if password is not None and not _PASSWORD.fullmatch(password):
        raise OfferError("The fragment's a=ice-pwd is not 22 to 256 of A-Z, a-z, 0-9, '+' and '/'.")
    if password is not None and ufrag is None:
        raise OfferError("The fragment has a=ice-pwd without a=ice-ufrag: send both to restart ICE.")
    return Fragment(ufrag, password, candidates)


def _split(text: str, *, fragment: bool = False) -> tuple[_Lines, list[_Lines]]:
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
    return _Lines(session, session=True), [_Lines(lines) for lines in media]


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


def _section(lines: _Usual) -> Section:
    parts = lines.media.split()
    if not _MEDIA.fullmatch(lines.media):
        raise OfferError(
            f"The media line 'm={lines.media[:40]}' makes no sense: it needs kind, port, protocol, formats."
        )
    kind, port, protocol = parts[:3]
    _number(port.partition("/")[0], 65_535, "port")
    mid = lines.first("mid")
    if mid is not None and not _TOKEN.fullmatch(mid):
        raise OfferError(f"a=mid:{mid[:40]} is not a token of 1 to 64 characters.")
    return Section(kind, protocol, " ".join(parts[3:]), mid)


def _number(text: str, highest: int, what: str) -> int:
    if not (text.isdigit() and text.isascii() and len(text) <= 10) or int(text) > highest:
        raise OfferError(f"{text[:20]!r} is no {what}: it must be a number from 0 to {highest}.")
    return int(text)


def _bundle(session: _Lines, mid: str) -> tuple[str, ...]:
    """The mids of the BUNDLE group that this one is in; none where it is in none."""
    for group in session.all("group"):
        semantics, *mids = group.split() or [""]
        if semantics == "BUNDLE" and mid in mids:
            return tuple(mids)
    return ()


def _transport(
    session: _Lines, media: Sequence[_Lines], lines: _Lines, bundle: Sequence[str]
) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """Username, password and fingerprints of a section, which the first one of its BUNDLE may tell for it (RFC 9143
    section 7.2.1)."""
    if lines.first("ice-ufrag") is None and bundle:
        lines = next((one for one in media if one.first("mid") == bundle[0]), lines)
    ufrag, password = _credentials(session, lines)
    _check_setup(lines.first("setup") or session.first("setup"))
    return ufrag, password, _fingerprints(session, lines)


def _is_rejected(lines: _Lines) -> bool:
    """Port 0 says so, but not of a section that stands in a BUNDLE or not at all (RFC 9143 section 6)."""
    return lines.media.split()[1] == "0" and lines.first("bundle-only") is None


def _sound(
    session: _Lines,
    media: Sequence[_Lines],
    sections: Sequence[Section],
    video: ExtensionIds,
    bundle: Sequence[str] | None = None,
) -> SoundOffer | None:
    """Where sound can be sent, with the video's `bundle` on its transport; an offer that makes no sense is none."""
    for index, (section, lines) in enumerate(zip(sections, media, strict=True)):
        direction = _direction(lines) or _direction(session) or "sendrecv"
        if (
            section.kind != "audio"
            or _is_rejected(lines)
            or (bundle is not None and section.mid not in bundle)
            or section.protocol.upper() not in _PROTOCOLS
            or direction not in {"recvonly", "sendrecv"}
            or lines.first("rtcp-mux") is None
        ):
            continue
        try:
            formats, names = lines.usual.encodings
            extensions, directed = _extensions(session, lines)
        except OfferError:
            continue
        opus = next((number for number in formats if names.get(number) == "opus/48000/2"), None)
        if opus is None:
            continue
        counted = video.transport_sequence is not None and _offers(lines, opus, TRANSPORT_FEEDBACK)
        return SoundOffer(
            section=index,
            mid=section.mid or "",
            payload_type=opus,
            extensions=replace(
                extensions,
                playout_delay=None,
                transport_sequence=extensions.transport_sequence if counted else None,
            ),
            directed=directed,
            reduced_size=lines.first("rtcp-rsize") is not None,
        )
    return None


def _offers(lines: _Lines, payload_type: int, kind: str) -> bool:
    """Whether this kind of feedback is offered."""
    return any(text.split() in ([f"{payload_type}", kind], ["*", kind]) for text in lines.all("rtcp-fb"))


def _direction(lines: _Lines) -> str | None:
    return next((name for name in lines.usual.attributes if name in _DIRECTIONS), None)


def _credentials(session: _Lines, lines: _Lines) -> tuple[str, str]:
    ufrag = lines.first("ice-ufrag") or session.first("ice-ufrag")
    password = lines.first("ice-pwd") or session.first("ice-pwd")
    if ufrag is None or not _UFRAG.fullmatch(ufrag):
        raise OfferError("The offer lacks a=ice-ufrag, or it is not 4 to 256 of A-Z, a-z, 0-9, '+' and '/'.")
    if password is None or not _PASSWORD.fullmatch(password):
        raise OfferError("The offer lacks a=ice-pwd, or it is not 22 to 256 of A-Z, a-z, 0-9, '+' and '/'.")
    return ufrag, password


def _fingerprints(session: _Lines, lines: _Lines) -> tuple[tuple[str, str], ...]:
    found = []
    for text in list(lines.all("fingerprint")) or list(session.all("fingerprint")):
        algorithm, _, value = text.partition(" ")
        algorithm, value = algorithm.lower(), value.strip().upper()
        size = _DIGEST_SIZES.get(algorithm)
        if size is None:
            continue
        if not _FINGERPRINT.fullmatch(value) or len(value) != 3 * size - 1:
            raise OfferError(f"The offer's a=fingerprint:{algorithm} is not {size} octets in hexadecimal.")
        found.append((algorithm, value))
    if not found:
        raise OfferError("The offer lacks a=fingerprint with sha-256, sha-384 or sha-512.")
    return tuple(found)


def _check_setup(setup: str | None) -> None:
    if setup not in {None, "actpass", "active"}:
        raise OfferError(f"a=setup:{str(setup)[:20]} cannot be answered: this server is passive, so offer actpass.")


def _encodings(lines: _Usual) -> tuple[list[int], dict[int, str]]:
    """The payload types in the order preferred, and what each stands for, in lower case."""
    formats = [_number(text, 127, "payload type") for text in lines.section.formats.split()]
    names = {}
    for text in lines.all("rtpmap"):
        number, _, encoding = text.partition(" ")
        names[_number(number, 127, "payload type")] = encoding.strip().lower()
    return formats, names


def _codecs(lines: _Usual) -> tuple[int, int | None]:
    formats, names = lines.encodings
    vp8 = next((number for number in formats if names.get(number) == "vp8/90000"), None)
    if vp8 is None:
        raise NoCommonCodecError("The offer has no VP8, which is what this server sends.")
    for text in lines.all("fmtp"):
        number, _, parameters = text.partition(" ")
        rtx = _number(number, 127, "payload type")
        if names.get(rtx) == "rtx/90000" and rtx in formats and rtx != vp8:
            values = dict(part.strip().partition("=")[::2] for part in parameters.split(";"))
            if values.get("apt") == str(vp8):
                return vp8, rtx
    return vp8, None


def _extensions(session: _Lines, lines: _Lines) -> tuple[ExtensionIds, frozenset[str]]:
    ids: dict[str, int] = {}
    directed = set()
    for text in [*lines.all("extmap"), *session.all("extmap")]:
        parts = text.split()
        if len(parts) < 2:
            raise OfferError(f"a=extmap:{text[:40]} makes no sense: it needs a number and a URI.")
        number, _, direction = parts[0].partition("/")
        value = _number(number, 65_535, "header extension id")
        uri = parts[1]
        receivable = direction in {"", "sendrecv", "recvonly"}
        if uri in EXTENSIONS and 1 <= value <= 14 and receivable and uri not in ids and value not in ids.values():
            ids[uri] = value
            if direction:
                directed.add(uri)
    mid = lines.first("mid")
    if not mid or len(mid) > MAX_MID:
        ids.pop(MID, None)
    return ExtensionIds(*map(ids.get, EXTENSIONS)), frozenset(directed)


def _feedback(lines: _Usual, payload_type: int, rtx: int | None) -> tuple[str, ...]:
    offered, numbers = set(), {str(payload_type), "*"}
    for text in lines.all("rtcp-fb"):
        number, _, kind = text.partition(" ")
        if number in numbers:
            offered.add(kind.strip())
    return tuple(kind for kind in FEEDBACK if kind in offered and (kind != "nack" or rtx is not None))
