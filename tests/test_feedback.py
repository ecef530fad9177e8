"""The native reader of feedback: the same record as its twin in Python makes, whatever the bytes."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster.errors import RtcpError
from tests.sanitized import COMPILER, KERNEL, compiling
from tests.transport_feedback import transport_feedback
from tests.viewer_reports import BYE, COMPOUND, CORPUS, FIR, PLI, SSRC, nack, receiver_report, remb, reports
from workers.forward import rtcp
from workers.forward.rtcp import MAX_ARRIVALS, Arrival, ReportBlock
from workers.forward.state import ffi, lib


@dataclass
class Record:
    """What is kept of a viewer's packets."""

    report: ReportBlock | None = None
    lost: list[int] = field(default_factory=list)
    pictures_lost: int = 0
    remb: int | None = None
    goodbye: bool = False
    arrivals: list[Arrival] = field(default_factory=list)


def reduced_by_c(packet: bytes) -> Record | None:
    arrivals = ffi.new("bc_arrival[]", MAX_ARRIVALS)
    said = ffi.new("bc_feedback *", {"arrivals": arrivals, "capacity": MAX_ARRIVALS, "ssrc": SSRC})
    if not lib.bc_reduce(packet, len(packet), 5.0, said):
        assert (said.reported, said.asked, said.arrived, said.goodbye, said.estimated) == (0,) * 5
        return None
    assert said.reported_at == 5.0 * said.reported
    assert said.remb_at == 5.0 * said.estimated
    return Record(
        report=ReportBlock(
            SSRC,
            said.fraction_lost,
            said.cumulative_lost,
            said.highest_sequence,
            said.jitter,
            said.lsr,
            said.dlsr,
        )
        if said.reported
        else None,
        lost=list(said.lost[0 : said.asked]),
        pictures_lost=said.pictures_lost,
        remb=said.remb if said.estimated else None,
        goodbye=bool(said.goodbye),
        arrivals=[Arrival(one.sequence, one.ticks if one.received else None) for one in arrivals[0 : said.arrived]],
    )


def reduced_by_python(packet: bytes) -> Record | None:
    try:
        found = rtcp.parse(packet)
    except RtcpError:
        return None
    reports = [block for block in found.reports if block.ssrc == SSRC]
    return Record(
        report=reports[-1] if reports else None,
        lost=[number for ssrc, number in found.lost if ssrc == SSRC],
        pictures_lost=int(SSRC in found.pictures_lost),
        remb=min(found.remb, 2**64 - 1) if found.remb is not None and SSRC in found.remb_ssrcs else None,
        goodbye=found.goodbye,
        arrivals=found.arrivals,
    )


@settings(deadline=None, max_examples=300)
@given(st.lists(reports, min_size=1, max_size=6).map(b"".join))
def test_both_readers_keep_the_same_of_what_viewers_send(packet: bytes) -> None:
    record = reduced_by_c(packet)
    assert record is not None
    assert record == reduced_by_python(packet)


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_both_readers_keep_the_same_of_damaged_packets(data: st.DataObject) -> None:
    packet = bytearray(data.draw(st.lists(reports, min_size=1, max_size=4).map(b"".join)))
    for _ in range(data.draw(st.integers(1, 5))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    del packet[data.draw(st.one_of(st.just(len(packet)), st.integers(0, len(packet)))) :]
    assert reduced_by_c(bytes(packet)) == reduced_by_python(bytes(packet))


@settings(deadline=None, max_examples=500)
@given(
    st.one_of(
        st.binary(max_size=100),
        st.tuples(
            st.sampled_from(
                [(0x8F, 205), (0xAF, 205), (0x81, 205), (0x8F, 206), (0x84, 206), (0x9F, 201), (0x81, 200)]
            ),
            st.integers(0, 30).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words)),
        ).map(lambda made: struct.pack("!BBH", *made[0], len(made[1]) // 4) + made[1]),
    )
)
def test_both_readers_keep_the_same_of_random_bytes(packet: bytes) -> None:
    assert reduced_by_c(packet) == reduced_by_python(packet)


def test_both_readers_leave_out_what_padding_cuts_in_half() -> None:
    packet = bytes.fromhex("a1cd000500000001000000000000fff00001000000010002")
    assert reduced_by_c(packet) == reduced_by_python(packet) is not None


def test_a_record_gathers_until_it_is_emptied_and_a_bad_packet_adds_nothing() -> None:
    memory = ffi.new("bc_arrival[]", 3)
    said = ffi.new("bc_feedback *", {"arrivals": memory, "capacity": 3, "ssrc": SSRC})
    feedback = transport_feedback(7, 1, [0, None])
    bad = nack([1, 2]) + feedback + receiver_report() + BYE + b"\x80"
    for number, packet in enumerate([nack([5]) + PLI, feedback, bad, nack([6]) + PLI + PLI, feedback, remb(700)]):
        assert lib.bc_reduce(packet, len(packet), number, said) == (packet is not bad)
    assert list(said.lost[0 : said.asked]) == [5, 6]
    assert said.pictures_lost == 2
    assert [(one.sequence, one.received) for one in memory] == [(7, 1), (8, 0), (7, 1)]
    assert (said.arrived, said.reported, said.goodbye, said.estimated, said.remb_at) == (3, 0, 0, 1, 5.0)


def test_the_same_limits_hold_in_both_languages() -> None:
    header = (KERNEL / "feedback.h").read_text()
    assert re.findall(r"#define BC_MAX_LOST (\d+)", header) == [str(rtcp.MAX_LOST)]


SEEDS: dict[str, bytes] = {
    "receiver-report": receiver_report(fraction_lost=3, packets_lost=-3, highest_sequence=70_000, lsr=5, dlsr=9),
    "sender-report": struct.pack("!BBHIQIII", 0x81, 200, 12, 1, 2, 3, 4, 5) + receiver_report()[8:],
    "nack": nack([1, 2, 3, 17, 400, 0xFFFF]),
    "pli": PLI,
    "fir": FIR,
    "remb": remb(1_234_567),
    "goodbye": BYE,
    "compound": COMPOUND,
    "arrivals-runs": transport_feedback(0xFFFE, 0x800000, [0, 1, 255, 300, -300, None, None, 4]),
    "arrivals-bits": transport_feedback(9, 1, [0, None, 255] * 7, chunks="bits"),
    "arrivals-pairs": transport_feedback(9, 0xFFFFFF, [0, None, -32768, 32767] * 4, chunks="pairs"),
    "arrivals-all-lost": transport_feedback(0, 0, [None] * 0xFFFF),
    "padding": b"\xa1" + nack([5])[1:3] + b"\x04" + nack([5])[4:] + b"\x00\x00\x00\x04",
}


def test_the_corpus_is_what_viewers_send() -> None:
    """To write it anew: `for name, packet in SEEDS.items(): (CORPUS / name).write_bytes(packet)`."""
    assert {path.name: path.read_bytes() for path in CORPUS.iterdir() if path.name in SEEDS} == SEEDS
    for path in CORPUS.iterdir():
        packet = path.read_bytes()
        assert reduced_by_c(packet) == reduced_by_python(packet)
    assert all(reduced_by_c(packet) for packet in SEEDS.values())


FOUND = [bytes.fromhex(line) for line in (CORPUS.parent / "found.hex").read_text().splitlines()]
"""What a fuzzer found in four minutes, and what the corpus does not reach: `fuzzer -merge=1 MINIMAL FOUND CORPUS`."""


def test_both_readers_keep_the_same_of_what_a_fuzzer_found() -> None:
    for packet in FOUND:
        assert reduced_by_c(packet) == reduced_by_python(packet)


@pytest.mark.timeout(0)
def test_a_fuzzer_finds_nothing(tmp_path: Path) -> None:
    """With libFuzzer where clang is, else with the harness's own changes to the corpus; FUZZ_SECONDS says how long, of
    all cores together. `make test` installs clang.

    Starting from what was found before, ten seconds reach more of the readers than thirty from the corpus alone.
    """
    cores = os.cpu_count() or 1
    seconds, seed = -(-int(os.environ.get("FUZZ_SECONDS", "60")) // cores), int(os.environ.get("FUZZ_SEED", "1"))
    target = tmp_path / "fuzzer"
    clang = next(filter(None, map(shutil.which, ("clang", "clang-19", "clang-16", "clang-14"))), None)
    options = ["-fsanitize=fuzzer,address,undefined"] if clang else ["-DALONE", "-fsanitize=address,undefined"]
    parts = ("estimate.c", "consent.c")
    subprocess.run(compiling(clang or COMPILER, options, target, "inbound_fuzzer.c", *parts), check=True)

    def fuzz(core: int) -> subprocess.CompletedProcess[str]:
        command = [str(target), str(seconds), str(seed + core), str(CORPUS)]
        if clang:
            found = tmp_path / f"found-{core}"
            found.mkdir()
            for number, packet in enumerate(FOUND):
                (found / f"known-{number}").write_bytes(packet)
            command = [str(target), f"-max_total_time={seconds}", f"-seed={seed + core}", "-max_len=2048", "-timeout=2"]
            command += [f"-artifact_prefix={tmp_path}/", str(found), str(CORPUS)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(cores) as pool:
        for done in pool.map(fuzz, range(cores)):
            assert done.returncode == 0, done.stderr[-4000:]
