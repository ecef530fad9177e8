"""Consent checks by both receivers: answered alike, most of them without Python, and each one once only."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.errors import StunError
from tests.handmade_viewer import check, seen
from tests.listened_viewer import Connection
from workers.forward.state import ffi, lib, socket_address
from workers.transport import Endpoint, stun
from workers.transport.mux import TransportSettings
from workers.transport.path import Path


async def test_plain_checks_are_answered_without_python(
    endpoint: Endpoint, connection: Connection, receiver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []
    take = endpoint._mux._check

    def noted(data: bytes, path: Path) -> None:
        read.append(data)
        take(data, path)

    monkeypatch.setattr(endpoint._mux, "_check", noted)
    viewer, before = connection.viewer, endpoint.statistics.checks
    for how in ({}, {"use_candidate": False}):
        answer = await viewer.check(**how)
        assert answer.attributes["XOR-MAPPED-ADDRESS"] == viewer.address
    assert endpoint.statistics.checks == before + 2
    assert len(read) == (2 if receiver == "python" else 0)
    assert (await viewer.check(controlling=False)).attributes["ERROR-CODE"][0] == 487


async def test_checks_that_are_answered_without_python_keep_consent(endpoint: Endpoint, connection: Connection) -> None:
    peer, mux = connection.served.peer, endpoint._mux
    peer.deadline = 0.0
    await connection.viewer.check()
    now = asyncio.get_running_loop().time()
    mux.tick(now)
    assert peer.state == "connected"
    assert now < peer.deadline <= now + mux.settings.consent_timeout
    peer.deadline = 0.0
    mux.tick(now)
    assert (peer.state, connection.served.reasons) == ("closed", ["timeout"])


async def test_a_check_that_was_answered_without_python_is_no_news_from_elsewhere(
    endpoint: Endpoint, connection: Connection
) -> None:
    viewer, peer = connection.viewer, connection.served.peer
    recorded = [check(viewer.ufrag, viewer.password) for _ in range(TransportSettings().remembered_checks)]
    count = len(viewer.answers)
    for data in recorded:
        viewer.send(data)
    await viewer.until(lambda: len(viewer.answers) == count + len(recorded))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        for data in recorded:
            other.sendto(data, viewer.server)
        await seen(endpoint, len(recorded), "replayed")
    assert peer.path is not None
    assert peer.path.address == viewer.address


async def test_after_a_restart_only_the_new_credentials_are_answered(connection: Connection) -> None:
    viewer, peer = connection.viewer, connection.served.peer
    await viewer.check()
    old, new = (viewer.ufrag, viewer.password), peer.restart()
    await viewer.check()
    viewer.ufrag, viewer.password = new
    await viewer.check()
    await viewer.check()
    viewer.ufrag, viewer.password = old
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(viewer.check(), 0.1)


async def test_a_viewer_that_moves_is_answered_in_both_places(connection: Connection) -> None:
    viewer, peer = connection.viewer, connection.served.peer
    first = viewer.address
    await viewer.check()
    viewer.hang_up()
    await viewer.open()
    for _ in range(2):
        assert (await viewer.check()).attributes["XOR-MAPPED-ADDRESS"] == viewer.address != first
    assert peer.path is not None
    assert peer.path.address == viewer.address


PASSWORD, UFRAG, VIEWER_AT = b"password" * 3, b"ufragufr", ("127.0.0.1", 4711)
attributes = st.one_of(
    st.tuples(st.sampled_from([0x0025, 0x0024, 0xC057, 0x8029, 0x802A]), st.binary(max_size=9)),
    st.tuples(
        st.just(0xC001), st.one_of(st.integers(0, 9).map(lambda value: value.to_bytes(4, "big")), st.binary(max_size=5))
    ),
    st.tuples(st.just(0x0006), st.sampled_from([UFRAG, UFRAG + b":x", UFRAG[:-1], UFRAG + b"x:y", b":" + UFRAG, b""])),
)


@settings(deadline=None, max_examples=500)
@given(
    st.lists(attributes, max_size=6),
    st.sampled_from([b"", b"f", b"F", b"more"]),
    st.one_of(st.none(), st.tuples(st.integers(0, 10_000), st.integers(1, 255))),
    st.sampled_from([VIEWER_AT, ("127.0.0.1", 4712), ("2001:db8::7", 4711, 0, 0), ("2001:db8::7", 4711, 5, 0)]),
)
def test_the_kernel_answers_as_python_does_or_leaves_it_to_python(
    listed: list[tuple[int, bytes]],
    end: bytes,
    damage: tuple[int, int] | None,
    address: Any,
) -> None:
    body = struct.pack("!HH", 6, len(UFRAG)) + UFRAG if not any(kind == 6 for kind, _ in listed) else b""
    for kind, value in listed:
        body += struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)
    transaction, head = b"transaction!", b"\x00\x01"
    digest = hmac.digest(PASSWORD, head + struct.pack("!H", len(body) + 24) + stun.COOKIE + transaction + body, "sha1")
    body += b"\x00\x08\x00\x14" + digest
    size = struct.pack("!H", len(body) + (8 if end else 0))
    check = head + size + stun.COOKIE + transaction + body
    if end:
        crc = zlib.crc32(check) ^ (0x5354554E if end == b"f" else 0)
        check += struct.pack("!HHI", 0x8028, 4, crc) if end != b"more" else b"12345678"
    if damage is not None:
        place = damage[0] % len(check)
        check = check[:place] + bytes([check[place] ^ damage[1]]) + check[place + 1 :]

    consent = ffi.new("bc_consent *", {"socket": 7, "nomination": 4})
    where = socket_address(VIEWER_AT if address == VIEWER_AT or len(address) == 2 else ("2001:db8::7", 4711, 0, 0))
    consent.address_size, consent.address[0 : len(where)] = len(where), where
    assert lib.bc_consent_open(consent, UFRAG, len(UFRAG), PASSWORD, len(PASSWORD))
    answer, came_from = ffi.new("uint8_t[96]"), socket_address(address)
    length = lib.bc_consent_answer(
        consent, check, len(check), 7, ffi.from_buffer(came_from), len(came_from), 5.0, answer
    )

    expected = b""
    with contextlib.suppress(StunError):
        request = stun.parse(check) if check[0] < 4 else None
        if request is not None and request.ufrag == UFRAG and stun.is_authentic(request, PASSWORD):
            moves = request.use_candidate and request.nomination > 4
            if came_from == where and not request.controlled and not moves:
                expected = stun.success(request.transaction, PASSWORD, address)
    assert bytes(answer)[:length] == expected
    assert (consent.checks, consent.checked_at) == ((1, 5.0) if expected else (0, 0.0))
    assert not lib.bc_consent_answer(
        consent, check, len(check), 8, ffi.from_buffer(came_from), len(came_from), 5.0, answer
    )
