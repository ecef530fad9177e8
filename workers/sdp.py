"""SDP of the viewers' side: what an offer says, and a fragment of trickle or restart (answer.py writes).

Offer and answer as of RFC 9429 (JSEP) and RFC 8866 (SDP), for one video stream to the offerer and its sound beside it
in the same BUNDLE (RFC 9143), ICE-lite and passive DTLS. Opus as of RFC 7587. Fragments as of RFC 8840 section 9
(`application/trickle-ice-sdpfrag`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from broadcaster.errors import OfferError
from workers.forward.packets import MAX_MID, ExtensionIds
from workers.sections import TRANSPORT_FEEDBACK, Lines, Section, bounded, split

ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
PLAYOUT_DELAY = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
TRANSPORT_SEQUENCE = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
EXTENSIONS = (ABS_SEND_TIME, MID, PLAYOUT_DELAY, TRANSPORT_SEQUENCE)

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
_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PASSWORD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_FINGERPRINT = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2})*")


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


def parse_offer(sdp: str) -> Offer:
    """Read the offer of a viewer.

    Raises OfferError when the SDP makes no sense for this server, NoCommonCodecError when its video has no VP8.
    """
    session, media = split(sdp)
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


def _sound_alone(session: Lines, media: Sequence[Lines], sections: Sequence[Section]) -> Offer:
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
    session, media = split(text, fragment=True)
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


def _bundle(session: Lines, mid: str) -> tuple[str, ...]:
    """The mids of the BUNDLE group that this one is in; none where it is in none."""
    for group in session.all("group"):
        semantics, *mids = group.split() or [""]
        if semantics == "BUNDLE" and mid in mids:
            return tuple(mids)
    return ()


def _transport(
    session: Lines, media: Sequence[Lines], lines: Lines, bundle: Sequence[str]
) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """Username, password and fingerprints of a section, which the first one of its BUNDLE may tell for it (RFC 9143
    section 7.2.1)."""
    if lines.first("ice-ufrag") is None and bundle:
        lines = next((one for one in media if one.first("mid") == bundle[0]), lines)
    ufrag, password = _credentials(session, lines)
    _check_setup(lines.first("setup") or session.first("setup"))
    return ufrag, password, _fingerprints(session, lines)


def _is_rejected(lines: Lines) -> bool:
    """Port 0 says so, but not of a section that stands in a BUNDLE or not at all (RFC 9143 section 6)."""
    return lines.media.split()[1] == "0" and lines.first("bundle-only") is None


def _sound(
    session: Lines,
    media: Sequence[Lines],
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


def _offers(lines: Lines, payload_type: int, kind: str) -> bool:
    """Whether this kind of feedback is offered."""
    return any(text.split() in ([f"{payload_type}", kind], ["*", kind]) for text in lines.all("rtcp-fb"))


def _direction(lines: Lines) -> str | None:
    return next((name for name in lines.usual.attributes if name in _DIRECTIONS), None)


def _credentials(session: Lines, lines: Lines) -> tuple[str, str]:
    ufrag = lines.first("ice-ufrag") or session.first("ice-ufrag")
    password = lines.first("ice-pwd") or session.first("ice-pwd")
    if ufrag is None or not _UFRAG.fullmatch(ufrag):
        raise OfferError("The offer lacks a=ice-ufrag, or it is not 4 to 256 of A-Z, a-z, 0-9, '+' and '/'.")
    if password is None or not _PASSWORD.fullmatch(password):
        raise OfferError("The offer lacks a=ice-pwd, or it is not 22 to 256 of A-Z, a-z, 0-9, '+' and '/'.")
    return ufrag, password


def _fingerprints(session: Lines, lines: Lines) -> tuple[tuple[str, str], ...]:
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


def _extensions(session: Lines, lines: Lines) -> tuple[ExtensionIds, frozenset[str]]:
    ids: dict[str, int] = {}
    directed = set()
    for text in [*lines.all("extmap"), *session.all("extmap")]:
        parts = text.split()
        if len(parts) < 2:
            raise OfferError(f"a=extmap:{text[:40]} makes no sense: it needs a number and a URI.")
        number, _, direction = parts[0].partition("/")
        value = bounded(number, 65_535, "header extension id")
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
