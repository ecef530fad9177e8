"""Offers of real browsers, what hostile ones are made of, and an answer."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from workers.answer import answer
from workers.sdp import Offer

DATA = Path(__file__).parent / "data"
CHROMIUM = (DATA / "chromium156_offer.sdp").read_text()
FIREFOX = (DATA / "firefox153_offer.sdp").read_text()
OFFERS = {"chromium": CHROMIUM, "firefox": FIREFOX}
FINGERPRINT = ":".join(["AB"] * 32)
CANDIDATES = [
    "candidate:1 1 udp 2130706431 192.0.2.7 40000 typ host",
    "candidate:2 1 udp 2130706175 127.0.0.1 40000 typ host",
    "candidate:3 1 tcp 1694498815 192.0.2.7 40000 typ host tcptype passive",
]
AUDIO = "m=audio 9 UDP/TLS/RTP/SAVPF 111\nc=IN IP4 0.0.0.0\na=mid:a\na=rtpmap:111 opus/48000/2\na=recvonly\n"
DATA_CHANNEL = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\nc=IN IP4 0.0.0.0\na=mid:d\na=sctp-port:5000\n"

LINES = [line for text in OFFERS.values() for line in text.splitlines()]
HOSTILE = st.one_of(
    st.sampled_from(LINES),
    st.text(max_size=40),
    st.builds(
        lambda line, place, text: line[:place] + text + line[place + 1 :],
        st.sampled_from(LINES),
        st.integers(0, 60),
        st.text(max_size=4),
    ),
)


def answered(offer: Offer, *, sound: bool = False) -> str:
    return answer(
        offer,
        ufrag="abcd",
        password="p" * 22,
        fingerprint=FINGERPRINT,
        candidates=CANDIDATES,
        ssrc=1234,
        rtx_ssrc=5678,
        cname="viewer",
        session_id=99,
        sound_ssrc=91011 if sound else None,
    )


def without(text: str, start: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(start))
