"""What the load generator's viewers say: RTCP against the worker's parser, checks against aioice's and the worker's."""

from __future__ import annotations

import pytest
from aioice import stun as reference

from workers.forward import rtcp
from workers.load import feedback
from workers.load.checks import Checks
from workers.load.feedback import NACK_AGE, NACK_PAUSE, NACK_TRIES, Wanted
from workers.transport import stun

BLOCK = rtcp.ReportBlock(0xCAFE, 12, -5, 70_000, 33, 0x12345678, 99)
TRANSACTION = bytes(range(12))
PASSWORD = "p" * 24


def test_a_report_is_read_as_it_was_meant() -> None:
    read = rtcp.parse(feedback.receiver_report(BLOCK) + feedback.remb(2_500_000, 0xCAFE))
    assert read.reports == [BLOCK]
    assert read.remb == pytest.approx(2_500_000, rel=1e-4)
    assert read.remb_ssrcs == (0xCAFE,)
    assert read.pictures_lost == []


def test_a_report_on_nothing_is_a_report() -> None:
    assert rtcp.parse(feedback.receiver_report(None)) == rtcp.Compound()


@pytest.mark.parametrize("lost", [0x900000, -0x900000])
def test_the_lost_are_clamped_to_24_bits(lost: int) -> None:
    read = rtcp.parse(feedback.receiver_report(BLOCK._replace(cumulative_lost=lost)))
    assert read.reports[0].cumulative_lost in {0x7FFFFF, -0x800000}


@pytest.mark.parametrize(
    "numbers", [[5], [5, 6, 21], [5, 22], [65_535, 65_536, 65_540], list(range(1, 40)), [1, 100, 117, 118]]
)
def test_a_nack_names_exactly_the_lost(numbers: list[int]) -> None:
    read = rtcp.parse(feedback.nack(7, numbers))
    assert read.lost == [(7, number & 0xFFFF) for number in numbers]


def test_the_time_of_a_sender_report_is_its_middle_32_bits() -> None:
    report = rtcp.sender_report(1, 0x1122334455667788, 0, packets=1, octets=1, description=b"")
    assert feedback.sender_report_time(report) == 0x33445566
    assert feedback.sender_report_time(feedback.receiver_report(BLOCK)) is None


def test_the_estimate_grows_towards_what_arrives_and_holds() -> None:
    assert feedback.next_estimate(300_000, 0) == 300_000
    assert feedback.next_estimate(300_000, 1_000_000) == 1_000_000
    assert feedback.next_estimate(1_000_000, 1_000_000) == pytest.approx(1_080_000)
    assert feedback.next_estimate(1_600_000, 1_000_000) == 1_600_000


def test_the_missing_are_asked_for_again_after_a_pause_and_given_up() -> None:
    wanted = Wanted()
    wanted.note(9, 13, [10, 13])
    assert wanted.due(0.0) == [11, 12]
    assert wanted.due(NACK_PAUSE / 2) == []
    for turn in range(1, NACK_TRIES):
        assert wanted.due(turn * NACK_PAUSE * 1.01) == [11, 12]
    assert wanted.due(100.0) == wanted.due(200.0) == []


def test_what_comes_late_or_again_or_is_too_old_is_not_asked_for() -> None:
    wanted = Wanted()
    wanted.note(65_534, 65_539, [65_539])
    wanted.note(65_539, 65_539, [65_535])
    wanted.resent(65_536 & 0xFFFF)
    wanted.resent(12_345)
    assert wanted.repaired == 1
    assert wanted.due(0.0) == [65_537, 65_538]
    wanted.note(65_539, 65_538 + NACK_AGE, range(65_540, 65_539 + NACK_AGE))
    assert wanted.due(1.0) == [65_538]


def test_a_check_is_one_for_the_worker_and_for_aioice() -> None:
    data = Checks("server:viewer", PASSWORD, 2**64 - 1).request(TRANSACTION)
    request = stun.parse(data)
    assert request is not None
    assert (request.ufrag, request.use_candidate, request.controlled) == (b"server", True, False)
    assert stun.is_authentic(request, PASSWORD.encode())
    message = reference.parse_message(data)
    assert message.check_message_integrity(PASSWORD.encode())
    assert message.attributes["USERNAME"] == "server:viewer"
    assert message.attributes["ICE-CONTROLLING"] == 2**64 - 1


def test_an_answer_counts_once_and_only_when_it_is_authentic() -> None:
    checks = Checks("server:viewer", PASSWORD, 1)
    answer = stun.success(TRANSACTION, PASSWORD.encode(), ("127.0.0.1", 4))
    assert not checks.answered(answer)
    checks.request(TRANSACTION)
    assert not checks.answered(stun.success(TRANSACTION, b"wrong", ("127.0.0.1", 4)))
    assert not checks.answered(stun.role_conflict(TRANSACTION, PASSWORD.encode()))
    assert not any(checks.answered(answer[:size]) for size in range(len(answer) - 8))
    assert checks.answered(answer)
    assert not checks.answered(answer)


def test_an_answer_without_fingerprint_is_an_answer() -> None:
    checks = Checks("server:viewer", PASSWORD, 1)
    checks.request(TRANSACTION)
    message = reference.Message(reference.Method.BINDING, reference.Class.RESPONSE, transaction_id=TRANSACTION)
    message.attributes["XOR-MAPPED-ADDRESS"] = ("127.0.0.1", 4)
    message.add_message_integrity(PASSWORD.encode())
    whole = bytes(message)
    del message.attributes["FINGERPRINT"]
    assert len(bytes(message)) < len(whole)
    short = bytes(message)
    # The length that MESSAGE-INTEGRITY covers ends with itself, so it holds without what follows.
    assert checks.answered(short)
