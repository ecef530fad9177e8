"""A viewer's private SRTP sessions."""

from __future__ import annotations

import pytest
from pylibsrtp import Policy, Session
from pylibsrtp._binding import ffi

from tests.rtp_viewer import GCM, KEY_SIZES, Keys
from workers.forward import srtp
from workers.forward.srtp import TAG_SIZE, SrtpSession


def keys(profile: int) -> Keys:
    return Keys(profile, b"t" * KEY_SIZES[profile], b"r" * KEY_SIZES[profile])


def rtp(sequence: int) -> bytes:
    return b"\x80\x60" + sequence.to_bytes(2, "big") + bytes(4) + b"\x00\x00\x00\x07" + b"payload" * 30


def protect_in_place(function: srtp.Protect, context: object, packet: bytes) -> tuple[int, bytes]:
    memory = ffi.new("char[]", 1500)
    length = ffi.new("int *", len(packet))
    ffi.memmove(memory, packet, len(packet))
    return function(context, memory, length), bytes(ffi.buffer(memory, length[0]))


def test_libsrtp_is_called_directly_here() -> None:
    assert srtp.DIRECT, "pylibsrtp's srtp_protect changed its signature: teach srtp.py the new one"


@pytest.mark.parametrize("profile", KEY_SIZES)
def test_both_ways_to_protect_give_the_same_packet(profile: int) -> None:
    session = SrtpSession(keys(profile))
    error, direct = protect_in_place(srtp.protect, session.context, rtp(1))
    policy = Policy(key=b"t" * KEY_SIZES[profile], ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile)
    fallback_error, detour = protect_in_place(srtp._protect_through_session, Session(policy), rtp(1))
    assert (error, fallback_error) == (0, 0)
    assert direct == detour
    assert len(direct) == len(rtp(1)) + TAG_SIZE[profile]


def test_a_sequence_number_is_never_protected_twice() -> None:
    session = SrtpSession(keys(GCM))
    assert protect_in_place(srtp.protect, session.context, rtp(5))[0] == 0
    assert protect_in_place(srtp.protect, session.context, rtp(5))[0] != 0
    policy = Policy(key=b"t" * 28, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=GCM)
    detour = Session(policy)
    assert protect_in_place(srtp._protect_through_session, detour, rtp(5))[0] == 0
    assert protect_in_place(srtp._protect_through_session, detour, rtp(5))[0] != 0


@pytest.mark.parametrize("profile", KEY_SIZES)
def test_rtcp_passes_both_ways_and_forgeries_do_not(profile: int) -> None:
    mine = SrtpSession(keys(profile))
    other = SrtpSession(Keys(profile, b"r" * KEY_SIZES[profile], b"t" * KEY_SIZES[profile]))
    report = b"\x80\xc9\x00\x01\x00\x00\x00\x07"
    protected = other.protect_rtcp(report)
    assert mine.unprotect_rtcp(protected) == report
    assert mine.unprotect_rtcp(protected) is None, "a repeated packet"
    flipped = bytearray(other.protect_rtcp(report))
    flipped[-1] ^= 1
    assert mine.unprotect_rtcp(bytes(flipped)) is None
    assert mine.unprotect_rtcp(b"") is None
    assert mine.unprotect_rtcp(bytes(5000)) is None
