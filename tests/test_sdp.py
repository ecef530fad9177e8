"""Offers of real browsers answered, and everything else refused in one sentence."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from aiortc.sdp import SessionDescription
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.errors import NoCommonCodecError, OfferError
from tests.offers import (
    AUDIO,
    CANDIDATES,
    CHROMIUM,
    DATA_CHANNEL,
    FINGERPRINT,
    FIREFOX,
    HOSTILE,
    OFFERS,
    answered,
    without,
)
from workers.answer import restart_fragment
from workers.forward.packets import ExtensionIds
from workers.sdp import parse_fragment, parse_offer
from workers.sections import MAX_SIZE, _remembered


def test_chromiums_offer_is_read() -> None:
    offer = parse_offer(CHROMIUM)
    assert (offer.payload_type, offer.rtx_payload_type) == (96, 97)
    assert offer.extensions == ExtensionIds(abs_send_time=2, mid=9, playout_delay=5, transport_sequence=4)
    assert (offer.ufrag, offer.password) == ("52XX", "sKI3B4W8vHl7pvplfsdgs/IP")
    assert offer.fingerprints == (
        (
            "sha-256",
            "2C:DC:E7:D1:B6:B4:A3:60:E2:EC:31:1E:95:03:4D:C5:DD:7E:7B:43:9C:82:C0:AE:95:FC:77:AC:E2:B2:3B:1F",
        ),
    )
    assert (offer.mid, offer.bundled, offer.reduced_size, offer.video) == ("0", True, True, 0)
    assert offer.feedback == ("nack", "nack pli", "ccm fir", "transport-cc")


def test_firefoxs_offer_is_read() -> None:
    offer = parse_offer(FIREFOX)
    assert (offer.payload_type, offer.rtx_payload_type) == (120, 124)
    assert offer.extensions == ExtensionIds(abs_send_time=4, mid=3, playout_delay=6, transport_sequence=7)
    assert (offer.ufrag, offer.password) == ("3327472c", "e3679378cd01d9cb95710629c6c04cee")
    assert offer.fingerprints[0][1].startswith("28:2D:9B")
    assert offer.feedback == ("nack", "nack pli", "ccm fir", "transport-cc")


@pytest.mark.parametrize("name", OFFERS)
def test_the_answer_reads_back_with_another_parser(name: str) -> None:
    offer = parse_offer(OFFERS[name])
    parsed = SessionDescription.parse(answered(offer))
    (media,) = parsed.media
    assert (media.kind, media.port, media.host, media.direction) == ("video", 40000, "192.0.2.7", "sendonly")
    assert media.rtcp_mux
    assert [codec.mimeType for codec in media.rtp.codecs] == ["video/VP8", "video/rtx"]
    assert [codec.payloadType for codec in media.rtp.codecs] == [offer.payload_type, offer.rtx_payload_type]
    assert [feedback.type for feedback in media.rtp.codecs[0].rtcpFeedback] == ["nack", "nack", "ccm", "transport-cc"]
    assert media.ice is not None
    assert (media.ice.usernameFragment, media.ice.password, media.ice.iceLite) == ("abcd", "p" * 22, True)
    assert media.dtls is not None
    assert media.dtls.role == "server"
    assert [(one.algorithm, one.value) for one in media.dtls.fingerprints] == [("sha-256", FINGERPRINT)]
    assert [candidate.port for candidate in media.ice_candidates] == [40000] * 3
    assert media.ice_candidates_complete
    assert {one.id for one in media.rtp.headerExtensions} >= {offer.extensions.abs_send_time, offer.extensions.mid}
    assert [(source.ssrc, source.cname) for source in media.ssrc] == [(1234, "viewer"), (5678, "viewer")]
    assert [(group.semantic, group.items) for group in media.ssrc_group] == [("FID", [1234, 5678])]
    assert [(group.semantic, group.items) for group in parsed.group] == [("BUNDLE", ["0"])]


def test_a_direction_is_answered_only_where_one_was_offered() -> None:
    assert "a=extmap:6/sendonly http://www.webrtc.org/experiments/rtp-hdrext/playout-delay" in answered(
        parse_offer(FIREFOX)
    )
    assert "a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay" in answered(parse_offer(CHROMIUM))


@pytest.mark.parametrize("name", OFFERS)
def test_the_answer_is_complete_and_offers_nothing_more(name: str) -> None:
    lines = answered(parse_offer(OFFERS[name])).split("\r\n")
    for line in ("v=0", "a=ice-lite", "a=setup:passive", "a=rtcp-rsize", "a=end-of-candidates", "a=rtcp-mux"):
        assert lines.count(line) == 1
    assert lines[-1] == ""
    assert sum("transport-wide" in line for line in lines) == 1
    assert not any("goog-remb" in line for line in lines)


@pytest.mark.parametrize("missing", ["a=rtcp-fb:96 transport-cc", "a=extmap:4 "])
def test_remb_is_answered_where_one_half_of_transport_wide_feedback_is_missing(missing: str) -> None:
    offer = parse_offer(without(CHROMIUM, missing))
    assert offer.extensions.transport_sequence is None
    assert offer.feedback == ("nack", "nack pli", "ccm fir", "goog-remb")
    assert "transport" not in answered(offer)


def test_other_sections_are_refused_in_their_order() -> None:
    session, video = CHROMIUM.split("m=video", 1)
    offer = parse_offer(session.replace("BUNDLE 0", "BUNDLE a 0 d") + AUDIO + "m=video" + video + DATA_CHANNEL)
    parsed = SessionDescription.parse(answered(offer))
    assert [(media.kind, media.port, media.rtp.muxId) for media in parsed.media] == [
        ("audio", 0, "a"),
        ("video", 40000, "0"),
        ("application", 0, "d"),
    ]
    assert parsed.group[0].items == ["0"]


def test_a_second_video_section_and_a_rejected_one_are_refused() -> None:
    session, video = CHROMIUM.split("m=video", 1)
    rejected = "m=video 0 UDP/TLS/RTP/SAVPF 96\na=mid:x\n"
    second = ("m=video" + video).replace("a=mid:0", "a=mid:y")
    offer = parse_offer(session + rejected + "m=video" + video + second)
    assert offer.video == 1
    assert [media.port for media in SessionDescription.parse(answered(offer)).media] == [0, 40000, 0]


def test_without_rtx_nothing_of_retransmission_is_answered() -> None:
    offer = parse_offer(CHROMIUM.replace("a=fmtp:97 apt=96\n", ""))
    assert offer.rtx_payload_type is None
    text = answered(offer)
    assert offer.feedback == ("nack pli", "ccm fir", "transport-cc")
    assert "rtx" not in text
    assert "5678" not in text
    assert "FID" not in text


def test_what_was_not_offered_is_not_answered() -> None:
    bare = CHROMIUM
    for start in ("a=extmap", "a=rtcp-fb", "a=rtcp-rsize", "a=mid", "a=group"):
        bare = without(bare, start)
    offer = parse_offer(bare)
    assert (offer.mid, offer.bundled, offer.extensions) == ("", False, ExtensionIds())
    text = answered(offer)
    assert not any(word in text for word in ("extmap", "rtcp-fb", "rtcp-rsize", "a=mid", "BUNDLE"))


@pytest.mark.parametrize(
    "line",
    [
        "a=extmap:15 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
        "a=extmap:0 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
        "a=extmap:9 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
        "a=extmap:2/sendonly http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
        "a=extmap:2/inactive http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    ],
)
def test_extensions_that_cannot_be_sent_are_left_out(line: str) -> None:
    mid_first = without(CHROMIUM, "a=extmap") + "a=extmap:9 urn:ietf:params:rtp-hdrext:sdes:mid\n" + line + "\n"
    assert parse_offer(mid_first).extensions == ExtensionIds(mid=9)


def test_what_two_offers_have_in_common_does_not_mix_them_up() -> None:
    first = parse_offer(CHROMIUM)
    fingerprint = ":".join(["0F"] * 32)
    changes = {"ice-ufrag": "Other", "ice-pwd": "another/password/of/22", "fingerprint": f"sha-256 {fingerprint}"}
    text = CHROMIUM
    for name, value in changes.items():
        text = re.sub(rf"a={name}:[^\r\n]+", f"a={name}:{value}", text)
    other = parse_offer(text)
    assert (other.ufrag, other.password) == ("Other", "another/password/of/22")
    assert other.fingerprints == (("sha-256", fingerprint),)
    same: dict[str, Any] = {"ufrag": first.ufrag, "password": first.password, "fingerprints": first.fingerprints}
    assert dataclasses.replace(other, **same) == first == parse_offer(CHROMIUM)
    with pytest.raises(NoCommonCodecError):
        parse_offer(CHROMIUM.replace("VP8/", "XY/"))


def test_a_section_that_is_too_long_to_be_remembered_is_read_all_the_same() -> None:
    long = CHROMIUM.rstrip("\r\n") + "\r\n" + "a=x-filler:0123456789abcdef\r\n" * 400
    before = _remembered.cache_info().currsize
    assert parse_offer(long + "a=x-more\r\n") == parse_offer(CHROMIUM)
    assert _remembered.cache_info().currsize <= before + 1, "the audio section's, at most"


def test_line_ends_and_session_level_attributes_may_vary() -> None:
    moved = without(without(FIREFOX, "a=ice-"), "a=setup").replace(
        "t=0 0\n", "t=0 0\na=ice-ufrag:3327472c\na=ice-pwd:e3679378cd01d9cb95710629c6c04cee\na=setup:actpass\n"
    )
    assert parse_offer(moved.replace("\n", "\r\n")) == parse_offer(FIREFOX)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "v=0"),
        ("hello", "v=0"),
        ("v=0\nnonsense\n", "type=value"),
        ("v=0\na=\x00\n", "type=value"),
        (CHROMIUM.split("m=video")[0], "no video"),
        (CHROMIUM.replace("m=video", "m=audio"), "no video"),
        (CHROMIUM.replace("m=video 9", "m=video 0"), "no video"),
        (CHROMIUM.replace("m=video 9", "m=video 99999"), "port"),
        (CHROMIUM.replace("m=video 9", "m=video nine"), "port"),
        (CHROMIUM.replace(" 96 97", " 96 1000"), "payload type"),
        (CHROMIUM.replace("a=rtpmap:96", "a=rtpmap:x"), "payload type"),
        (CHROMIUM.replace("a=fmtp:97", "a=fmtp:-1"), "payload type"),
        (CHROMIUM.replace("a=extmap:2 ", "a=extmap:two "), "header extension"),
        (CHROMIUM.replace("a=extmap:2 ", "a=extmap:2"), "extmap"),
        (CHROMIUM.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), "protocol"),
        (CHROMIUM.replace("a=recvonly", "a=sendonly"), "sendonly"),
        (CHROMIUM.replace("a=recvonly", "a=inactive"), "inactive"),
        (without(CHROMIUM, "a=rtcp-mux"), "rtcp-mux"),
        (without(CHROMIUM, "a=ice-ufrag"), "ice-ufrag"),
        (CHROMIUM.replace("a=ice-ufrag:52XX", "a=ice-ufrag:5 X"), "ice-ufrag"),
        (without(CHROMIUM, "a=ice-pwd"), "ice-pwd"),
        (CHROMIUM.replace("a=ice-pwd:", "a=ice-pwd:\u00e9"), "ice-pwd"),
        (without(CHROMIUM, "a=fingerprint"), "fingerprint"),
        (CHROMIUM.replace("sha-256 2C:DC", "sha-256 2C"), "fingerprint"),
        (CHROMIUM.replace("sha-256", "md5"), "fingerprint"),
        (CHROMIUM.replace("actpass", "passive"), "setup"),
        (CHROMIUM.replace("a=mid:0", "a=mid:two words"), "mid"),
        (CHROMIUM + "a=x\n" * 5000, "lines"),
        (CHROMIUM + "a=" + "x" * MAX_SIZE, "larger"),
        (CHROMIUM + "a=" + "\u20ac" * (MAX_SIZE // 3), "larger"),
        (CHROMIUM + AUDIO * 64, "media sections"),
        ("v=0\nm=video 9\n", "makes no sense"),
    ],
)
def test_offers_that_make_no_sense_are_refused_in_a_sentence(text: str, words: str) -> None:
    with pytest.raises(OfferError, match=words) as caught:
        parse_offer(text)
    assert caught.value.status == 422
    assert str(caught.value).endswith(".")


def test_an_offer_without_vp8_has_no_common_codec() -> None:
    with pytest.raises(NoCommonCodecError, match="VP8") as caught:
        parse_offer(CHROMIUM.replace("VP8/90000", "VP7/90000"))
    assert caught.value.status == 406


def survives(text: str) -> None:
    try:
        offer = parse_offer(text)
    except (OfferError, NoCommonCodecError) as error:
        assert str(error).endswith(".")
        return
    answer_lines = answered(offer).split("\r\n")
    assert all(line[1:2] == "=" for line in answer_lines[:-1])
    assert sum(line.startswith("m=") for line in answer_lines) == len(offer.sections)


@settings(deadline=None)
@given(st.text())
def test_hostile_text_is_refused(text: str) -> None:
    survives(text)
    survives("v=0\n" + text)


@settings(deadline=None)
@given(st.sampled_from(sorted(OFFERS)), st.lists(st.tuples(st.integers(0, 200), HOSTILE), max_size=4))
def test_hostile_changes_to_real_offers_are_refused_or_answered(name: str, changes: list[tuple[int, str]]) -> None:
    lines = OFFERS[name].splitlines()
    for place, line in changes:
        lines[place % len(lines)] = line
    survives("\n".join(lines))


@settings(deadline=None)
@given(st.text())
def test_hostile_fragments_are_refused(text: str) -> None:
    for fragment in (text, f"a=ice-ufrag:{text}\r\n", f"m=video 9 X 0\r\na=ice-pwd:{text}"):
        try:
            parse_fragment(fragment)
        except OfferError as error:
            assert str(error).endswith(".")


def test_a_trickled_candidate_is_read() -> None:
    fragment = parse_fragment(
        "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
        "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0\r\na=end-of-candidates\r\n"
    )
    assert (fragment.ufrag, fragment.password) == ("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1")
    assert fragment.candidates == ("candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0",)


def test_an_empty_fragment_names_nothing() -> None:
    fragment = parse_fragment("")
    assert (fragment.ufrag, fragment.password, fragment.candidates) == (None, None, ())


@pytest.mark.parametrize(
    "text", ["a=ice-ufrag:x\r\n", "a=ice-ufrag:abcd\r\na=ice-pwd:short\r\n", "a=ice-pwd:" + 22 * "p"]
)
def test_fragments_with_bad_credentials_are_refused(text: str) -> None:
    with pytest.raises(OfferError):
        parse_fragment(text)


def test_a_restart_reads_back_as_what_was_written() -> None:
    text = restart_fragment(parse_offer(CHROMIUM), ufrag="wxyz", password="q" * 22, candidates=CANDIDATES)
    fragment = parse_fragment(text)
    assert (fragment.ufrag, fragment.password, fragment.candidates) == ("wxyz", "q" * 22, tuple(CANDIDATES))
    assert "a=ice-lite\r\n" in text
    assert "m=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n" in text
    assert text.endswith("a=end-of-candidates\r\n")
