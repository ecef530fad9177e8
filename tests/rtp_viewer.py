"""A viewer for tests: a socket on loopback that decrypts and takes apart what an outlet sends it."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, replace
from types import TracebackType

from pylibsrtp import Policy, Session

from broadcaster.clock import WallClock
from broadcaster.stream import EncodedFrame
from workers.forward.agreement import OutletParameters
from workers.forward.outlet import Outlet, OutletSettings
from workers.forward.packets import ExtensionIds

GCM = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
KEY_SIZES = {GCM: 28, Policy.SRTP_PROFILE_AES128_CM_SHA1_80: 30, Policy.SRTP_PROFILE_AEAD_AES_256_GCM: 44}
PARAMETERS = OutletParameters(
    ssrc=0x11111111,
    rtx_ssrc=0x22222222,
    payload_type=96,
    rtx_payload_type=97,
    extensions=ExtensionIds(abs_send_time=2, mid=9, playout_delay=5),
    mid="0",
    cname="beamcast",
)
WITH_TRANSPORT = replace(PARAMETERS, extensions=ExtensionIds(abs_send_time=2, transport_sequence=3))
CLOCK = WallClock(offset=1_700_000_000.0)


def frame(
    index: int = 0, *, rung: int = 0, size: int = 4000, keyframe: bool = False, layer: int = 0, timestamp: int = -1
) -> EncodedFrame:
    payload = index.to_bytes(4, "big") * (size // 4) + bytes(size % 4)
    stamp = index * 3000 if timestamp < 0 else timestamp
    return EncodedFrame(rung, index, stamp & 0xFFFFFFFF, keyframe, layer, layer > 0, payload)


@dataclass(frozen=True)
class Keys:
    profile: int
    tx_key: bytes
    rx_key: bytes


@dataclass(frozen=True)
class Packet:
    """An RTP packet, decrypted; of VP8 its descriptor apart."""

    marker: bool
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    extensions: dict[int, bytes]
    payload: bytes
    datagram_size: int

    @property
    def starts_frame(self) -> bool:
        assert self.payload[0] in (0x90, 0x80)
        return self.payload[0] == 0x90

    @property
    def picture_id(self) -> int:
        picture: int = struct.unpack_from("!H", self.payload, 2)[0]
        assert picture & 0x8000
        return picture & 0x7FFF

    @property
    def tl0(self) -> int:
        return self.payload[4]

    @property
    def layer(self) -> int:
        return self.payload[5] >> 6

    @property
    def sync(self) -> bool:
        return bool(self.payload[5] & 0x20)

    @property
    def key_index(self) -> int:
        return self.payload[5] & 0x1F

    @property
    def chunk(self) -> bytes:
        return self.payload[6:]


def dissect(data: bytes, datagram_size: int) -> Packet:
    first, second, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", data)
    assert first >> 6 == 2
    extensions: dict[int, bytes] = {}
    start = 12
    if first & 0x10:
        profile, words = struct.unpack_from("!HH", data, 12)
        assert profile == 0xBEDE
        start = 16 + 4 * words
        position = 16
        while position < start:
            if data[position] == 0:
                position += 1
                continue
            size = (data[position] & 15) + 1
            extensions[data[position] >> 4] = data[position + 1 : position + 1 + size]
            position += 1 + size
        assert position == start
    return Packet(
        bool(second & 0x80), second & 0x7F, sequence, timestamp, ssrc, extensions, data[start:], datagram_size
    )


class DatagramPath:
    """A path over UDP as a transport offers it."""

    is_tcp = False

    def __init__(self, sender: socket.socket, address: tuple[str, int]) -> None:
        self.socket = sender
        self.address = address

    def send(self, data: bytes) -> bool:
        return self.socket.sendto(data, self.address) == len(data)


class StreamPath(DatagramPath):
    """A path over TCP: whole packets go through `send` alone."""

    is_tcp = True

    def __init__(self, sender: socket.socket) -> None:
        super().__init__(sender, ("", 0))
        self.sent: list[bytes] = []
        self.open = True

    def send(self, data: bytes) -> bool:
        if self.open:
            self.sent.append(data)
        return self.open


class RtpViewer:
    """One viewer and the outlet that serves it; a context manager."""

    def __init__(
        self,
        *,
        profile: int = GCM,
        parameters: OutletParameters = PARAMETERS,
        settings: OutletSettings | None = None,
        start: int | None = None,
        number: int = 0,
    ) -> None:
        size = KEY_SIZES[profile]
        tx, rx = bytes([1 + number]) * size, bytes([101 + number]) * size
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sender.setblocking(False)
        self.path = DatagramPath(self.sender, self.socket.getsockname())
        self._rx = Session(Policy(key=tx, ssrc_type=Policy.SSRC_ANY_INBOUND, srtp_profile=profile))
        self._tx = Session(Policy(key=rx, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile))
        self.outlet = Outlet(
            replace(parameters, ssrc=parameters.ssrc + number),
            Keys(profile, tx, rx),
            self.path,
            CLOCK,
            settings=settings or OutletSettings(),
            **({} if start is None else {"randbelow": lambda below: start % below}),
        )

    def __enter__(self) -> RtpViewer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
        self.sender.close()

    def datagrams(self) -> list[bytes]:
        """Everything that arrived; on loopback that is everything sent."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(65_536))
            except BlockingIOError:
                return found

    def received(self) -> list[Packet]:
        return [self.decrypt(datagram) for datagram in self.datagrams()]

    def decrypt(self, datagram: bytes) -> Packet:
        return dissect(self._rx.unprotect(datagram), len(datagram))

    def decrypt_rtcp(self, datagram: bytes) -> bytes:
        return bytes(self._rx.unprotect_rtcp(datagram))

    def say(self, rtcp: bytes, now: float) -> None:
        """Send RTCP to the outlet, protected as the viewer protects it."""
        self.outlet.receive_rtcp(self._tx.protect_rtcp(rtcp), now)
