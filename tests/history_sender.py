"""What a fan-out tells a history, without the sending."""

from __future__ import annotations

from collections.abc import Sequence

from tests.rtp_viewer import frame
from workers.forward.history import History, HistoryLimits, LostPacket
from workers.forward.packets import CHUNK_SIZE, CONTINUATION, DESCRIPTOR_SIZE, FIRST, head_packer, packetise
from workers.forward.state import new_state

LIMITS = HistoryLimits()
pack = head_packer(0)


def size_of(chunks: Sequence[bytes]) -> int:
    return sum(len(chunk) + DESCRIPTOR_SIZE for chunk in chunks)


class Sender:
    """What an outlet and a fan-out do to the history, without the sending."""

    def __init__(self, limits: HistoryLimits = LIMITS, start: int = 0) -> None:
        self.state, self._records = new_state(limits.frames)
        self.state.sequence = start
        self.history = History(self.state, limits)
        self.packets: dict[int, tuple[bytes, int, int]] = {}

    @property
    def following(self) -> int:
        return int(self.state.sequence)

    @property
    def octets(self) -> int:
        return int(self.state.octets)

    def send(self, index: int, now: float, size: int = 3000, layer: int = 0) -> list[int]:
        state, picture = self.state, frame(index, size=size)
        first, rest = (
            pack(
                picture.timestamp,
                b"ssrc",
                b"",
                start,
                0x8000 | index & 0x7FFF,
                index & 0xFF,
                layer << 6 | state.key_index & 0x1F,
            )[-DESCRIPTOR_SIZE:]
            for start in (FIRST, CONTINUATION)
        )
        record = state.records[state.recorded % state.capacity]
        record.first, record.serial, record.at = state.sequence, index, now
        record.timestamp, record.size, record.descriptor = picture.timestamp, size, first
        state.recorded += 1
        numbers = []
        for place, _ in enumerate(chunks := packetise(picture)):
            number = self.following & 0xFFFF
            self.packets[number] = (rest if place else first, index, place)
            numbers.append(number)
            state.sequence += 1
        state.octets += size_of(chunks)
        return numbers

    def ask(
        self, lost: list[int], now: float, rtt: float | None = 0.05, *, copies: int = 1, tight: bool = False
    ) -> list[LostPacket]:
        return self.history.choose(lost, now=now, rtt=rtt, copies=copies, tight=tight)

    def octets_of(self, found: list[LostPacket], size: int) -> int:
        """RTP payload of packets of frames that are all of this size."""
        return sum(min(CHUNK_SIZE, size - packet.place * CHUNK_SIZE) + DESCRIPTOR_SIZE for packet in found)
