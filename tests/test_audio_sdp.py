"""Sound in offers and answers: accepted beside the video where it can be sent, refused properly where it cannot."""

from __future__ import annotations

from functools import partial

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import SessionDescription
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.errors import NoCommonCodecError, OfferError
from tests import offers
from tests.offers import AUDIO, CANDIDATES, CHROMIUM, DATA_CHANNEL, HOSTILE, without
from workers.answer import restart_fragment
from workers.forward.packets import ExtensionIds
from workers.sdp import parse_fragment, parse_offer

BOTH = {
    "chromium": (offers.DATA / "chromium156_sound_offer.sdp").read_text(),
    "firefox": (offers.DATA / "firefox153_sound_offer.sdp").read_text(),
}


answered = partial(offers.answered, sound=True)


def swapped(text: str) -> str:
    """The same offer with the sound first."""
    session, video = text.split("m=video", 1)
    video, audio = video.split("m=audio", 1)
    return session.replace("BUNDLE 0 1", "BUNDLE 1 0") + "m=audio" + audio + "m=video" + video


def test_chromiums_sound_is_read() -> None:
    sound = parse_offer(BOTH["chromium"]).sound
    assert sound is not None
    assert (sound.section, sound.mid, sound.payload_type, sound.reduced_size) == (1, "1", 111, True)
    assert sound.extensions == ExtensionIds(abs_send_time=2, mid=9, transport_sequence=4)


def test_firefoxs_sound_is_read_although_its_port_is_0() -> None:
    assert "m=audio 0 " in BOTH["firefox"]
    sound = parse_offer(BOTH["firefox"]).sound
    assert sound is not None
    assert (sound.section, sound.mid, sound.payload_type, sound.reduced_size) == (1, "1", 109, False)
    assert sound.extensions == ExtensionIds(mid=3, transport_sequence=7)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("sound_first", [False, True])
def test_the_answer_reads_back_with_another_parser(name: str, sound_first: bool) -> None:
    offer = parse_offer(swapped(BOTH[name]) if sound_first else BOTH[name])
    parsed = SessionDescription.parse(answered(offer))
    first, second = parsed.media
    video, audio = (second, first) if sound_first else (first, second)
    assert offer.sound is not None
    assert (audio.kind, audio.port, audio.direction) == ("audio", 40000, "sendonly")
    assert (video.kind, video.port, video.direction) == ("video", 40000, "sendonly")
    assert audio.rtcp_mux and video.rtcp_mux
    (opus,) = audio.rtp.codecs
    assert (opus.mimeType, opus.payloadType, opus.clockRate, opus.channels) == (
        "audio/opus",
        offer.sound.payload_type,
        48_000,
        2,
    )
    assert [feedback.type for feedback in opus.rtcpFeedback] == ["transport-cc"]
    assert [(source.ssrc, source.cname) for source in audio.ssrc] == [(91011, "viewer")]
    assert audio.msid is not None and video.msid is not None
    assert audio.msid.split()[0] == video.msid.split()[0], "one stream, which players sync"
    assert parsed.group[0].items == (["1", "0"] if sound_first else ["0", "1"])
    for media in (first, second):
        assert media.ice is not None
        assert (media.ice.usernameFragment, media.ice.password) == ("abcd", "p" * 22)
        assert media.dtls is not None and media.dtls.role == "server"
    # Where the transport is, the first section of the BUNDLE alone tells.
    assert [candidate.port for candidate in first.ice_candidates] == [40000] * 3
    assert not second.ice_candidates
    lines = answered(offer).split("\r\n")
    assert [lines.count(line) for line in ("a=ice-lite", "a=end-of-candidates", "a=rtcp-mux")] == [1, 1, 2]


@pytest.mark.parametrize("name", BOTH)
def test_a_stream_without_sound_rejects_it(name: str) -> None:
    offer = parse_offer(BOTH[name])
    parsed = SessionDescription.parse(answered(offer, sound=False))
    video, audio = parsed.media
    assert (video.port, audio.port, audio.direction, audio.rtp.muxId) == (40000, 0, "inactive", "1")
    assert parsed.group[0].items == ["0"]
    assert "91011" not in answered(offer, sound=False)


def test_an_offer_of_video_alone_is_answered_as_before() -> None:
    offer = parse_offer(CHROMIUM)
    assert offer.sound is None
    assert answered(offer) == answered(offer, sound=False)
    assert "opus" not in answered(offer)


def test_the_video_may_stand_behind_in_its_bundle() -> None:
    """RFC 9143 section 7.2.1: only the first section has to tell about the transport."""
    text = swapped(BOTH["chromium"])
    sound, video = text.split("m=video", 1)
    for start in ("a=ice-ufrag", "a=ice-pwd", "a=fingerprint", "a=setup"):
        video = without(video, start)
    video = video.replace(" 9 UDP", " 0 UDP", 1).replace("a=mid:0", "a=bundle-only\na=mid:0")
    offer = parse_offer(sound + "m=video" + video)
    whole = parse_offer(text)
    assert (offer.ufrag, offer.password, offer.fingerprints) == (whole.ufrag, whole.password, whole.fingerprints)
    assert offer.sound == whole.sound


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("BUNDLE 0 1", "BUNDLE 0"),
        ("a=group:BUNDLE 0 1\n", ""),
        ("m=audio 9", "m=audio 0"),
        ("opus/48000/2", "opus/48000/1"),
        ("opus/48000/2", "speex/16000"),
        ("a=rtpmap:111", "a=rtpmap:x"),
        ("a=recvonly\na=rtcp-mux\na=rtcp-rsize\na=rtcp-xr:rcvr-rtt=all\na=rtpmap:111", "a=recvonly\na=rtpmap:111"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF", "m=audio 9 RTP/AVP"),
    ],
)
def test_sound_that_cannot_be_sent_is_rejected_and_the_video_is_not(old: str, new: str) -> None:
    session, audio = BOTH["chromium"].split("m=audio", 1)
    text = session.replace(old, new) + ("m=audio" + audio).replace(old, new)
    assert text != BOTH["chromium"]
    offer = parse_offer(text)
    assert offer.sound is None
    assert [media.port for media in SessionDescription.parse(answered(offer)).media] == [40000, 0]


@pytest.mark.parametrize("direction", ["sendonly", "inactive"])
def test_sound_that_is_not_wanted_is_rejected(direction: str) -> None:
    session, audio = BOTH["chromium"].split("m=audio", 1)
    assert parse_offer(session + "m=audio" + audio.replace("a=recvonly", f"a={direction}")).sound is None


def test_a_second_section_of_sound_is_rejected() -> None:
    second = AUDIO.replace("a=mid:a", "a=mid:a\na=rtcp-mux")
    offer = parse_offer(BOTH["chromium"].replace("BUNDLE 0 1", "BUNDLE 0 1 a d") + second + DATA_CHANNEL)
    assert [media.port for media in SessionDescription.parse(answered(offer)).media] == [40000, 40000, 0, 0]


@pytest.mark.parametrize(
    "line",
    ["a=extmap:4 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01", "a=rtcp-fb:96 transport"],
)
def test_without_the_videos_numbers_the_sound_has_none(line: str) -> None:
    session, audio = BOTH["chromium"].split("m=audio", 1)
    offer = parse_offer(without(session, line) + "m=audio" + audio)
    assert offer.sound is not None
    assert offer.sound.extensions == ExtensionIds(abs_send_time=2, mid=9)
    assert "transport-wide" not in answered(offer)
    assert "transport-cc" not in answered(offer)


def test_without_the_sounds_feedback_the_video_alone_is_numbered() -> None:
    offer = parse_offer(without(BOTH["chromium"], "a=rtcp-fb:111"))
    assert offer.sound is not None
    assert (offer.extensions.transport_sequence, offer.sound.extensions.transport_sequence) == (4, None)
    assert answered(offer).count("transport-wide") == 1


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("rejected", [False, True], ids=["alone", "video rejected"])
def test_sound_may_be_all_that_is_offered(name: str, rejected: bool) -> None:
    session, rest = BOTH[name].split("m=video", 1)
    video, audio = rest.split("m=audio", 1)
    video = "m=video 0" + video[video.index(" UDP") :] if rejected else ""
    offer = parse_offer(session.replace("BUNDLE 0 1", "BUNDLE 1") + video + "m=audio" + audio)
    assert (offer.video, offer.rtx_payload_type, offer.extensions) == (None, None, ExtensionIds())
    assert offer.sound is not None
    assert offer.sound.extensions.transport_sequence is None
    parsed = SessionDescription.parse(answered(offer))
    assert [(media.kind, media.port) for media in parsed.media] == [("video", 0)] * rejected + [("audio", 40000)]
    assert parsed.group[0].items == ["1"]
    assert "transport-cc" not in answered(offer)
    assert "m=audio 9" in restart_fragment(offer, ufrag="wxyz", password="q" * 22, candidates=CANDIDATES, sound=True)


def test_a_video_without_a_common_codec_is_not_replaced_by_sound() -> None:
    with pytest.raises(NoCommonCodecError):
        parse_offer(BOTH["chromium"].replace("VP8/90000", "VP7/90000"))


def test_a_restart_names_the_section_that_stands_for_the_transport() -> None:
    offer = parse_offer(swapped(BOTH["chromium"]))
    common = {"ufrag": "wxyz", "password": "q" * 22, "candidates": CANDIDATES}
    with_sound = restart_fragment(offer, **common, sound=True)  # type: ignore[arg-type]
    assert "a=group:BUNDLE 1 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:1\r\n" in with_sound
    silent = restart_fragment(offer, **common)  # type: ignore[arg-type]
    assert "a=group:BUNDLE 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n" in silent
    assert parse_fragment(with_sound).ufrag == parse_fragment(silent).ufrag == "wxyz"


async def test_stock_aiortc_takes_the_answer() -> None:
    for kinds in (("video", "audio"), ("audio", "video")):
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        for kind in kinds:
            connection.addTransceiver(kind, direction="recvonly")
        await connection.setLocalDescription(await connection.createOffer())
        offer = parse_offer(connection.localDescription.sdp)
        assert offer.sound is not None
        await connection.setRemoteDescription(RTCSessionDescription(type="answer", sdp=answered(offer)))
        assert [one.currentDirection for one in connection.getTransceivers()] == ["recvonly", "recvonly"]
        await connection.close()


@settings(deadline=None)
@given(
    st.sampled_from(sorted(BOTH)),
    st.lists(st.tuples(st.integers(0, 250), HOSTILE), max_size=4),
    st.booleans(),
)
def test_hostile_changes_to_real_offers_are_refused_or_answered(
    name: str, changes: list[tuple[int, str]], sound: bool
) -> None:
    lines = BOTH[name].splitlines()
    for place, line in changes:
        lines[place % len(lines)] = line
    try:
        offer = parse_offer("\n".join(lines))
    except (OfferError, NoCommonCodecError) as error:
        assert str(error).endswith(".")
        return
    heard = offer.sound is not None and (sound or offer.video is None)
    lines = answered(offer, sound=heard).split("\r\n")
    assert all(line[1:2] == "=" for line in lines[:-1])
    assert sum(line.startswith("m=") for line in lines) == len(offer.sections)
