"""STUN: against aioice's parser, against hostile bytes."""

from __future__ import annotations

import contextlib
import os
from typing import Any
from zlib import crc32

import pytest
from aioice import stun as reference
from hypothesis import example, given
from hypothesis import strategies as st

from broadcaster.errors import StunError
from tests.handmade_viewer import check
from workers.transport import stun

PASSWORD = "p" * 24
TRANSACTION = bytes(range(12))


def request(**how: Any) -> bytes:
    return check("ufrag", PASSWORD, **how)


def attribute(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)


def message(*attributes: bytes, kind: int = 1) -> bytes:
    body = b"".join(attributes)
    return kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + stun.COOKIE + TRANSACTION + body


USERNAME = attribute(6, b"ufrag:viewer")
INTEGRITY = attribute(8, bytes(20))


def test_a_browsers_check_is_read_and_authentic() -> None:
    data = request()
    parsed = stun.parse(data)
    assert parsed is not None
    assert (parsed.ufrag, parsed.transaction) == (b"ufrag", data[8:20])
    assert parsed.use_candidate
    assert not parsed.controlled
    assert stun.is_authentic(parsed, PASSWORD.encode())
    assert not stun.is_authentic(parsed, b"another")


def test_roles_and_nominations_are_read() -> None:
    parsed = stun.parse(request(use_candidate=False, controlling=False))
    assert parsed is not None
    assert parsed.controlled
    assert not parsed.use_candidate
    assert parsed.nomination == -1
    nominated = stun.parse(message(USERNAME, attribute(0xC001, b"\x00\x00\x00\x07"), INTEGRITY))
    assert nominated is not None
    assert nominated.nomination == 7


def test_every_changed_bit_of_a_request_is_noticed() -> None:
    data = request()
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            try:
                parsed = stun.parse(bytes(changed))
            except StunError:
                continue
            assert parsed is None or not stun.is_authentic(parsed, PASSWORD.encode())


def test_what_follows_the_integrity_attribute_is_not_read() -> None:
    parsed = stun.parse(message(USERNAME, INTEGRITY))
    assert parsed is not None
    for tail in (attribute(0x25, b""), attribute(6, b"other:x"), attribute(0x8028, bytes(4)), b"\x00\x00\x00\x00"):
        with pytest.raises(StunError):
            stun.parse(message(USERNAME, INTEGRITY, tail))


def test_the_first_username_counts() -> None:
    parsed = stun.parse(message(USERNAME, attribute(6, b"other:x"), INTEGRITY))
    assert parsed is not None
    assert parsed.ufrag == b"ufrag"


@pytest.mark.parametrize("kind", [0x0011, 0x0101, 0x0111, 0x0003, 0x0000])
def test_what_is_no_binding_request_is_none(kind: int) -> None:
    assert stun.parse(message(USERNAME, INTEGRITY, kind=kind)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        message()[:19],
        message(USERNAME, INTEGRITY)[:-1],
        message(USERNAME, INTEGRITY) + b"\x00",
        message(USERNAME, INTEGRITY).replace(stun.COOKIE, bytes(4)),
        message(),
        message(USERNAME),
        message(INTEGRITY),
        message(attribute(6, b""), INTEGRITY),
        message(attribute(6, b":viewer"), INTEGRITY),
        message(USERNAME, attribute(8, bytes(19))),
        message(USERNAME, attribute(8, bytes(32))),
        message(USERNAME, b"\x00\x08\x00\x14"),
        message(USERNAME, b"\x00\x25\xff\xff", INTEGRITY),
        message(b"\x00\x06\xff\xff"),
    ],
)
def test_malformed_messages_raise(data: bytes) -> None:
    with pytest.raises(StunError):
        stun.parse(data)


@given(st.binary(max_size=300))
@example(b"")
def test_any_bytes_are_none_or_our_error(data: bytes) -> None:
    with contextlib.suppress(StunError):
        assert stun.parse(data) is None


@given(st.lists(st.tuples(st.sampled_from([6, 8, 0x24, 0x25, 0x8029, 0x802A, 0xC001, 0x8028, 0x7777]),
                          st.binary(max_size=40)), max_size=8), st.integers(0, 3))  # fmt: skip
def test_any_attributes_are_read_or_refused_and_never_authentic(attributes: list[tuple[int, bytes]], cut: int) -> None:
    data = message(*(attribute(kind, value) for kind, value in attributes))
    try:
        parsed = stun.parse(data[: len(data) - cut])
    except StunError:
        return
    assert parsed is not None
    assert not stun.is_authentic(parsed, PASSWORD.encode())


@pytest.mark.parametrize("address", [("192.0.2.9", 4711), ("2001:db8::5", 65535, 0, 0), ("127.0.0.1", 1, "tcp")])
def test_a_success_is_what_aioice_expects(address: tuple[str, int]) -> None:
    data = stun.success(TRANSACTION, PASSWORD.encode(), address)
    answer = reference.parse_message(data)
    assert (answer.message_method, answer.message_class) == (reference.Method.BINDING, reference.Class.RESPONSE)
    assert answer.attributes["XOR-MAPPED-ADDRESS"] == address[:2]
    assert answer.transaction_id == TRANSACTION
    assert answer.check_message_integrity(PASSWORD.encode())
    assert int.from_bytes(data[-4:], "big") == crc32(data[:-8]) ^ 0x5354554E


def test_a_role_conflict_is_what_aioice_expects() -> None:
    answer = reference.parse_message(stun.role_conflict(TRANSACTION, PASSWORD.encode()))
    assert answer.message_class == reference.Class.ERROR
    assert answer.attributes["ERROR-CODE"][0] == 487
    assert answer.check_message_integrity(PASSWORD.encode())


def test_a_scope_in_an_ipv6_address_is_no_obstacle() -> None:
    data = stun.success(os.urandom(12), PASSWORD.encode(), ("fe80::1%eth0", 5000, 0, 2))
    assert reference.parse_message(data).attributes["XOR-MAPPED-ADDRESS"] == ("fe80::1", 5000)
