"""The frame link's bytes: pinned, round-tripped, and hostile."""

from __future__ import annotations

import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcaster.adaptation.audience import BINS
from broadcaster.errors import LinkError, LinkLimitError, LinkProtocolError
from broadcaster.link.wire import (
    WIRE_LIMITS,
    Decoder,
    Demand,
    Hello,
    KeyframeRequest,
    Message,
    Ping,
    Pong,
    Refusal,
    RungDemand,
    WireLimits,
    encode,
)
from broadcaster.stream import EncodedFrame, Rung, StreamDescription

FRAME = EncodedFrame(rung=1, index=7, timestamp=0xFFFFFFFF, keyframe=True, layer=2, sync=False, payload=b"vp8")
DESCRIPTION = StreamDescription("main", 3, (Rung("720p", 1280, 720, 30.0, 2_500_000, 2),))

GOLDEN: list[tuple[Message, str]] = [
    (Hello(3, "main"), "00000016 94 01 ad6265616d636173742d6c696e6b 03 a46d61696e"),
    (
        DESCRIPTION,
        "00000025 95 02 a46d61696e 03 91 96 a437323070 cd0500 cd02d0 cb403e000000000000 ce002625a0 02 c0",
    ),
    (Refusal("full"), "00000007 92 03 a466756c6c"),
    (FRAME, "00000011 98 04 01 07 ceffffffff c3 02 c2 c403767038"),
    (KeyframeRequest(2), "00000004 93 05 02 c2"),
    (KeyframeRequest(2, patient=True), "00000004 93 05 02 c3"),
    (
        Demand({1: RungDemand(1, {26: 1}), 0: RungDemand(3)}),
        "0000000f 93 06 92 93 00 03 90 93 01 01 91 92 1a 01 00",
    ),
    (Ping(5), "00000003 92 07 05"),
    (Pong(300), "00000005 92 08 cd012c"),
]

naturals = st.integers(0, 2**63 - 1)
names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
rungs = st.builds(
    Rung,
    name=st.text(max_size=63),
    width=st.integers(1, 65535),
    height=st.integers(1, 65535),
    fps=st.floats(0.1, 1000),
    bitrate=st.integers(1, 2**63 - 1),
    layers=st.integers(1, 3),
)
audiences = st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 1_000_000), max_size=BINS)
rung_indexes = st.integers(0, WIRE_LIMITS.rungs - 1)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Hello, naturals, names),
    st.builds(StreamDescription, names, naturals, st.lists(rungs, min_size=1, max_size=16).map(tuple)),
    st.builds(Refusal, st.text(max_size=200)),
    st.builds(
        EncodedFrame,
        rung=rung_indexes,
        index=naturals,
        timestamp=st.integers(0, 0xFFFFFFFF),
        keyframe=st.booleans(),
        layer=st.integers(0, 2),
        sync=st.booleans(),
        payload=st.binary(min_size=1, max_size=2000),
    ),
    st.builds(KeyframeRequest, rung_indexes, st.booleans()),
    st.builds(
        Demand,
        st.dictionaries(rung_indexes, st.builds(RungDemand, naturals, audiences), max_size=16),
    ),
    st.builds(Ping, naturals),
    st.builds(Pong, naturals),
)


ROWS = [["720p", 1280, 720, 30.0, 1, 2]]


def raw(*fields: Any) -> bytes:
    body: bytes = msgpack.packb(fields)
    return struct.pack("!I", len(body)) + body


def decode(data: bytes, *, frames: bool = True, limits: WireLimits = WIRE_LIMITS) -> list[Message]:
    return list(Decoder(frames=frames, limits=limits).feed(data))


@pytest.mark.parametrize(("message", "golden"), GOLDEN, ids=[type(m).__name__ for m, _ in GOLDEN])
def test_golden_bytes(message: Message, golden: str) -> None:
    assert encode(message).hex() == golden.replace(" ", "")
    assert decode(bytes.fromhex(golden)) == [message]


@given(st.lists(messages, max_size=5), st.lists(st.integers(1, 200), min_size=1, max_size=20))
def test_any_messages_survive_any_chunks(sent: list[Message], sizes: list[int]) -> None:
    stream = b"".join(encode(message) for message in sent)
    decoder = Decoder(frames=True)
    received: list[Message] = []
    start, turn = 0, 0
    while start < len(stream):
        size = sizes[turn % len(sizes)]
        received += decoder.feed(stream[start : start + size])
        start, turn = start + size, turn + 1
    assert received == sent
    assert decoder.unknown == 0


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_raise_nothing_but_link_errors(data: bytes, prefixed: bool) -> None:
    try:
        decode(struct.pack("!I", len(data)) + data if prefixed else data)
    except LinkError as error:
        assert str(error)


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.integers(0, 12), st.lists(anything, max_size=8))
def test_random_fields_raise_nothing_but_link_errors(kind: int, fields: list[Any]) -> None:
    try:
        found = decode(raw(kind, *fields))
    except LinkProtocolError:
        return
    assert all(decode(encode(message)) == [message] for message in found)


@given(messages, st.data())
def test_flipped_bits_raise_nothing_but_link_errors(message: Message, data: st.DataObject) -> None:
    damaged = bytearray(encode(message))
    damaged[data.draw(st.integers(4, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decode(bytes(damaged))
    except LinkError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (raw(), "an array that starts with its type"),
        (raw("1", 2), "an array that starts with its type"),
        (raw(True, 1), "an array that starts with its type"),
        (raw(None), "an array that starts with its type"),
        (b"\x00\x00\x00\x00", "not msgpack"),
        (b"\x00\x00\x00\x01\xc1", "not msgpack"),
        (b"\x00\x00\x00\x02\x01\x01", "not msgpack"),
        (b"\x00\x00\x00\x02\x92\x07", "not msgpack"),
        (b"\x00\x00\x00\x01\x81", "not msgpack"),
        (b"\x00\x00\x04\x00" + b"\x91" * 1024, "not msgpack"),
        (b"\x00\x00\x00\x07\x92\x07\xd6\xff\x00\x00\x00", "not msgpack"),
        (b"\x00\x00\x00\x08\x92\x07\xd6\xff\x00\x00\x00\x00", "token is not"),
        (b"\x00\x00\x00\x04\x92\x03\xa1\xff", "not msgpack"),
        (raw(1, "other", 1, "main"), "speak its protocol"),
        (raw(1, "beamcast-link", 1, "Main"), "cannot name a stream"),
        (raw(1, "beamcast-link", 1, "../main"), "cannot name a stream"),
        (raw(1, "beamcast-link", 1), "has 2 fields"),
        (raw(1, "beamcast-link", -1, "main"), "version is not"),
        (raw(2, "main", 1, [], None), "a description has no rungs"),
        (raw(2, "main", 1, [["720p", 1280, 720, 30.0, 1, 2]] * 17, None), "rungs is not"),
        (raw(2, "main", 1, [["720p", 1280, 720, 30, 1, 2]], None), "a rung's fps is not"),
        (raw(2, "main", 1, [["720p", 1280, 720, float("nan"), 1, 2]], None), "a rung's fps is not"),
        (raw(2, "main", 1, [["720p", 1280, 720, 0.0, 1, 2]], None), "a rung's fps is not"),
        (raw(2, "main", 1, [["720p", 0, 720, 30.0, 1, 2]], None), "width is not"),
        (raw(2, "main", 1, [["720p", 1280, 70000, 30.0, 1, 2]], None), "height is not"),
        (raw(2, "main", 1, [["720p", 1280, 720, 30.0, 0, 2]], None), "bitrate is not"),
        (raw(2, "main", 1, [["720p", 1280, 720, 30.0, 1, 4]], None), "layers is not"),
        (
            raw(2, "main", 1, [["720p", 1280, 720, 30.0, 1]], None),
            "does not have its six fields",
        ),
        (raw(2, "main", 1, {"0": 1}, None), "rungs is not"),
        (raw(2, "main", 1, ROWS, 0), "a description's sound does not have its three fields"),
        (raw(2, "main", -1, ROWS, None), "epoch is not"),
        (raw(2, "Main", 1, ROWS, None), "cannot name a stream"),
        (raw(2, "main", 1, ROWS), "has 3 fields"),
        (raw(3, "x" * 1001), "reason is not"),
        (raw(3, b"bytes"), "reason is not"),
        (raw(4, 16, 0, 0, True, 0, False, b"x"), "rung is not"),
        (raw(4, 0, -1, 0, True, 0, False, b"x"), "index is not"),
        (raw(4, 0, 0, 2**32, True, 0, False, b"x"), "timestamp is not"),
        (raw(4, 0, 0, 0, 1, 0, False, b"x"), "keyframe is not"),
        (raw(4, 0, 0, 0, True, 3, False, b"x"), "layer is not"),
        (raw(4, 0, 0, 0, True, 0, None, b"x"), "sync is not"),
        (raw(4, 0, 0, 0, True, 0, False, "x"), "a payload is not"),
        (raw(4, 0, 0, 0, True, 0, False, b""), "a payload is not"),
        (raw(4, 0, 0, 0, True, 0, False, b"x", 1), "has 8 fields"),
        (raw(5, 0.0, False), "rung is not"),
        (raw(5, 99, False), "rung is not"),
        (raw(5, 1), "has 1 fields"),
        (raw(5, 1, 1), "patient is not"),
        (raw(6, [[0, -1, []]], 0), "viewers is not"),
        (raw(6, [[0, 1, 0]], 0), "audience is not"),
        (raw(6, [[0, 1, None]], 0), "audience is not"),
        (raw(6, [[0, 1]], 0), "an entry of a demand does not have its three fields"),
        (raw(6, [[99, 1, []]], 0), "rung is not"),
        (raw(6, [[0, 1, []]] * 17, 0), "demand is not"),
        (raw(6, [[0, 1, [[BINS, 1]]]], 0), "bin is not"),
        (raw(6, [[0, 1, [[-1, 1]]]], 0), "bin is not"),
        (raw(6, [[0, 1, [[0, 0]]]], 0), "count is not"),
        (raw(6, [[0, 1, [[0, 1_000_001]]]], 0), "count is not"),
        (raw(6, [[0, 1, [[0]]]], 0), "an entry of an audience does not have its two fields"),
        (raw(6, [[0, 1, [[0, 1]] * (BINS + 1)]], 0), "audience is not"),
        (raw(6, [], -1), "listeners is not"),
        (raw(6, {}, 0), "demand is not"),
        (raw(6, []), "has 1 fields"),
        (raw(7, 2**63), "token is not"),
        (raw(7), "has 0 fields"),
        (raw(8, "1"), "token is not"),
    ],
)
def test_what_the_protocol_does_not_allow(data: bytes, says: str) -> None:
    with pytest.raises(LinkProtocolError, match=says):
        decode(data)


def test_unknown_types_are_counted_and_skipped() -> None:
    decoder = Decoder(frames=True)
    assert list(decoder.feed(raw(17, 48_000, b"text") + raw(200) + encode(Ping(1)))) == [Ping(1)]
    assert decoder.unknown == 2


def test_messages_before_a_bad_one_are_delivered() -> None:
    decoder = Decoder(frames=True)
    received = []
    with pytest.raises(LinkProtocolError):
        for message in decoder.feed(encode(Ping(1)) + encode(FRAME) + raw(7, "no")):
            received.append(message)  # noqa: PERF402
    assert received == [Ping(1), FRAME]


def test_a_frame_may_be_as_large_as_its_limit_and_no_larger() -> None:
    limits = WireLimits(frame=10_000, control=100)
    overhead = len(encode(FRAME)) - 4 - len(FRAME.payload) + 1
    largest = EncodedFrame(1, 7, 0xFFFFFFFF, True, 2, False, bytes(10_000 - overhead))
    assert decode(encode(largest, limits), limits=limits) == [largest]
    with pytest.raises(LinkLimitError):
        encode(EncodedFrame(1, 7, 0xFFFFFFFF, True, 2, False, bytes(10_001 - overhead)), limits)


def test_control_messages_have_their_own_limit() -> None:
    limits = WireLimits(frame=10_000, control=20)
    with pytest.raises(LinkLimitError):
        encode(Refusal("x" * 30), limits)
    with pytest.raises(LinkLimitError):
        decode(encode(Refusal("x" * 30)), limits=limits)


def test_large_messages_are_refused_from_their_first_bytes() -> None:
    with pytest.raises(LinkLimitError):
        decode(struct.pack("!I", WIRE_LIMITS.frame + 1))
    with pytest.raises(LinkLimitError):
        decode(struct.pack("!I", WIRE_LIMITS.control + 1) + b"\x92\x03")
    with pytest.raises(LinkLimitError):
        decode(struct.pack("!I", WIRE_LIMITS.control + 1), frames=False)
    assert decode(struct.pack("!I", WIRE_LIMITS.control + 1) + b"\x98\x04") == []
