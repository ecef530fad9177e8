"""What leaves for each viewer: every packet decrypts, and what must be contiguous is."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from pylibsrtp import Policy

from tests.rtp_viewer import (
    CLOCK,
    KEY_SIZES,
    PARAMETERS,
    DatagramPath,
    Packet,
    RtpViewer,
    StreamPath,
    frame,
)
from workers.forward.agreement import OutletParameters
from workers.forward.fanout import MAX_BATCH, Audience, Fanout, PythonFanout
from workers.forward.history import LostPacket
from workers.forward.packets import CHUNK_SIZE, MAX_DATAGRAM, ExtensionIds


def python() -> PythonFanout:
    return PythonFanout(CLOCK, monotonic=lambda: 5.0)


def joined(packets: list[Packet]) -> bytes:
    return b"".join(packet.chunk for packet in packets)


@pytest.mark.parametrize("profile", KEY_SIZES)
def test_a_frame_reaches_every_viewer_whole_in_its_own_key(fanout: Callable[[], Fanout], profile: int) -> None:
    with ExitStack() as stack:
        viewers = [stack.enter_context(RtpViewer(profile=profile, number=number)) for number in range(5)]
        picture = frame(1, size=4321, keyframe=True)
        assert fanout().send(picture, Audience([viewer.outlet for viewer in viewers])) == 5 * 4
        for number, viewer in enumerate(viewers):
            received = viewer.received()
            assert joined(received) == picture.payload
            assert {packet.ssrc for packet in received} == {PARAMETERS.ssrc + number}
            assert [packet.marker for packet in received] == [False, False, False, True]
            assert [packet.starts_frame for packet in received] == [True, False, False, False]
            assert {packet.timestamp for packet in received} == {picture.timestamp}
            assert viewer.outlet.packets == 4
            assert viewer.outlet.octets == 4321 + 4 * 6 == sum(len(packet.payload) for packet in received)


@pytest.mark.parametrize("size", [1, CHUNK_SIZE, CHUNK_SIZE + 1, MAX_BATCH * CHUNK_SIZE, 100_003, 200_000])
def test_frames_of_every_size_arrive_and_fit(fanout: Callable[[], Fanout], size: int) -> None:
    with RtpViewer() as viewer:
        sender = fanout()
        for index in range(3):
            picture = frame(index, size=size)
            sender.send(picture, Audience([viewer.outlet]))
            received = viewer.received()
            assert joined(received) == picture.payload
            assert max(packet.datagram_size for packet in received) <= MAX_DATAGRAM
            assert [packet.starts_frame for packet in received] == [True] + [False] * (len(received) - 1)
            assert [packet.marker for packet in received] == [False] * (len(received) - 1) + [True]
        assert viewer.outlet.drops == 0


def test_numbers_are_contiguous_across_wraps_skipped_layers_and_switches(fanout: Callable[[], Fanout]) -> None:
    with RtpViewer(start=32_767) as viewer:
        sender = fanout()
        received: list[Packet] = []
        sent = []
        pattern = (0, 2, 1, 2)
        for index in range(33_000):
            layer = pattern[index % 4]
            rung = index // 1000 % 2
            keyframe = index % 1000 == 0
            if layer > index // 500 % 3:
                continue
            picture = frame(index, rung=rung, size=8, layer=layer, keyframe=keyframe)
            sent.append(picture)
            sender.send(picture, Audience([viewer.outlet]))
            received += viewer.received()
        assert len(received) == len(sent)
        assert viewer.outlet.sequence > 0xC000
        tl0, key = 32_767 % 256, 32_767 % 32
        for number, (packet, picture) in enumerate(zip(received, sent, strict=True)):
            tl0 = (tl0 + (picture.layer == 0)) & 0xFF
            key = (key + picture.keyframe) & 0x1F
            assert packet.sequence == (32_767 + number) & 0xFFFF
            assert packet.picture_id == (32_768 + number) & 0x7FFF
            assert (packet.tl0, packet.layer, packet.sync) == (tl0, picture.layer, picture.layer > 0)
            assert packet.key_index == key
            assert packet.timestamp == picture.timestamp


def test_sequence_numbers_wrap_without_breaking_srtp(fanout: Callable[[], Fanout]) -> None:
    with RtpViewer(start=32_767) as viewer:
        sender = fanout()
        count = 0
        for index in range(800):
            sender.send(frame(index, size=45 * CHUNK_SIZE), Audience([viewer.outlet]))
            received = viewer.received()
            assert received[0].sequence == (32_767 + count) & 0xFFFF
            count += len(received)
        assert count == 36_000
        assert viewer.outlet.sequence == 32_767 + count > 0xFFFF


def test_extensions_stand_in_every_packet(fanout: Callable[[], Fanout]) -> None:
    with RtpViewer() as viewer:
        fanout().send(frame(0, size=3000), Audience([viewer.outlet]))
        received = viewer.received()
        assert len(received) == 3
        for packet in received:
            assert packet.extensions == {
                2: (int((5.0 + CLOCK.offset) * 2**18) & 0xFFFFFF).to_bytes(3, "big"),
                5: bytes(3),
                9: b"0",
            }


def test_a_viewer_without_extensions_gets_none(fanout: Callable[[], Fanout]) -> None:
    bare = OutletParameters(1, 2, 120, None, ExtensionIds(), "", "beamcast")
    with RtpViewer(parameters=bare) as viewer:
        picture = frame(0, size=3000)
        fanout().send(picture, Audience([viewer.outlet]))
        received = viewer.received()
        assert joined(received) == picture.payload
        assert {(packet.payload_type, len(packet.extensions)) for packet in received} == {(120, 0)}


def test_time_never_stands_still_at_a_switch_and_then_is_the_frames_own(fanout: Callable[[], Fanout]) -> None:
    with RtpViewer() as viewer:
        sender = fanout()
        for stamp in (3000, 6000, 6000, 3000, 9000):
            sender.send(frame(0, size=8, timestamp=stamp), Audience([viewer.outlet]))
        assert [packet.timestamp for packet in viewer.received()] == [3000, 6000, 6001, 6002, 9000]


def test_time_follows_a_source_whose_clock_was_set_back(fanout: Callable[[], Fanout]) -> None:
    with RtpViewer() as viewer:
        sender = fanout()
        for stamp in (9_000_000, 1000, 4000):
            sender.send(frame(0, size=8, timestamp=stamp), Audience([viewer.outlet]))
        assert [packet.timestamp for packet in viewer.received()] == [9_000_000, 1000, 4000]


class BrokenSocket:
    """A socket that refuses: everything, or only to cut datagrams apart."""

    def __init__(self, real: socket.socket, error: int, *, singles: bool) -> None:
        self._real = real
        self._error = error
        self._singles = singles
        self.segmented = 0

    def fileno(self) -> int:
        return self._real.fileno()

    def sendmsg(self, *arguments: Any) -> int:
        self.segmented += 1
        raise OSError(self._error, "refused")

    def sendto(self, data: bytes, address: Any) -> int:
        if self._singles:
            return self._real.sendto(data, address)
        raise OSError(self._error, "refused")


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO, errno.EMSGSIZE])
def test_a_route_without_segmentation_gets_single_datagrams_from_then_on(error: int) -> None:
    with RtpViewer() as viewer:
        broken = BrokenSocket(viewer.sender, error, singles=True)
        viewer.path.socket = broken  # type: ignore[assignment]
        sender = python()
        for index in range(3):
            picture = frame(index)
            assert sender.send(picture, Audience([viewer.outlet])) == 4
            assert joined(viewer.received()) == picture.payload
        assert broken.segmented == 1
        assert viewer.outlet.drops == 0


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED, errno.ENETUNREACH, errno.EINVAL])
def test_errors_are_counted_and_hurt_nobody_else(error: int) -> None:
    with RtpViewer() as broken, RtpViewer(number=1) as healthy:
        broken.path.socket = BrokenSocket(broken.sender, error, singles=False)  # type: ignore[assignment]
        picture = frame(0)
        assert python().send(picture, Audience([broken.outlet, healthy.outlet])) == 4
        assert (broken.outlet.drops, broken.outlet.packets, broken.outlet.octets) == (4, 0, 0)
        assert joined(healthy.received()) == picture.payload


def test_a_failing_cipher_is_counted_and_hurts_nobody_else(fanout: Callable[[], Fanout]) -> None:
    with RtpViewer(start=9) as broken, RtpViewer(number=1) as healthy:
        sender = fanout()
        sender.send(frame(0), Audience([broken.outlet]))
        broken.received()
        broken.outlet.state.sequence -= 2
        picture = frame(1)
        assert sender.send(picture, Audience([broken.outlet, healthy.outlet])) == 4
        assert broken.outlet.drops == 4
        assert broken.received() == []
        assert joined(healthy.received()) == picture.payload
        assert sender.send(frame(2), Audience([broken.outlet])) == 4
        assert len(broken.received()) == 4


def test_over_tcp_whole_packets_go_through_the_path(fanout: Callable[[], Fanout]) -> None:
    with RtpViewer() as viewer:
        path = StreamPath(viewer.sender)
        viewer.outlet.path = path
        picture = frame(0)
        sender = fanout()
        assert sender.send(picture, Audience([viewer.outlet])) == 4
        assert joined([viewer.decrypt(data) for data in path.sent]) == picture.payload
        path.open = False
        assert sender.send(frame(1), Audience([viewer.outlet])) == 0
        assert viewer.outlet.drops == 4


def test_a_viewer_moves_to_another_address_without_a_new_session(fanout: Callable[[], Fanout]) -> None:
    with RtpViewer() as viewer, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as moved:
        moved.bind(("127.0.0.1", 0))
        moved.setblocking(False)
        sender = fanout()
        sender.send(frame(0, size=8), Audience([viewer.outlet]))
        viewer.outlet.path = DatagramPath(viewer.sender, moved.getsockname())
        sender.send(frame(1, size=8), Audience([viewer.outlet]))
        (before,) = viewer.received()
        after = viewer.decrypt(moved.recv(2000))
        assert after.sequence == (before.sequence + 1) & 0xFFFF


def test_a_retransmission_carries_the_first_bytes_on_its_own_stream(fanout: Callable[[], Fanout]) -> None:
    with RtpViewer(profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM) as viewer:
        sender = fanout()
        sender.send(frame(3, size=2000, layer=1), Audience([viewer.outlet]))
        original = viewer.received()[1]
        lost = LostPacket(original.sequence, original.timestamp, original.marker, original.payload[:6], 0, 1)
        gone = lost._replace(serial=1)
        assert sender.resend(viewer.outlet, [lost, gone, lost]) == 2
        first, second = viewer.received()
        assert (first.ssrc, first.payload_type) == (PARAMETERS.rtx_ssrc, 97)
        assert first.payload == original.sequence.to_bytes(2, "big") + original.payload
        assert (first.timestamp, first.marker) == (original.timestamp, original.marker)
        assert first.extensions == original.extensions
        assert second.sequence == (first.sequence + 1) & 0xFFFF
        assert viewer.outlet.retransmissions == 2
        assert viewer.outlet.rtx_octets == 2 * len(first.payload)
