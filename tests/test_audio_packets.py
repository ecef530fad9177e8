"""Packets of sound: the same bytes from kernel and twin, beside the pictures on one transport, and their reports."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.adaptation.levels import Level
from broadcaster.stream import EncodedSound, sound_timestamp_at, timestamp_at
from tests.outlet_state import NOW, content, fanout, told
from tests.rtp_viewer import CLOCK, KEY_SIZES, PARAMETERS, DatagramPath, RtpViewer, StreamPath, frame
from workers.forward import ExtensionIds, Forwarder, NativeFanout, OutletParameters, PythonFanout, SoundParameters
from workers.forward.fanout import Audience, Fanout
from workers.forward.packets import CHUNK_SIZE, MAX_MID, MAX_SOUND
from workers.forward.state import ffi

SOUND = SoundParameters(0x33333333, 111, ExtensionIds(abs_send_time=2, mid=9, transport_sequence=3), "1")
HEARING = replace(
    PARAMETERS, sound=SOUND, extensions=ExtensionIds(abs_send_time=2, mid=9, playout_delay=5, transport_sequence=3)
)


def sound(index: int = 0, size: int = 160) -> EncodedSound:
    return EncodedSound(index, index * 960 & 0xFFFFFFFF, bytes([index & 0xFF]) * size)


def heard_by(viewer: RtpViewer) -> list[Any]:
    return [packet for packet in viewer.received() if packet.ssrc == SOUND.ssrc]


@st.composite
def negotiated(draw: st.DrawFn) -> OutletParameters:
    """Any subset of the extensions of the pictures, and any of the sound's as far as the pictures have them."""
    chosen = draw(st.permutations(range(1, 15)))
    taken = [number if draw(st.booleans()) else None for number in chosen[:4]]
    ids = ExtensionIds(*taken)
    own = ExtensionIds(
        abs_send_time=chosen[0] if draw(st.booleans()) else None,
        mid=chosen[1] if draw(st.booleans()) else None,
        transport_sequence=ids.transport_sequence if draw(st.booleans()) else None,
    )
    mid = draw(st.text("abz09", max_size=MAX_MID))
    return replace(HEARING, extensions=ids, sound=SoundParameters(SOUND.ssrc, draw(st.integers(0, 127)), own, mid))


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(sorted(KEY_SIZES)),
    negotiated(),
    st.lists(st.one_of(st.integers(1, MAX_SOUND), st.sampled_from([0, -1])), min_size=1, max_size=15),
    st.integers(-6, 6),
)
def test_kernel_and_twin_send_the_same_bytes_and_keep_the_same_state(
    profile: int, parameters: OutletParameters, steps: list[int], start: int
) -> None:
    with (
        RtpViewer(profile=profile, parameters=parameters, start=9) as one,
        RtpViewer(profile=profile, parameters=parameters, start=9) as two,
    ):
        for viewer in (one, two):
            assert viewer.outlet.sound is not None
            viewer.outlet.state.transport_sequence = start & 0xFFFF
            viewer.outlet.sound.state.sequence = 0x10000 + start if start < 0 else start
        kernel, twin = fanout(), PythonFanout(CLOCK, monotonic=lambda: NOW)
        for number, step in enumerate(steps):
            if step > 0:
                packet = sound(number, step)
                assert kernel.send_sound(packet, Audience([one.outlet])) == 1
                assert twin.send_sound(packet, Audience([two.outlet])) == 1
            else:
                picture = frame(number, size=2000, keyframe=step == 0)
                assert kernel.send(picture, Audience([one.outlet])) == twin.send(picture, Audience([two.outlet])) == 2
            assert one.datagrams() == two.datagrams()
        contents = [content(viewer.outlet) for viewer in (one, two)]
        assert all(kept.pop("sound") for kept in contents)
        assert contents[0] == contents[1]
        assert told(one.outlet) == told(two.outlet)
        assert one.outlet.sound is not None
        assert two.outlet.sound is not None
        assert bytes(ffi.buffer(one.outlet.sound.state)) == bytes(ffi.buffer(two.outlet.sound.state))
        assert (one.outlet.drops, one.outlet.wire_octets) == (0, two.outlet.wire_octets)


@pytest.mark.parametrize("make", [PythonFanout, NativeFanout])
def test_a_receiver_finds_opus_in_the_packets(make: Any) -> None:
    with RtpViewer(parameters=HEARING) as viewer:
        sender: Fanout = make(CLOCK, lambda: NOW)
        for index in range(5):
            assert sender.send_sound(sound(index), Audience([viewer.outlet])) == 1
        packets = viewer.received()
        numbers = [packet.sequence for packet in packets]
        assert numbers == list(range(numbers[0], numbers[0] + 5))
        assert [packet.timestamp for packet in packets] == [0, 960, 1920, 2880, 3840]
        assert [packet.payload for packet in packets] == [sound(index).payload for index in range(5)]
        assert {(packet.ssrc, packet.payload_type, packet.marker) for packet in packets} == {(SOUND.ssrc, 111, False)}
        assert {packet.extensions[9] for packet in packets} == {b"1"}
        assert {len(packet.extensions[2]) for packet in packets} == {3}


@pytest.mark.parametrize("make", [PythonFanout, NativeFanout])
def test_sound_and_pictures_share_the_transport_wide_numbers_and_nothing_else(make: Any) -> None:
    with RtpViewer(parameters=HEARING, start=7) as viewer:
        sender: Fanout = make(CLOCK, lambda: NOW)
        audience = Audience([viewer.outlet])
        picture = frame(1, size=4 * CHUNK_SIZE, keyframe=True)
        serial = sender.shelve(picture)
        sender.send_sound(sound(0), audience)
        sender.send_part(picture, serial, audience, 0, 2)
        sender.send_sound(sound(1), audience)
        sender.send_part(picture, serial, audience, 2, 4)
        sender.send_sound(sound(2), audience)
        packets = viewer.received()
        assert [packet.ssrc == SOUND.ssrc for packet in packets] == [True, False, False, True, False, False, True]
        assert [int.from_bytes(packet.extensions[3], "big") for packet in packets] == list(range(7))
        assert [packet.sequence for packet in packets] == [7, 7, 8, 8, 9, 10, 9]
        assert b"".join(packet.chunk for packet in packets if packet.ssrc != SOUND.ssrc) == picture.payload
        outlet = viewer.outlet
        assert (outlet.packets, outlet.sound_packets, outlet.drops) == (4, 3, 0)
        assert outlet.wire_octets == sum(packet.datagram_size for packet in packets)


@pytest.mark.parametrize("make", [PythonFanout, NativeFanout])
def test_what_left_as_sound_is_known_when_feedback_speaks_of_it(make: Any) -> None:
    with RtpViewer(parameters=HEARING, start=0) as viewer:
        now = [NOW]
        sender: Fanout = make(CLOCK, lambda: now[0])
        outlet = viewer.outlet
        assert outlet.estimator is not None
        for index in range(100):
            now[0] = NOW + index * 0.02
            sender.send_sound(sound(index), Audience([outlet]))
            outlet.estimator.arrived(now[0] + 0.01, [(index, round((now[0] + 0.005) / 250e-6))])
        state = outlet.estimator.state(now[0] + 0.01)
        size = viewer.received()[0].datagram_size
        assert state.throughput == pytest.approx(size * 8 * 50, rel=0.1)
        assert (state.loss, state.measured) == (0.0, 100)


@pytest.mark.parametrize("make", [PythonFanout, NativeFanout])
def test_sound_over_tcp_and_to_those_who_have_none(make: Any) -> None:
    with RtpViewer(parameters=HEARING) as viewer, RtpViewer(number=1) as deaf:
        sender: Fanout = make(CLOCK, lambda: NOW)
        stream = StreamPath(viewer.sender)
        viewer.outlet.path = stream
        assert sender.send_sound(sound(3), Audience.of([deaf.outlet, viewer.outlet])) == 1
        assert [viewer.decrypt(data).payload for data in stream.sent] == [sound(3).payload]
        assert (deaf.outlet.drops, deaf.received()) == (1, [])
        stream.open = False
        assert sender.send_sound(sound(4), Audience([viewer.outlet])) == 0
        assert viewer.outlet.drops == 1
        viewer.outlet.path = DatagramPath(viewer.sender, viewer.socket.getsockname())
        assert sender.send_sound(sound(5), Audience([viewer.outlet])) == 1
        assert len(heard_by(viewer)) == 1


@pytest.mark.parametrize("make", [PythonFanout, NativeFanout])
@pytest.mark.parametrize("size", [0, MAX_SOUND + 1])
def test_what_does_not_fit_is_not_sent(make: Any, size: int) -> None:
    with RtpViewer(parameters=HEARING) as viewer:
        sender: Fanout = make(CLOCK, lambda: NOW)
        assert sender.send_sound(EncodedSound(0, 0, bytes(size)), Audience([viewer.outlet])) == 0
        assert viewer.received() == []


def test_reports_of_sound_and_pictures_date_the_same_moment() -> None:
    with RtpViewer(parameters=HEARING) as viewer:
        sender, outlet = PythonFanout(CLOCK, lambda: NOW), viewer.outlet
        outlet.report(NOW)
        assert viewer.datagrams() == []
        sender.send_sound(sound(0, 100), Audience([outlet]))
        sender.send(frame(0), Audience([outlet]))
        viewer.datagrams()
        outlet.report(NOW + 1)
        reports = [viewer.decrypt_rtcp(datagram) for datagram in viewer.datagrams()]
        fields = {ssrc: rest for _, ssrc, *rest in (struct.unpack_from("!IIQIII", report) for report in reports)}
        wall = CLOCK.wall(NOW + 1)
        assert fields[SOUND.ssrc] == [CLOCK.ntp(NOW + 1), sound_timestamp_at(wall), 1, 100]
        assert fields[PARAMETERS.ssrc][:2] == [CLOCK.ntp(NOW + 1), timestamp_at(wall)]
        assert all(b"\x01\x08beamcast" in report for report in reports)
        # The pictures stop, and the sound goes on.
        for index in range(3):
            sender.send_sound(sound(index), Audience([outlet]))
            viewer.datagrams()
            outlet.report(NOW + 2 + index)
        said = [struct.unpack_from("!4xI", viewer.decrypt_rtcp(datagram))[0] for datagram in viewer.datagrams()]
        assert said == [SOUND.ssrc]


def test_reports_about_the_sound_leave_the_pictures_figures_alone() -> None:
    with RtpViewer(parameters=HEARING, start=0) as viewer:
        outlet = viewer.outlet
        block = struct.Struct("!IIIIII")
        for ssrc, lost in ((PARAMETERS.ssrc, 0), (SOUND.ssrc, 40)):
            fraction = 128 if lost else 0
            body = block.pack(ssrc, fraction << 24 | lost, 100, 0, 0, 0)
            viewer.say(struct.pack("!BBHI", 0x81, 201, 7, 1) + body, NOW)
        assert (outlet.feedback.loss, outlet.feedback.packets_lost) == (0.0, 0)
        # A NACK and a PLI for the sound ask for nothing.
        viewer.say(struct.pack("!BBHIIHH", 0x81, 205, 3, 1, SOUND.ssrc, 5, 0), NOW)
        viewer.say(struct.pack("!BBHII", 0x81, 206, 2, 1, SOUND.ssrc), NOW)
        assert (outlet.nacks, outlet.plis) == (0, 0)


class Paused:
    """A selector that takes nothing."""

    timestamp = 0
    current: Level | None = None
    waiting_for: int | None = None
    entry: int | None = None
    steady: int | None = None

    def accepts(self, picture: object) -> bool:
        return False


def test_a_forwarder_sends_sound_to_listeners_whatever_pictures_they_get() -> None:
    demands: list[tuple[dict[int, int], int]] = []
    with RtpViewer(parameters=HEARING) as one, RtpViewer(parameters=HEARING) as two, RtpViewer(number=2) as deaf:
        forwarder = Forwarder(
            PythonFanout(CLOCK, lambda: NOW),
            lambda rung, patient: None,
            lambda demand: demands.append((dict(demand), forwarder.listeners)),
            monotonic=lambda: NOW,
        )
        forwarder.sound(sound(0))
        for viewer in (one, two, deaf):
            forwarder.attach(viewer.outlet, Paused())
        assert forwarder.listeners == 2
        forwarder.sound(sound(1))
        assert [len(heard_by(viewer)) for viewer in (one, two)] == [1, 1]
        assert deaf.datagrams() == []
        forwarder.tick(NOW + 1)
        assert len(one.datagrams()) == len(two.datagrams()) == 1
        forwarder.detach(one.outlet)
        forwarder.sound(sound(2))
        assert [len(heard_by(viewer)) for viewer in (one, two)] == [0, 1]
        forwarder.detach(two.outlet)
        forwarder.detach(deaf.outlet)
        forwarder.sound(sound(3))
    assert demands == [({}, 1), ({}, 2), ({}, 1), ({}, 0)]
