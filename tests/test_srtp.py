"""A viewer's private SRTP sessions."""

from __future__ import annotations

from pathlib import Path

import pylibsrtp
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pylibsrtp import Policy, Session
from pylibsrtp._binding import ffi

from broadcaster.clock import WallClock
from broadcaster.errors import ConfigurationError
from tests.rtp_viewer import GCM, KEY_SIZES, Keys
from tests.sanitized import ROUNDS, assert_nothing_found
from workers.forward import default_fanout, srtp
from workers.forward.srtp import CHOICE, TAG_SIZE, SrtpSession
from workers.forward.state import ffi as kernel_ffi
from workers.forward.state import lib as kernel

SPEAKERS = 8
needs_cipher = pytest.mark.skipif(srtp.obstacle() is not None, reason=str(srtp.obstacle()))


def keys(profile: int) -> Keys:
    return Keys(profile, b"t" * KEY_SIZES[profile], b"r" * KEY_SIZES[profile])


def rtp(sequence: int) -> bytes:
    return b"\x80\x60" + sequence.to_bytes(2, "big") + bytes(4) + b"\x00\x00\x00\x07" + b"payload" * 30


def rtcp(ssrc: int) -> bytes:
    return b"\x80\xc9\x00\x01" + ssrc.to_bytes(4, "big") + b"report" * 4


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


def derive(master: bytes, label: int) -> bytes:
    """RFC 3711 section 4.3."""
    block = int.from_bytes(master[16:] + bytes(4), "big") ^ label << 64
    encryptor = Cipher(algorithms.AES(master[:16]), modes.ECB()).encryptor()
    return encryptor.update(block.to_bytes(16, "big"))


def nonce(salt: bytes, ssrc: bytes, number: int) -> bytes:
    start = bytes(2) + ssrc + number.to_bytes(6, "big")
    return bytes(one ^ other for one, other in zip(start, salt[:12], strict=True))


def by_the_book(master: bytes, sequence: int, header: bytes, payload: bytes) -> bytes:
    """RFC 7714 section 8."""
    iv = nonce(derive(master, 2), header[8:12], sequence & 0xFFFFFFFFFFFF)
    return header + AESGCM(derive(master, 0)).encrypt(iv, payload, header)


def control_by_the_book(master: bytes, index: int, packet: bytes, *, encrypted: bool = True) -> bytes:
    """RFC 7714 section 9: an RTCP packet as SRTCP."""
    cipher, trailer = AESGCM(derive(master, 3)), (encrypted << 31 | index).to_bytes(4, "big")
    iv = nonce(derive(master, 5), packet[4:8], index)
    if encrypted:
        return packet[:8] + cipher.encrypt(iv, packet[8:], packet[:8] + trailer) + trailer
    return packet + cipher.encrypt(iv, b"", packet + trailer) + trailer


def seal(session: SrtpSession, sequence: int, header: int, packet: bytes, *, apart: bool = False) -> tuple[int, bytes]:
    """The packet stands at the end of its memory but for the tag, so that a sanitizer or guard sees who goes on; what
    may stand `apart` does."""
    memory = kernel_ffi.new("uint8_t[]", len(packet) + 16)
    size = kernel_ffi.new("int *", len(packet))
    near = header + kernel.BC_NEAR if apart else len(packet)
    more = kernel_ffi.from_buffer("uint8_t[]", packet[near:]) if near < len(packet) else kernel_ffi.NULL
    kernel_ffi.memmove(memory, packet, min(near, len(packet)))
    error = kernel.bc_seal(session.cipher, sequence, header, memory, more, size)
    return error, bytes(kernel_ffi.buffer(memory, size[0]))


@needs_cipher
@given(
    st.binary(min_size=28, max_size=28),
    st.integers(0, 2**48 - 1),
    st.binary(min_size=12, max_size=300),
    st.one_of(st.binary(max_size=300), st.integers(0, 1500).map(lambda size: b"\x5a" * size)),
)
@example(bytes(28), 2**48 - 1, bytes(12), bytes(127))
@example(bytes(28), 0x10000, bytes(129), bytes(128))
@example(bytes(28), 0, bytes(12), bytes(257))
@example(bytes(28), 0, bytes(12), bytes(range(256)) * 4 + bytes(114))
def test_the_kernels_cipher_does_what_the_rfc_says(master: bytes, sequence: int, header: bytes, payload: bytes) -> None:
    expected = by_the_book(master, sequence, header, payload)
    for apart in (False, True):
        session = SrtpSession(Keys(GCM, master, bytes(28)))
        assert seal(session, sequence, len(header), header + payload, apart=apart) == (0, expected)


@needs_cipher
def test_a_receiver_follows_the_kernels_cipher_when_numbers_wrap() -> None:
    session = SrtpSession(keys(GCM))
    receiver = Session(Policy(key=b"t" * 28, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=GCM))
    for sequence in range(0xFFF0, 0x3_0010, 0x10):
        packet = rtp(sequence & 0xFFFF)
        assert receiver.unprotect(seal(session, sequence, 12, packet)[1]) == packet


@needs_cipher
def test_the_kernels_cipher_takes_no_number_twice() -> None:
    session = SrtpSession(keys(GCM))
    packet = rtp(5)
    assert seal(session, 5, 12, packet)[0] == 0
    assert seal(session, 5, 12, packet) == (1, packet)
    assert seal(session, 4, 12, packet) == (1, packet)
    assert seal(session, 6, 12, rtp(6))[0] == 0


@needs_cipher
@settings(deadline=None)
@given(
    st.binary(min_size=28, max_size=28),
    st.lists(
        st.tuples(
            st.integers(0, SPEAKERS - 1),
            st.one_of(st.integers(-3, 3), st.integers(-140, 140), st.integers(-(2**31), 2**31)),
            st.one_of(st.binary(max_size=300), st.integers(0, 1400).map(lambda size: b"\xa5" * size)),
            st.sampled_from(["", "", "", "readable", "flipped", "cut", "again"]),
            st.integers(0, 10_000),
        ),
        max_size=40,
    ),
)
def test_the_kernel_reads_srtcp_as_libsrtp_does(master: bytes, said: list[tuple[int, int, bytes, str, int]]) -> None:
    """Any speakers with any indices: each packet is taken by both, and is then the same, or by none."""
    one = SrtpSession(Keys(GCM, bytes(28), master))
    two = Session(Policy(key=master, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=GCM))
    newest = dict.fromkeys(range(SPEAKERS), 0)
    before = b""
    for speaker, step, body, fate, place in said:
        index = newest[speaker] = min(max(0, newest[speaker] + step), 2**31 - 1)
        plain = b"\x80\xc9\x00\x01" + speaker.to_bytes(4, "big") + body
        data = control_by_the_book(master, index, plain, encrypted=fate != "readable")
        at = place % len(data)
        if fate == "flipped":
            data = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
        elif fate == "cut":
            data = data[:at]
        elif fate == "again":
            data = before
        before = data
        try:
            expected = bytes(two.unprotect_rtcp(data))
        except pylibsrtp.Error:
            expected = None
        assert one.unprotect_rtcp(data) == expected
        assert expected in (None, plain) or fate == "again"


@needs_cipher
@pytest.mark.parametrize("encrypted", [True, False])
def test_a_window_of_indices_may_come_late_and_none_twice(encrypted: bool) -> None:
    master = b"r" * 28
    session = SrtpSession(Keys(GCM, b"t" * 28, master))
    packets = {
        index: control_by_the_book(master, index, rtcp(7), encrypted=encrypted)
        for index in (0, 1, 2, 128, 129, 2**31 - 1)
    }
    heard = [session.unprotect_rtcp(packets[index]) is not None for index in (1, 128, 1, 128, 2, 0, 129, 2)]
    assert heard == [True, True, False, False, True, False, True, False]
    assert session.unprotect_rtcp(packets[2**31 - 1]) == rtcp(7)
    assert session.unprotect_rtcp(packets[129]) is None


@needs_cipher
def test_a_forged_index_does_not_move_the_window() -> None:
    master = b"r" * 28
    session = SrtpSession(Keys(GCM, b"t" * 28, master))
    assert session.unprotect_rtcp(control_by_the_book(b"x" * 28, 10_000, rtcp(7))) is None
    assert session.unprotect_rtcp(control_by_the_book(master, 1, rtcp(7))) == rtcp(7)


@needs_cipher
def test_a_viewer_speaks_for_a_few_ssrcs_and_each_counts_by_itself() -> None:
    master = b"r" * 28
    session = SrtpSession(Keys(GCM, b"t" * 28, master))
    ssrcs = range(SPEAKERS + 1)
    for ssrc in ssrcs:
        assert session.unprotect_rtcp(control_by_the_book(b"x" * 28, 1, rtcp(100 + ssrc))) is None, "takes no place"
    for index in (1, 2):
        said = [session.unprotect_rtcp(control_by_the_book(master, index, rtcp(ssrc))) for ssrc in ssrcs]
        assert said == [*[rtcp(ssrc) for ssrc in ssrcs[:-1]], None]


def test_no_sanitizer_finds_anything(tmp_path: Path) -> None:
    assert_nothing_found(tmp_path, "cipher_harness.c", rounds=50 * ROUNDS)


@needs_cipher
def test_only_the_profile_that_it_knows_gets_the_kernels_cipher(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = {profile: SrtpSession(keys(profile)) for profile in KEY_SIZES}
    for profile, session in sessions.items():
        assert (session.cipher is not None, session.control is not None) == (profile == GCM, profile == GCM)
    monkeypatch.setenv(CHOICE, "libsrtp")
    session = SrtpSession(keys(GCM))
    assert (session.cipher, session.control) == (None, None)


def test_a_choice_of_ciphers_that_cannot_be_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHOICE, "rot13")
    with pytest.raises(ConfigurationError, match="native or libsrtp"):
        default_fanout(WallClock.anchored())
    monkeypatch.setenv(CHOICE, "native")
    monkeypatch.setattr(srtp, "kernel", None)
    with pytest.raises(ConfigurationError, match="the C kernel was not built"):
        default_fanout(WallClock.anchored())
