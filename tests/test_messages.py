"""Golden bytes: the encoding of every message, which other versions and other languages rely on."""

from __future__ import annotations

from typing import get_args

import msgpack
import msgspec
import pytest

from broadcaster.bus import messages
from broadcaster.bus.messages import (
    EVENT_DATA,
    Adaptation,
    Call,
    Connected,
    Event,
    EventType,
    Failure,
    GatewayLease,
    Joined,
    LeaveParams,
    LeaveResult,
    Left,
    OfferParams,
    OfferResult,
    Operating,
    PatchParams,
    PatchResult,
    Probe,
    Reply,
    RungInfo,
    SessionRecord,
    Stats,
    StreamLease,
    ViewersParams,
    ViewersResult,
    ViewerStatus,
    WorkerLease,
    WorkerNotice,
    decode,
    encode,
    key,
    new_epoch,
)
from broadcaster.errors import MessageError

GOLDEN: list[tuple[msgspec.Struct, str]] = [
    (
        Call(
            id="c1",
            method="leave",
            params={"secret": "s", "reason": "deleted"},
            reply_to="beamcast:v1:reply:g:1",
            deadline=5.0,
        ),
        "86a26964a26331a66d6574686f64a56c65617665a6706172616d7382a6736563726574a173a6726561736f6ea764656c6574"
        "6564a87265706c795f746fb56265616d636173743a76313a7265706c793a673a31a8646561646c696e65cb40140000000000"
        "00a17601",
    ),
    (
        Reply(id="c1", result={"viewer": "v-5f3a"}),
        "84a26964a26331a6726573756c7481a6766965776572a6762d35663361a76661696c757265c0a17601",
    ),
    (
        Reply(id="c1", failure=Failure(error="SessionNotFoundError", detail="no such session")),
        "84a26964a26331a6726573756c74c0a76661696c75726582a56572726f72b453657373696f6e4e6f74466f756e644572726f"
        "72a664657461696caf6e6f20737563682073657373696f6ea17601",
    ),
    (
        OfferParams(stream="main", sdp="v=0"),
        "82a673747265616da46d61696ea3736470a3763d30",
    ),
    (
        OfferResult(secret="s", viewer="v-5f3a", etag="e1", sdp="v=0"),
        "84a6736563726574a173a6766965776572a6762d35663361a465746167a26531a3736470a3763d30",
    ),
    (
        PatchParams(secret="s", if_match=None, fragment="a=x"),
        "83a6736563726574a173a869665f6d61746368c0a8667261676d656e74a3613d78",
    ),
    (
        PatchResult(etag="e2"),
        "82a465746167a26532a8667261676d656e74c0",
    ),
    (
        LeaveParams(secret="s"),
        "82a6736563726574a173a6726561736f6ea764656c65746564",
    ),
    (
        LeaveResult(viewer="v-5f3a"),
        "81a6766965776572a6762d35663361",
    ),
    (
        ViewersParams(stream="main"),
        "81a673747265616da46d61696e",
    ),
    (
        ViewersResult(
            viewers=[
                ViewerStatus(
                    id="v-5f3a",
                    worker="w-1",
                    stream="main",
                    state="connected",
                    level="720p30",
                    fps=30.0,
                    bitrate=2500000,
                    loss=0.0,
                    rtt=None,
                    estimate=None,
                    since=1.5,
                )
            ]
        ),
        "81a776696577657273918ba26964a6762d35663361a6776f726b6572a3772d31a673747265616da46d61696ea57374617465"
        "a9636f6e6e6563746564a56c6576656ca6373230703330a3667073cb403e000000000000a762697472617465ce002625a0a4"
        "6c6f7373cb0000000000000000a3727474c0a8657374696d617465c0a573696e6365cb3ff8000000000000",
    ),
    (
        StreamLease(
            name="main",
            epoch=1,
            pid=7,
            host="alpha",
            source="test",
            live=True,
            link=["127.0.0.1:5000"],
            fps=30.0,
            rungs=[RungInfo(name="720p", width=1280, height=720, fps=30.0, bitrate=2500000, layers=2)],
            since=1.5,
        ),
        "8aa46e616d65a46d61696ea565706f636801a370696407a4686f7374a5616c706861a6736f75726365a474657374a46c6976"
        "65c3a46c696e6b91ae3132372e302e302e313a35303030a3667073cb403e000000000000a572756e67739187a46e616d65a4"
        "37323070a57769647468cd0500a6686569676874cd02d0a3667073cb403e000000000000a762697472617465ce002625a0a6"
        "6c617965727302a6616374697665c3a573696e6365cb3ff8000000000000",
    ),
    (
        WorkerLease(
            id="w-1",
            epoch=1767225600000000,
            pid=7,
            host="alpha",
            capacity=200,
            viewers=3,
            streams={"main": 3},
            state="ready",
            udp_port=40000,
            since=1.5,
        ),
        "8aa26964a3772d31a565706f6368cf0006474846204000a370696407a4686f7374a5616c706861a86361706163697479ccc8"
        "a77669657765727303a773747265616d7381a46d61696e03a57374617465a57265616479a87564705f706f7274cd9c40a573"
        "696e6365cb3ff8000000000000",
    ),
    (
        GatewayLease(id="g-1", epoch=1, pid=7, host="alpha", url="http://127.0.0.1:8080", since=1.5),
        "86a26964a3672d31a565706f636801a370696407a4686f7374a5616c706861a375726cb5687474703a2f2f3132372e302e30"
        "2e313a38303830a573696e6365cb3ff8000000000000",
    ),
    (
        SessionRecord(worker="w-1", stream="main", viewer="v-5f3a", since=1.5),
        "84a6776f726b6572a3772d31a673747265616da46d61696ea6766965776572a6762d35663361a573696e6365cb3ff8000000000000",
    ),
    (
        Adaptation(
            rule="loss-high",
            from_=Operating(fps=30.0, rung="720p", bitrate=2500000),
            to=Operating(fps=15.0, rung="720p", bitrate=1500000),
            inputs={"packet_loss": 0.081, "rtt": None},
            thresholds={"packet_loss": 0.05},
            estimate=1900000,
            probe=Probe(target=3050000, reached=None, outcome="failed"),
            reason="8 % were lost.",
        ),
        "88a472756c65a96c6f73732d68696768a466726f6d83a3667073cb403e000000000000a472756e67a437323070a762697472"
        "617465ce002625a0a2746f83a3667073cb402e000000000000a472756e67a437323070a762697472617465ce0016e360a669"
        "6e7075747382ab7061636b65745f6c6f7373cb3fb4bc6a7ef9db23a3727474c0aa7468726573686f6c647381ab7061636b65"
        "745f6c6f7373cb3fa999999999999aa8657374696d617465ce001cfde0a570726f626583a6746172676574ce002e8a10a772"
        "656163686564c0a76f7574636f6d65a66661696c6564a6726561736f6eae3820252077657265206c6f73742e",
    ),
    (
        Probe(target=3050000, reached=2900000, outcome="passed"),
        "83a6746172676574ce002e8a10a772656163686564ce002c4020a76f7574636f6d65a6706173736564",
    ),
    (
        Joined(worker="w-1", user_agent="Firefox"),
        "82a6776f726b6572a3772d31aa757365725f6167656e74a746697265666f78",
    ),
    (
        Connected(elapsed=0.25),
        "81a7656c6170736564cb3fd0000000000000",
    ),
    (
        Left(reason="closed", duration=60.5),
        "82a6726561736f6ea6636c6f736564a86475726174696f6ecb404e400000000000",
    ),
    (
        WorkerNotice(worker="w-1", host="alpha", capacity=200, viewers=3),
        "84a6776f726b6572a3772d31a4686f7374a5616c706861a86361706163697479ccc8a77669657765727303",
    ),
    (
        Stats(
            fps=30.0,
            rung="720p",
            bitrate=2412000,
            packet_loss=0.0,
            rtt=0.5,
            jitter=None,
            estimate=None,
            bytes_sent=6030000,
            packets_sent=5700,
            packets_lost=11,
            nacks=4,
            retransmissions=11,
            plis=1,
        ),
        "8da3667073cb403e000000000000a472756e67a437323070a762697472617465ce0024cde0ab7061636b65745f6c6f7373cb"
        "0000000000000000a3727474cb3fe0000000000000a66a6974746572c0a8657374696d617465c0aa62797465735f73656e74"
        "ce005c02b0ac7061636b6574735f73656e74cd1644ac7061636b6574735f6c6f73740ba56e61636b7304af72657472616e73"
        "6d697373696f6e730ba4706c697301",
    ),
    (
        Event(
            type="left",
            id="r-17",
            seq=17,
            ts=1767225600.5,
            source="w-1",
            stream="main",
            viewer="v-5f3a",
            data={"reason": "closed", "duration": 60.5},
        ),
        "89a474797065a46c656674a26964a4722d3137a373657111a27473cb41da556e40200000a6736f75726365a3772d31a67374"
        "7265616da46d61696ea6766965776572a6762d35663361a46461746182a6726561736f6ea6636c6f736564a8647572617469"
        "6f6ecb404e400000000000a17601",
    ),
]


@pytest.mark.parametrize(("message", "golden"), GOLDEN, ids=lambda value: type(value).__name__)
def test_encoding_is_pinned(message: msgspec.Struct, golden: str) -> None:
    assert encode(message).hex() == golden
    assert decode(bytes.fromhex(golden), type(message)) == message
    assert msgpack.unpackb(bytes.fromhex(golden)) == msgspec.to_builtins(message), "any msgpack library reads it"


def test_every_message_is_pinned() -> None:
    types = {
        value for value in vars(messages).values() if isinstance(value, type) and issubclass(value, msgspec.Struct)
    }
    nested = {RungInfo, Operating, Failure, ViewerStatus}
    assert types - nested == {type(message) for message, _ in GOLDEN}


def test_every_type_of_event_has_its_data() -> None:
    assert set(EVENT_DATA) == set(get_args(EventType))
    assert set(EVENT_DATA.values()) == set(get_args(messages.EventData))


def test_new_fields_of_a_later_version_are_skipped() -> None:
    assert decode(msgpack.packb({"viewer": "v-1", "colour": "red"}), LeaveResult) == LeaveResult(viewer="v-1")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\xff" * 99,
        b"\x91" * 100_000,
        b"\xdf\xff\xff\xff\xff",
        msgpack.packb([]),
        msgpack.packb({"id": 1}),
        msgpack.packb({b"id": "x"}),
        b"\x81\xa2\xff\xfe\x01",
    ],
)
def test_bytes_of_strangers_are_a_message_error(payload: bytes) -> None:
    with pytest.raises(MessageError, match=f"{len(payload)} bytes are no Reply"):
        decode(payload, Reply)


def test_another_protocol_is_refused() -> None:
    with pytest.raises(MessageError, match="version other than 1"):
        decode(encode(Reply(id="1", v=2)), Reply)


def test_keys_and_epochs() -> None:
    assert key("worker", "w-1") == "beamcast:v1:worker:w-1"
    first, second = new_epoch(), new_epoch()
    assert first <= second < 2**53
