"""The answer to a viewer's offer (sdp.py), and to its ICE restart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from workers.forward.packets import ExtensionIds
from workers.sdp import EXTENSIONS, Offer
from workers.sections import TRANSPORT_FEEDBACK


def answer(
    offer: Offer,
    *,
    ufrag: str,
    password: str,
    fingerprint: str,
    candidates: Sequence[str],
    ssrc: int,
    rtx_ssrc: int,
    cname: str,
    session_id: int,
    sound_ssrc: int | None = None,
) -> str:
    """Write the answer, complete at once.

    `fingerprint` is the SHA-256 of our certificate ("AB:CD:..."); `candidates` are "candidate:..." attributes, the
    default one first; `ssrc` sends the video, `rtx_ssrc` its retransmissions and `sound_ssrc` the sound, which is
    rejected where that is None.
    """
    accepted = offer.accepted(sound=sound_ssrc is not None)
    mids = [mid for mid in (offer.sections[index].mid for index in accepted) if mid]
    lines = ["v=0", f"o=- {session_id} 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=ice-lite"]
    if offer.bundled:
        lines.append(f"a=group:BUNDLE {' '.join(mids)}")
    lines.append("a=msid-semantic: WMS *")
    host, port = _default_address(candidates)
    reached = [*(f"a={candidate}" for candidate in candidates), "a=end-of-candidates"]
    # Once would do for a BUNDLE, but browsers say it in every section, and aiortc wants to hear it.
    secured = [
        f"a=ice-ufrag:{ufrag}",
        f"a=ice-pwd:{password}",
        f"a=fingerprint:sha-256 {fingerprint}",
        "a=setup:passive",
    ]
    for index, section in enumerate(offer.sections):
        if index not in accepted:
            lines += [f"m={section.kind} 0 {section.protocol} {section.formats}", "c=IN IP4 0.0.0.0", "a=inactive"]
            if section.mid is not None:
                lines.append(f"a=mid:{section.mid}")
            continue
        if index == offer.video:
            formats, body = _video_answer(offer, ssrc, rtx_ssrc, cname)
        else:
            formats, body = _sound_answer(offer, sound_ssrc, cname)
        lines += [
            f"m={section.kind} {port} {section.protocol} {formats}",
            f"c=IN {'IP6' if ':' in host else 'IP4'} {host}",
            "a=sendonly",
            *([f"a=mid:{section.mid}"] if section.mid else []),
            "a=rtcp-mux",
            *(reached if index == accepted[0] else []),
            *secured,
            *body,
        ]
    return "\r\n".join(lines) + "\r\n"


def _video_answer(offer: Offer, ssrc: int, rtx_ssrc: int, cname: str) -> tuple[str, list[str]]:
    """The formats and what else is said about the video."""
    payload_type, rtx = offer.payload_type, offer.rtx_payload_type
    return f"{payload_type}" if rtx is None else f"{payload_type} {rtx}", [
        *(["a=rtcp-rsize"] if offer.reduced_size else []),
        *_extmap(offer.extensions, offer.directed),
        f"a=rtpmap:{payload_type} VP8/90000",
        *(f"a=rtcp-fb:{payload_type} {feedback}" for feedback in offer.feedback),
        *([f"a=rtpmap:{rtx} rtx/90000", f"a=fmtp:{rtx} apt={payload_type}"] if rtx is not None else []),
        "a=msid:beamcast video",
        *([f"a=ssrc-group:FID {ssrc} {rtx_ssrc}"] if rtx is not None else []),
        *(f"a=ssrc:{source} cname:{cname}" for source in ((ssrc,) if rtx is None else (ssrc, rtx_ssrc))),
    ]


def _sound_answer(offer: Offer, ssrc: int | None, cname: str) -> tuple[str, list[str]]:
    """The same about the sound; both are of one msid, which is what players sync."""
    sound = offer.sound
    assert sound is not None, "accepted without an offer"
    payload_type = sound.payload_type
    return f"{payload_type}", [
        *(["a=rtcp-rsize"] if sound.reduced_size else []),
        *_extmap(sound.extensions, sound.directed),
        f"a=rtpmap:{payload_type} opus/48000/2",
        f"a=fmtp:{payload_type} sprop-stereo=1",
        *([f"a=rtcp-fb:{payload_type} {TRANSPORT_FEEDBACK}"] if sound.extensions.transport_sequence else []),
        "a=ptime:20",
        "a=msid:beamcast audio",
        f"a=ssrc:{ssrc} cname:{cname}",
    ]


def restart_fragment(offer: Offer, *, ufrag: str, password: str, candidates: Sequence[str], sound: bool = False) -> str:
    """The answer to an ICE restart of a viewer with or without `sound`: our new credentials and the same candidates
    (RFC 9725 section 4.3.3)."""
    accepted = [offer.sections[index] for index in offer.accepted(sound=sound)]
    section = accepted[0]
    lines = ["a=ice-lite", "a=ice-options:trickle"]
    if offer.bundled:
        lines.append(f"a=group:BUNDLE {' '.join(one.mid for one in accepted if one.mid)}")
    lines += [
        f"m={section.kind} 9 {section.protocol} 0",
        *([f"a=mid:{section.mid}"] if section.mid else []),
        f"a=ice-ufrag:{ufrag}",
        f"a=ice-pwd:{password}",
        *(f"a={candidate}" for candidate in candidates),
        "a=end-of-candidates",
    ]
    return "\r\n".join(lines) + "\r\n"


def _extmap(ids: ExtensionIds, directed: frozenset[str]) -> Iterator[str]:
    numbers = (ids.abs_send_time, ids.mid, ids.playout_delay, ids.transport_sequence)
    for number, uri in zip(numbers, EXTENSIONS, strict=True):
        if number is not None:
            yield f"a=extmap:{number}{'/sendonly' if uri in directed else ''} {uri}"


def _default_address(candidates: Sequence[str]) -> tuple[str, int]:
    """Address and port of the first candidate (RFC 8839 section 5.1)."""
    parts = candidates[0].split()
    return parts[4], int(parts[5])
