"""RTCP as viewers send it, for tests: what aiortc can write is written by it, and not by the code under test."""

from __future__ import annotations

import struct
from pathlib import Path

from aiortc.rtp import RtcpByePacket, RtcpPsfbPacket, RtcpReceiverInfo, RtcpRrPacket, RtcpRtpfbPacket, pack_remb_fci
from hypothesis import strategies as st

from tests.transport_feedback import transport_feedback

SSRC = 0x11111111
CORPUS = Path(__file__).parent / "corpus" / "rtcp"


def receiver_report(**values: int) -> bytes:
    block = {"fraction_lost": 0, "packets_lost": 0, "highest_sequence": 0, "jitter": 0, "lsr": 0, "dlsr": 0} | values
    return bytes(RtcpRrPacket(ssrc=1, reports=[RtcpReceiverInfo(ssrc=SSRC, **block)]))


def nack(numbers: list[int]) -> bytes:
    return bytes(RtcpRtpfbPacket(fmt=1, ssrc=1, media_ssrc=SSRC, lost=numbers))


def remb(bitrate: int) -> bytes:
    return bytes(RtcpPsfbPacket(fmt=15, ssrc=1, media_ssrc=0, fci=pack_remb_fci(bitrate, [SSRC, 9])))


PLI = bytes(RtcpPsfbPacket(fmt=1, ssrc=1, media_ssrc=SSRC))
FIR = bytes(RtcpPsfbPacket(fmt=4, ssrc=1, media_ssrc=0, fci=struct.pack("!IBxxx", SSRC, 7)))
BYE = bytes(RtcpByePacket(sources=[1]))
COMPOUND = receiver_report(packets_lost=3, highest_sequence=70_000) + remb(1_000_000) + nack([5, 9]) + PLI + FIR + BYE

_deltas = st.one_of(st.none(), st.integers(0, 255), st.integers(-(2**15), 2**15 - 1))
_small_deltas = st.one_of(st.none(), st.integers(0, 255))
_arrivals = st.one_of(
    st.builds(
        transport_feedback,
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFF),
        st.lists(_deltas, max_size=60),
        chunks=st.sampled_from(("runs", "pairs")),
    ),
    st.builds(
        transport_feedback,
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFF),
        st.lists(_small_deltas, max_size=60),
        chunks=st.just("bits"),
    ),
    st.integers(1, 0xFFFF).map(lambda count: transport_feedback(0xFFF0, 1, [None] * count)),
)
reports = st.one_of(
    st.sampled_from([COMPOUND, PLI, FIR, BYE, receiver_report(packets_lost=-4, lsr=9)]),
    st.sets(st.integers(0, 0xFFFF), min_size=1, max_size=20).map(sorted).map(nack),
    st.integers(0, 0x3FFFF << 45).map(remb),
    _arrivals,
)
"""What a viewer may say in one go."""
