"""The C kernel: the same bytes as its twin in Python, for every viewer alone, and never beyond its arrays."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cffi import FFI
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.clock import WallClock
from broadcaster.errors import ConfigurationError
from broadcaster.stream import EncodedFrame
from tests.outlet_state import NOW, content, fanout, told
from tests.rtp_viewer import CLOCK, KEY_SIZES, PARAMETERS, DatagramPath, RtpViewer, StreamPath, frame
from tests.sanitized import KERNEL, assert_nothing_found
from workers.forward import native, packets
from workers.forward.agreement import OutletParameters
from workers.forward.fanout import MAX_BATCH, Audience, Fanout, PythonFanout
from workers.forward.history import LostPacket
from workers.forward.native import CHOICE, NativeFanout, default_fanout
from workers.forward.packets import CHUNK_SIZE, ExtensionIds
from workers.forward.state import ffi

ROOT = Path(__file__).parent.parent


@st.composite
def negotiated(draw: st.DrawFn) -> OutletParameters:
    """Any subset of the extensions, any mid."""
    chosen = draw(st.permutations(range(1, 15)))
    taken = [number if draw(st.booleans()) else None for number in chosen[:4]]
    mid = draw(st.text("abz09", max_size=packets.MAX_MID))
    return replace(PARAMETERS, extensions=ExtensionIds(*taken), mid=mid, payload_type=draw(st.integers(96, 127)))


frames = st.builds(
    EncodedFrame,
    rung=st.integers(0, 2),
    index=st.integers(0, 1000),
    timestamp=st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 20).map(lambda number: (number - 10) * 3000 % 2**32)),
    keyframe=st.booleans(),
    layer=st.integers(0, 3),
    sync=st.booleans(),
    payload=st.one_of(
        st.binary(min_size=1, max_size=40),
        st.tuples(st.integers(1, 4), st.integers(-1, 1)).map(lambda size: bytes(size[0] * CHUNK_SIZE + size[1])),
        st.integers(1, 2 * MAX_BATCH * CHUNK_SIZE).map(lambda size: b"\xa5" * size),
    ),
)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(sorted(KEY_SIZES)),
    negotiated(),
    st.lists(frames, min_size=1, max_size=12),
    st.tuples(*[st.integers(-6, 6)] * 5),
    st.booleans(),
)
def test_kernel_and_twin_send_the_same_bytes_and_keep_the_same_state(
    profile: int, parameters: OutletParameters, pictures: list[EncodedFrame], start: tuple[int, ...], segments: bool
) -> None:
    with (
        RtpViewer(profile=profile, parameters=parameters, start=9) as one,
        RtpViewer(profile=profile, parameters=parameters, start=9) as two,
    ):
        two.outlet.srtp.cipher = None  # libsrtp is what the kernel's cipher is held to
        for viewer in (one, two):
            state = viewer.outlet.state
            state.sequence = 0x10000 + start[0] if start[0] < 0 else start[0]
            state.picture_id, state.tl0 = (start[1] & 0x7FFF), start[2] & 0xFF
            state.key_index, state.transport_sequence = start[3] & 0x1F, start[4] & 0xFFFF
            state.segmentation = segments
        kernel, twin = fanout(), PythonFanout(CLOCK, monotonic=lambda: NOW)
        for picture in pictures:
            sent = kernel.send(picture, Audience([one.outlet]))
            assert sent == twin.send(picture, Audience([two.outlet])) == -(-len(picture.payload) // CHUNK_SIZE)
            assert one.datagrams() == two.datagrams()
        assert content(one.outlet) == content(two.outlet)
        assert told(one.outlet) == told(two.outlet)
        assert bool(told(one.outlet)) == (parameters.extensions.transport_sequence is not None)
        assert one.outlet.drops == 0


@settings(deadline=None, max_examples=150)
@given(
    negotiated(),
    st.lists(st.tuples(frames, st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=8)), max_size=8),
    st.booleans(),
    st.booleans(),
)
def test_a_frame_in_parts_is_the_same_bytes_as_whole_whoever_sends_which_part(
    parameters: OutletParameters,
    pictures: list[tuple[EncodedFrame, list[tuple[int, bool]]]],
    segments: bool,
    rest_by_kernel: bool,
) -> None:
    with RtpViewer(parameters=parameters, start=9) as one, RtpViewer(parameters=parameters, start=9) as two:
        whole, senders = fanout(), (PythonFanout(CLOCK, monotonic=lambda: NOW), fanout())
        for viewer in (one, two):
            viewer.outlet.state.segmentation = segments
            viewer.outlet.state.sequence = 0x10000 - 9
        for picture, cuts in pictures:
            whole.send(picture, Audience([one.outlet]))
            serial, other = (sender.shelve(picture) for sender in senders)
            assert serial == other
            first, total, sent = 0, packets.packets_of(picture), 0
            for count, by_kernel in [*cuts, (total, rest_by_kernel)]:
                end = min(first + count, total)
                if first < end:
                    sent += senders[by_kernel].send_part(picture, serial, Audience([two.outlet]), first, end)
                first = end
            assert sent == total
            assert one.datagrams() == two.datagrams()
        assert content(one.outlet) == content(two.outlet)


@pytest.mark.parametrize("make", [PythonFanout, NativeFanout])
def test_a_part_that_does_not_continue_is_not_sent(make: Any) -> None:
    with RtpViewer() as viewer, RtpViewer(number=1) as fresh:
        sender: Fanout = make(CLOCK, lambda: NOW)
        audience = Audience([viewer.outlet])
        one, two = frame(1), frame(2)
        first, second = sender.shelve(one), sender.shelve(two)
        assert sender.send_part(one, first, Audience([fresh.outlet]), 1, 4) == 0
        assert (fresh.outlet.drops, fresh.outlet.packets) == (3, 0)
        assert sender.send_part(one, first, audience, 0, 2) == 2
        assert sender.send_part(one, first, audience, 3, 4) == 0
        assert sender.send_part(two, second, audience, 2, 4) == 0
        assert sender.send_part(one, first, audience, 2, 3) == 1
        assert viewer.outlet.drops == 3
        assert sender.send_part(two, second, audience, 0, 4) == 4
        assert sender.send_part(one, first, audience, 3, 4) == 0
        numbers = [packet.sequence for packet in viewer.received()]
        assert numbers == list(range(numbers[0], numbers[0] + 7))


@pytest.mark.parametrize("make", [PythonFanout, NativeFanout])
def test_a_frame_goes_on_where_the_viewer_has_moved_to(make: Any) -> None:
    with RtpViewer() as viewer:
        sender: Fanout = make(CLOCK, lambda: NOW)
        stream, datagrams = StreamPath(viewer.sender), viewer.outlet.path
        picture, received = frame(1, size=8 * CHUNK_SIZE), []
        serial = sender.shelve(picture)
        for first, path in ((0, datagrams), (2, stream), (4, datagrams), (6, stream)):
            viewer.outlet.path = path
            assert sender.send_part(picture, serial, Audience([viewer.outlet]), first, first + 2) == 2
            received += [*viewer.received(), *(viewer.decrypt(data) for data in stream.sent)]
            stream.sent.clear()
        assert b"".join(packet.chunk for packet in received) == picture.payload
        assert [packet.marker for packet in received] == [False] * 7 + [True]


@pytest.mark.parametrize(("profile", "family"), [*product(KEY_SIZES, (socket.AF_INET, socket.AF_INET6))])
def test_a_receiver_decrypts_what_the_kernel_sends(profile: int, family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with (
        RtpViewer(profile=profile, start=32_767) as viewer,
        socket.socket(family, socket.SOCK_DGRAM) as receiver,
        socket.socket(family, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind((host, 0))
        receiver.settimeout(5)
        viewer.outlet.path = DatagramPath(sender, receiver.getsockname())
        kernel = fanout()
        for index in range(20):
            picture = frame(index, size=3000, keyframe=index == 0, layer=index % 3)
            assert kernel.send(picture, Audience([viewer.outlet])) == 3
            received = [viewer.decrypt(receiver.recv(2000)) for _ in range(3)]
            assert b"".join(packet.chunk for packet in received) == picture.payload
            assert {(packet.layer, packet.timestamp) for packet in received} == {(index % 3, picture.timestamp)}
            assert [packet.sequence for packet in received] == [32_767 + 3 * index + place for place in range(3)]


def test_many_viewers_on_several_sockets_get_what_is_theirs() -> None:
    with ExitStack() as stack:
        viewers = [stack.enter_context(RtpViewer(number=number)) for number in range(70)]
        for viewer in viewers:
            viewer.outlet.path = DatagramPath(viewers[viewers.index(viewer) % 3].sender, viewer.socket.getsockname())
        audience = Audience.of(viewer.outlet for viewer in viewers)
        descriptors = [outlet.state.socket for outlet in audience]
        assert descriptors == sorted(descriptors)
        kernel = fanout()
        for index in range(3):
            picture = frame(index, size=9000)
            assert kernel.send(picture, audience) == 70 * 8
            for number, viewer in enumerate(viewers):
                received = viewer.received()
                assert b"".join(packet.chunk for packet in received) == picture.payload
                assert {packet.ssrc for packet in received} == {PARAMETERS.ssrc + number}


def test_the_time_of_each_viewers_packets_is_read_for_this_viewer() -> None:
    clock = WallClock.anchored()
    with RtpViewer() as one, RtpViewer(number=1) as two:
        kernel = NativeFanout(clock)
        before = clock.wall(time.monotonic())
        kernel.send(frame(0, size=MAX_BATCH * CHUNK_SIZE), Audience([one.outlet, two.outlet]))
        after = clock.wall(time.monotonic())
        first, second = ({packet.extensions[2] for packet in viewer.received()} for viewer in (one, two))
        stamps = [int.from_bytes(stamp, "big") / 2**18 for stamp in (*first, *second)]
        assert before % 64 - 1e-5 <= stamps[0] < stamps[1] <= after % 64


def test_a_route_without_segmentation_gets_single_datagrams_from_then_on() -> None:
    no_checksums = 11  # SO_NO_CHECK, with which Linux refuses UDP_SEGMENT
    with RtpViewer() as refused, RtpViewer(number=1) as healthy:
        refused.sender.setsockopt(socket.SOL_SOCKET, no_checksums, 1)
        kernel = fanout()
        audience = Audience([refused.outlet, healthy.outlet])
        for index in range(3):
            assert kernel.send(frame(index), audience) == 8
            assert [len(viewer.received()) for viewer in (refused, healthy)] == [4, 4]
        assert [outlet.state.segmentation for outlet in audience] == [False, True]
        assert refused.outlet.octets == healthy.outlet.octets == 3 * (4000 + 4 * 6)
        assert refused.outlet.drops == 0


@pytest.mark.parametrize("address", [("127.0.0.1", 0), ("255.255.255.255", 9), ("0.0.0.0", 0)])
def test_an_address_that_cannot_be_reached_costs_nobody_else(address: tuple[str, int]) -> None:
    with RtpViewer() as broken, RtpViewer(number=1) as before, RtpViewer(number=2) as after:
        for viewer in (before, after):
            viewer.outlet.path = DatagramPath(broken.sender, viewer.socket.getsockname())
        broken.outlet.path = DatagramPath(broken.sender, address)
        audience = Audience([before.outlet, broken.outlet, after.outlet])
        assert fanout().send(frame(0), audience) == 8
        assert (broken.outlet.drops, broken.outlet.packets, broken.outlet.octets) == (4, 0, 0)
        assert [len(viewer.received()) for viewer in (before, after)] == [4, 4]


def test_a_socket_that_was_closed_costs_nobody_else() -> None:
    with RtpViewer() as broken, RtpViewer(number=1) as healthy:
        audience = Audience([broken.outlet, healthy.outlet])
        broken.sender.close()
        assert fanout().send(frame(0), audience) == 4
        assert broken.outlet.drops == 4
        assert len(healthy.received()) == 4


def test_viewers_over_tcp_go_the_slower_way_with_the_same_numbers() -> None:
    with RtpViewer() as stream, RtpViewer(number=1) as datagrams:
        path = StreamPath(stream.sender)
        audience = Audience.of([stream.outlet, datagrams.outlet])
        kernel = fanout()
        assert kernel.send(frame(0), audience) == 8
        before = stream.received()
        stream.outlet.path = path
        assert kernel.send(frame(1), audience) == 8
        between = [stream.decrypt(data) for data in path.sent]
        stream.outlet.path = stream.path
        assert kernel.send(frame(2), audience) == 8
        received = [*before, *between, *stream.received()]
        numbers = [packet.sequence for packet in received]
        assert numbers == list(range(numbers[0], numbers[0] + 12))
        assert len({packet.picture_id for packet in received}) == 3
        assert len(datagrams.received()) == 12


@pytest.mark.parametrize("make", [PythonFanout, NativeFanout])
def test_transport_wide_numbers_count_every_packet_retransmissions_too(make: Any) -> None:
    parameters = replace(PARAMETERS, extensions=ExtensionIds(abs_send_time=2, transport_sequence=3))
    with RtpViewer(parameters=parameters) as viewer:
        viewer.outlet.state.transport_sequence = 0xFFFE
        sender: Fanout = make(CLOCK, lambda: NOW)
        sender.send(frame(0), Audience([viewer.outlet]))
        first = viewer.received()
        lost = LostPacket(first[0].sequence, first[0].timestamp, False, first[0].payload[:6], 0, 0)
        sender.resend(viewer.outlet, [lost])
        sender.send(frame(1), Audience([viewer.outlet]))
        numbers = [int.from_bytes(packet.extensions[3], "big") for packet in [*first, *viewer.received()]]
        assert numbers == [0xFFFE, 0xFFFF, 0, 1, 2, 3, 4, 5, 6]


def test_a_damaged_state_is_refused_and_costs_nobody_else() -> None:
    with RtpViewer() as broken, RtpViewer(number=1) as healthy:
        audience = Audience([broken.outlet, healthy.outlet])
        kernel, state = fanout(), broken.outlet.state
        damages = {
            "extensions_size": (33, 36, 255, 18),
            "tag_size": (17, 255),
            "time_at": (18, 255),
            "transport_at": (19, 255),
            "payload_type": (128,),
            "address_size": (0, 15, 29, 255),
            "capacity": (0,),
            "srtp": (ffi.NULL,),
            "records": (ffi.NULL,),
        }
        count = 0
        for name, values in damages.items():
            sound = getattr(state, name)
            for value in values:
                setattr(state, name, value)
                assert kernel.send(frame(count), audience) == 4
                count += 1
                assert broken.outlet.drops == 4 * count
                assert broken.datagrams() == []
            setattr(state, name, sound)
        assert len(healthy.received()) == 4 * count
        assert kernel.send(frame(99), audience) == 8


def test_a_frame_of_an_impossible_shape_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    with RtpViewer() as viewer:
        audience = Audience([viewer.outlet])
        for picture in (frame(0, size=0), replace(frame(0), layer=4), frame(0, size=4096 * CHUNK_SIZE + 1)):
            assert fanout().send(picture, audience) == 0
        assert len(caplog.records) == 3
        assert viewer.datagrams() == []


def test_python_without_the_compiled_kernel_sees_the_same_memory() -> None:
    plain = FFI()
    for part in ("cipher", "feedback", "estimate", "kernel"):
        plain.cdef((KERNEL / f"{part}.h").read_text())
    for name in ("bc_outlet", "bc_record", "bc_frame", "bc_path"):
        assert plain.sizeof(name) == ffi.sizeof(name)
        assert [(field, place.offset) for field, place in plain.typeof(name).fields] == [
            (field, place.offset) for field, place in ffi.typeof(name).fields
        ]


def test_both_twins_have_the_same_sizes() -> None:
    constants = dict(re.findall(r"^    ([A-Z]+) = (\d+),", (KERNEL / "kernel.c").read_text(), re.MULTILINE))
    assert int(constants["CHUNK"]) == CHUNK_SIZE
    assert int(constants["RUN"]) == MAX_BATCH
    assert int(constants["HEADER"]) == packets.HEADER_SIZE
    assert int(constants["DESCRIPTOR"]) == packets.DESCRIPTOR_SIZE


def test_the_fastest_fanout_is_taken_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.delenv(CHOICE, raising=False)
    assert isinstance(default_fanout(CLOCK), NativeFanout)
    assert caplog.messages == ["packets are sent by the C kernel"]
    monkeypatch.setenv(CHOICE, "python")
    assert isinstance(default_fanout(CLOCK), PythonFanout)
    monkeypatch.setenv(CHOICE, "native")
    assert isinstance(default_fanout(CLOCK), NativeFanout)
    monkeypatch.setenv(CHOICE, "fast")
    with pytest.raises(ConfigurationError, match="'fast'; it can be native or python"):
        default_fanout(CLOCK)


@pytest.mark.parametrize(("name", "value", "reason"), [("lib", None, "not built"), ("DIRECT", False, "signature")])
def test_without_a_kernel_python_sends_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: Any, reason: str
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.delenv(CHOICE, raising=False)
    monkeypatch.setattr(native, name, value)
    assert isinstance(default_fanout(CLOCK), PythonFanout)
    assert reason in caplog.messages[-1]
    monkeypatch.setenv(CHOICE, "native")
    with pytest.raises(ConfigurationError, match=reason):
        default_fanout(CLOCK)


def test_a_machine_without_a_compiler_still_installs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "-b", str(tmp_path / "lib"), "-t", str(tmp_path / "temp")],
        cwd=ROOT,
        env={**os.environ, "CC": "no-such-compiler"},
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert "the C kernel is left out" in done.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_no_sanitizer_finds_anything(tmp_path: Path) -> None:
    assert_nothing_found(tmp_path, "kernel_harness.c", "cipher.c", "estimate.c")
