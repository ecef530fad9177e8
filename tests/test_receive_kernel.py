"""The kernel's receiver: it learns what its twin learns, knows each address, and is taken where there is one."""

from __future__ import annotations

import logging
import random
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pylibsrtp import Policy, Session

from broadcaster.errors import ConfigurationError
from tests.rtp_viewer import CLOCK, KEY_SIZES, WITH_TRANSPORT, Keys
from tests.sanitized import KERNEL, ROUNDS, assert_nothing_found
from tests.viewer_reports import reports
from workers.forward import Outlet, OutletSettings, native
from workers.forward.state import address_tuple, ffi, lib, socket_address
from workers.transport import receive
from workers.transport.mux import Mux, TransportSettings
from workers.transport.receive import CHOICE, NativeReceiver, PythonReceiver, default_receiver


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(KEY_SIZES)),
    st.lists(st.tuples(reports, st.integers(0, 3)), min_size=1, max_size=12),
    st.sampled_from((socket.AF_INET, socket.AF_INET6)),
    st.integers(1, 12),
)
def test_an_outlet_learns_the_same_from_both_receivers(
    profile: int, packets: list[tuple[bytes, int]], family: socket.AddressFamily, rate: int
) -> None:
    """Each packet comes 1 tick later than the one before; some are damaged (1), repeated (2) or from a stranger (3)."""
    size = KEY_SIZES[profile]
    keys = Keys(profile, bytes(size), b"r" * size)
    say = Session(Policy(key=keys.rx_key, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile))
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with (
        socket.socket(family, socket.SOCK_DGRAM) as server,
        socket.socket(family, socket.SOCK_DGRAM) as viewer,
        socket.socket(family, socket.SOCK_DGRAM) as stranger,
    ):
        server.bind((host, 0))
        viewer.bind((host, 0))
        path: Any = type("Nowhere", (), {"is_tcp": True})()
        outlets = [
            Outlet(
                WITH_TRANSPORT,
                keys,
                path,
                CLOCK,
                settings=OutletSettings(rtcp_rate=rate),
                randbelow=lambda below: 9 % below,
            )
            for _ in range(2)
        ]
        one, two = outlets
        for outlet in outlets:
            outlet.left(49.0, 0, 0x8000, 0x8000 * 1000)
        mux = Mux(None, TransportSettings())  # type: ignore[arg-type]
        kernel = NativeReceiver(mux)._receiver
        inbox = two.open_inbox()
        where = socket_address(viewer.getsockname())
        assert lib.bc_learn(kernel, where, len(where), inbox.state)
        batch = ffi.new("bc_batch *")
        now = 50.0
        for packet, fate in packets:
            data = say.protect_rtcp(packet)
            if len(data) > TransportSettings().datagram_size:
                continue
            if fate == 1:
                data = data[:-1] + bytes([data[-1] ^ 1])
            now += 0.01
            for _ in range(2 if fate == 2 else 1):
                (stranger if fate == 3 else viewer).sendto(data, server.getsockname())
                assert lib.bc_drain(kernel, server.fileno(), 64, now, batch) == 1
                assert batch.left == 0
                assert batch.dropped_strangers == (fate == 3)
                two.hear(now)
                if fate != 3:
                    one.receive_rtcp(data, now)
        assert one.feedback == two.feedback
        for name in ("plis", "nacks", "rtcp_failures", "rtcp_dropped"):
            assert getattr(one, name) == getattr(two, name)
        size = ffi.sizeof("bc_path")
        assert bytes(ffi.buffer(one.state.path, size)) == bytes(ffi.buffer(two.state.path, size))


@pytest.mark.parametrize("address", [("127.0.0.1", 5), ("255.1.2.3", 65_535), ("fe80::1", 80, 7, 3), ("::", 1, 0, 0)])
def test_addresses_pass_through_the_kernels_form(address: Any) -> None:
    assert address_tuple(ffi.from_buffer(socket_address(address))) == address


def test_the_table_of_addresses_finds_each_and_forgets_each() -> None:
    luck = random.Random(1)
    kernel = NativeReceiver(Mux(None, TransportSettings()))._receiver  # type: ignore[arg-type]
    batch = ffi.new("bc_batch *")
    known: set[int] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        senders = []
        try:
            for _ in range(150):
                sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sender.bind(("127.0.0.1", 0))
                senders.append(sender)
            for _ in range(1500):
                number = luck.randrange(len(senders))
                where = socket_address(senders[number].getsockname())
                if luck.random() < 0.5:
                    lib.bc_learn(kernel, where, len(where), ffi.NULL)
                    known.add(number)
                else:
                    lib.bc_forget(kernel, where, len(where))
                    known.discard(number)
                asked = luck.randrange(len(senders))
                senders[asked].sendto(b"\x80\xc9", server.getsockname())
                assert lib.bc_drain(kernel, server.fileno(), 64, 0.0, batch) == 1
                assert (batch.left, batch.dropped_strangers) == ((1, 0) if asked in known else (0, 1))
        finally:
            for sender in senders:
                sender.close()


async def test_the_fastest_receiver_is_taken_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mux = Mux(None, TransportSettings())  # type: ignore[arg-type]
    caplog.clear()
    monkeypatch.delenv(CHOICE, raising=False)
    assert isinstance(default_receiver(mux), NativeReceiver)
    assert caplog.messages == ["datagrams are received by the C kernel"]
    monkeypatch.setenv(CHOICE, "python")
    assert isinstance(default_receiver(mux), PythonReceiver)
    monkeypatch.setenv(CHOICE, "fast")
    with pytest.raises(ConfigurationError, match="'fast'; it can be native or python"):
        default_receiver(mux)


@pytest.mark.parametrize(("name", "value", "reason"), [("lib", None, "not built"), ("DIRECT", False, "signatures")])
async def test_without_a_kernel_python_receives_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: Any, reason: str
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.delenv(CHOICE, raising=False)
    monkeypatch.setattr(native, name, value)
    mux = Mux(None, TransportSettings())  # type: ignore[arg-type]
    assert isinstance(mux.receiver, PythonReceiver)
    assert reason in caplog.messages[-1]
    monkeypatch.setenv(CHOICE, "native")
    with pytest.raises(ConfigurationError, match=reason):
        default_receiver(mux)


def test_both_languages_take_batches_of_the_same_size() -> None:
    header = (KERNEL / "receive.h").read_text()
    assert f"#define BC_BATCH {receive._BATCH}\n" in header


def test_no_sanitizer_finds_anything(tmp_path: Path) -> None:
    assert_nothing_found(tmp_path, "receive_harness.c", "feedback.c", "estimate.c", "consent.c", rounds=50 * ROUNDS)
