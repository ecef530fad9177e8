"""The sound of sources: cut without gaps, before its pictures, in step with them round after round, and never late."""

from __future__ import annotations

import contextlib
import itertools
import queue
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from time import monotonic, sleep

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcaster.errors import ConfigurationError, EncoderError
from broadcaster.ladder.opus import BITRATE, OpusEncoder, sound_bitrate
from broadcaster.source import Picture, Sound, open_source
from broadcaster.source.canvas import plane
from broadcaster.source.interleaving import InterleavingConfig, sound_ahead
from broadcaster.source.media import Ended, Location, MediaConfig, Reader, probe
from broadcaster.source.pacing import LiveTimeline
from broadcaster.source.sound import PIECE, PIECE_SECONDS, Cutter, CutterConfig, Samples
from broadcaster.source.soundtrack import Soundtrack, SoundtrackConfig
from broadcaster.source.tone import BEEP_SECONDS, TestTone
from broadcaster.stream import SOUND_CLOCK, sound_timestamp_at, timestamp_at
from tests.clips import make_clip

PATIENCE = 8.0


def samples(count: int, value: int = 1) -> Samples:
    return np.full((count, 2), value, np.int16)


def loudness(piece: Samples) -> float:
    return float(np.sqrt(np.mean(piece.astype(np.float64) ** 2))) / 32768


# --- cutting ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3000), max_size=20))
def test_pieces_hold_all_samples_in_order_and_without_a_gap(sizes: list[int]) -> None:
    cutter, fed = Cutter(), 0
    pieces: list[tuple[float, Samples]] = []
    for size in sizes:
        numbers = (np.arange(fed, fed + size) % 30_000).astype(np.int16)
        pieces += cutter.add(7.0 + fed / SOUND_CLOCK, np.stack([numbers, numbers], axis=1))
        fed += size
    assert len(pieces) == fed // PIECE
    for number, (media_time, piece) in enumerate(pieces):
        assert media_time == pytest.approx(7.0 + number * PIECE_SECONDS, abs=1e-6)
        assert piece.shape == (PIECE, 2)
        assert piece[0, 0] == number * PIECE % 30_000


def test_times_that_are_rounded_are_no_gaps() -> None:
    cutter = Cutter()
    pieces = [piece for number in range(50) for piece in cutter.add(round(number * 1024 / 48_000, 3), samples(1024))]
    assert all((piece != 0).all() for _, piece in pieces)
    assert [time for time, _ in pieces] == pytest.approx([number * 0.02 for number in range(len(pieces))])


def test_a_gap_is_filled_with_silence() -> None:
    cutter = Cutter()
    pieces = cutter.add(0.0, samples(PIECE)) + cutter.add(0.1, samples(PIECE))
    assert [time for time, _ in pieces] == pytest.approx([0.0, 0.02, 0.04, 0.06, 0.08, 0.1])
    assert [int(piece.any()) for _, piece in pieces] == [1, 0, 0, 0, 0, 1]


def test_after_a_long_gap_the_sound_begins_anew() -> None:
    cutter = Cutter(CutterConfig(gap=1.0))
    cutter.add(0.0, samples(100))
    assert [time for time, _ in cutter.add(5.0, samples(PIECE))] == [5.0]


def test_what_is_said_twice_is_said_once() -> None:
    cutter = Cutter()
    cutter.add(0.0, samples(3 * PIECE))
    assert cutter.add(0.0, samples(2 * PIECE, 2)) == []
    ((time, piece),) = cutter.add(0.0, samples(4 * PIECE, 3))
    assert time == pytest.approx(0.06)
    assert (piece == 3).all()


def test_time_that_jumps_back_is_followed() -> None:
    cutter = Cutter(CutterConfig(back=10.0))
    cutter.add(100.0, samples(PIECE))
    assert [time for time, _ in cutter.add(1.0, samples(PIECE))] == [1.0]


# --- the order of packets --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FakePacket:
    stream_index: int
    pts: int | None
    dts: int | None = None
    time_base: Fraction | None = Fraction(1, 1000)


def pictures(*times: int) -> list[FakePacket]:
    return [FakePacket(0, time) for time in times]


def sounds(*times: int) -> list[FakePacket]:
    return [FakePacket(1, time) for time in times]


def order(packets: list[FakePacket], config: InterleavingConfig | None = None) -> list[tuple[int, int | None]]:
    return [(one.stream_index, one.pts) for one in sound_ahead(packets, 1, config)]


def test_sound_comes_before_the_pictures_that_it_belongs_to() -> None:
    mixed = pictures(*range(0, 1000, 100)) + sounds(*range(0, 1000, 100))
    found = order(mixed, InterleavingConfig(lead=0.25, pictures=10.0))
    for place, (stream, time) in enumerate(found):
        if stream == 0 and time is not None:
            heard = [late for kind, late in found[:place] if kind == 1]
            assert heard == [late for late in range(0, 1000, 100) if late - 250 <= time]


@given(st.lists(st.tuples(st.integers(0, 1), st.one_of(st.none(), st.integers(0, 9000))), max_size=40))
def test_no_picture_is_lost_and_each_kind_keeps_its_order(packets: list[tuple[int, int | None]]) -> None:
    given_ = [FakePacket(kind, time) for kind, time in packets]
    found = list(sound_ahead(given_, 1))
    assert [one for one in found if one.stream_index == 0] == [one for one in given_ if one.stream_index == 0]
    heard = [one for one in given_ if one.stream_index == 1]
    kept = [one for one in found if one.stream_index == 1]
    assert kept == heard[: len(kept)]


def test_pictures_do_not_wait_for_sound_that_has_ended() -> None:
    seen = []

    def packets() -> Iterator[FakePacket]:
        for packet in sounds(0) + pictures(*range(0, 20_000, 100)):
            seen.append(packet)
            yield packet

    out = sound_ahead(packets(), 1, InterleavingConfig(pictures=3.0))
    assert [next(out).stream_index for _ in range(10)] == [1] + [0] * 9
    assert len(seen) <= 45


def test_sound_beyond_the_last_picture_is_left_out() -> None:
    mixed = [*pictures(0, 40, 80), *sounds(*range(0, 5000, 20))]
    heard = [time for kind, time in order(mixed, InterleavingConfig(lead=0.1)) if kind == 1]
    assert heard[-1] == 180


# --- the tone --------------------------------------------------------------------------------------------------------


def test_the_tone_beeps_with_each_second_and_hums_between() -> None:
    tone = TestTone()
    second = 1_767_225_600 * SOUND_CLOCK
    levels = [loudness(tone.draw(second + number * PIECE)) for number in range(50)]
    beeping = round(BEEP_SECONDS / PIECE_SECONDS)
    assert all(0.1 < level < 0.2 for level in levels[:beeping])
    assert all(0.01 < level < 0.02 for level in levels[beeping:])
    assert (TestTone().draw(second + PIECE) == tone.draw(second + SOUND_CLOCK + PIECE)).all()


def collected(source: str, count: int, media: MediaConfig | None = None) -> tuple[list[Sound], list[Picture]]:
    shared = open_source(source, name="main", sound=True, media=media)
    heard: queue.Queue[Sound] = queue.Queue()
    seen: list[Picture] = []
    assert shared.sound
    leave = shared.hear(heard.put)
    unsubscribe = shared.subscribe(seen.append)
    try:
        return [heard.get(timeout=PATIENCE) for _ in range(count)], seen
    finally:
        unsubscribe()
        leave()
        shared.close()


def test_the_pattern_sounds_on_the_clock_of_its_pictures() -> None:
    heard, seen = collected("pattern:320x180@30", 60)
    starts = [sound.captured for sound in heard]
    assert np.diff(starts) == pytest.approx(PIECE_SECONDS, abs=1e-6)
    assert abs(starts[-1] - seen[-1].captured) < 0.3
    loud, quiet = [], []
    for sound in heard:
        phase = sound.captured % 1.0  # of its first sample; what holds some of both is neither
        if 0.005 < phase < BEEP_SECONDS - PIECE_SECONDS:
            loud.append(loudness(sound.samples))
        elif BEEP_SECONDS + 0.005 < phase < 0.995 - PIECE_SECONDS:
            quiet.append(loudness(sound.samples))
    assert len(loud) >= 3
    assert len(quiet) >= 40
    assert max(quiet) < 0.05 < min(loud)


def test_without_the_wish_there_is_no_sound() -> None:
    shared = open_source("pattern:320x180@30", name="main")
    heard: list[Sound] = []
    shared.hear(heard.append)
    arrived = threading.Event()
    unsubscribe = shared.subscribe(lambda picture: arrived.set() if picture.index > 10 else None)
    assert arrived.wait(PATIENCE)
    unsubscribe()
    shared.close()
    assert not shared.sound
    assert not heard


# --- films -----------------------------------------------------------------------------------------------------------


def make_film(
    path: Path,
    *,
    seconds: float = 1.0,
    sound_seconds: float | None = None,
    rate: int = 44_100,
    layout: str = "mono",
    sound_codec: str = "aac",
) -> Path:
    """25 pictures a second, and a beep of 100 ms at the start of the film and each half second."""
    sound_seconds = seconds if sound_seconds is None else sound_seconds
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 128, 128, "yuv420p"
        video.options = {"preset": "ultrafast", "g": "10", "bf": "0"}
        audio = container.add_stream(sound_codec, rate=rate, layout=layout)
        assert isinstance(audio, av.AudioStream)
        for index in range(round(seconds * 25)):
            picture = av.VideoFrame(128, 128, "yuv420p")
            for plane in picture.planes:
                plane.update(bytes([40 + index]) * plane.buffer_size)
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        time = np.arange(round(sound_seconds * rate)) / rate
        wave = (np.where(time % 0.5 < 0.1, 0.5, 0.0) * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)
        channels = len(av.AudioLayout(layout).channels)
        for start in range(0, len(wave) - 1023, 1024):
            data = np.repeat(wave[None, start : start + 1024], channels, axis=0)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path


def onsets(pieces: list[tuple[float, Samples]]) -> list[float]:
    """When the beeps begin, in seconds."""
    found = []
    silent = True
    for time, piece in pieces:
        for place in range(0, PIECE, 48):
            loud = loudness(piece[place : place + 48]) > 0.1
            if loud and silent:
                found.append(time + place / SOUND_CLOCK)
            silent = not loud
    return [time for number, time in enumerate(found) if number == 0 or time - found[number - 1] > 0.2]


def taken(reader: Reader, count: int) -> list[tuple[float, Samples]]:
    """Pieces of sound while the pictures are taken as fast as they come."""
    draining = threading.Event()

    def drain() -> None:
        while not draining.is_set():
            assert not isinstance(reader.take(0.1), Ended)

    thread = threading.Thread(target=drain)
    thread.start()
    pieces = []
    for _ in range(count):
        piece = reader.soundtrack.take(PATIENCE)
        assert piece is not None
        pieces.append(piece)
    draining.set()
    reader.stop()
    thread.join(PATIENCE)
    reader.join(PATIENCE)
    return pieces


@pytest.mark.parametrize(
    ("name", "rate", "layout", "sound_seconds"),
    [
        ("a.mp4", 44_100, "mono", None),
        ("a.mkv", 48_000, "stereo", None),
        ("a.mov", 22_050, "5.1", None),
        ("a.ts", 48_000, "stereo", None),
        ("longer.mp4", 48_000, "stereo", 1.7),
        ("shorter.mp4", 48_000, "stereo", 0.7),
    ],
)
def test_a_film_that_loops_keeps_its_sound_in_step(
    tmp_path: Path, name: str, rate: int, layout: str, sound_seconds: float | None
) -> None:
    film = make_film(tmp_path / name, rate=rate, layout=layout, sound_seconds=sound_seconds)
    location = Location.parse(str(film))
    assert probe(location).sound
    reader = Reader(location, sound=True)
    reader.start()
    pieces = taken(reader, 240)
    times = [time for time, _ in pieces]
    assert np.diff(times) == pytest.approx(PIECE_SECONDS, abs=1e-6)
    beeps = [time for time in onsets(pieces) if time > 0.3]
    assert len(beeps) >= 7
    # What plays on beyond the last picture covers the beep with which the next round begins, but for its end.
    exact = [time for time in beeps if abs(time * 2 - round(time * 2)) < 0.12]
    assert len(exact) >= 4
    assert all(abs(time - round(time * 2) / 2) < 0.03 for time in exact if round(time * 2) % 2)


def test_a_film_without_sound_has_none(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4")
    assert not probe(Location.parse(str(clip))).sound
    shared = open_source(str(clip), name="main", sound=True)
    assert not shared.sound
    shared.close()


def test_a_film_is_heard_at_the_pictures_time(tmp_path: Path) -> None:
    film = make_film(tmp_path / "a.mp4", seconds=1.0, rate=48_000)
    heard, seen = collected(str(film), 120)
    start = seen[0].captured
    assert np.diff([sound.captured for sound in heard]) == pytest.approx(PIECE_SECONDS, abs=0.002)
    beeps = onsets([(sound.captured - start, sound.samples) for sound in heard])
    assert len(beeps) >= 4
    assert all(abs(time - round(time * 2) / 2) < 0.06 for time in beeps)


def send_live(server: socket.socket, content: bytes, seconds: float) -> None:
    """Send a film to each of two connections (the probe's is the first) at its own speed."""
    for _ in range(2):
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            start, share = monotonic(), len(content) / seconds
            sent = 0
            while sent < len(content):
                until = min(len(content), int((monotonic() - start + 0.1) * share) // 188 * 188 + 188)
                connection.sendall(content[sent:until])
                sent = until
                sleep(0.01)


def test_a_live_input_is_heard_in_step_with_its_pictures(tmp_path: Path) -> None:
    film = make_film(tmp_path / "a.ts", seconds=5.0, rate=48_000).read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:
        sending = threading.Thread(target=send_live, args=(server, film, 5.0), daemon=True)
        sending.start()
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        heard, seen = collected(url, 120, MediaConfig(open_timeout=3.0, read_timeout=3.0))
    shown = {round(plane(one.frame, 0).mean()) - 40: one.captured for one in seen}
    beeps = onsets([(sound.captured, sound.samples) for sound in heard])
    assert len(beeps) >= 3
    for beep in beeps[-2:]:
        # The beep belongs to a picture whose number is a multiple of half a second's 12.5.
        number = min(shown, key=lambda one: abs(shown[one] - beep))
        assert min(number % 12.5, 12.5 - number % 12.5) <= 4


def test_a_soundtrack_that_nobody_plays_blocks_nothing() -> None:
    track = Soundtrack(SoundtrackConfig(ahead=0.1))
    for number in range(50):
        frame = av.AudioFrame.from_ndarray(samples(PIECE).reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate = SOUND_CLOCK
        track.add(frame, number * PIECE_SECONDS)
    found = list(iter(lambda: track.take(0.01), None))
    assert len(found) == 5


def test_a_soundtrack_survives_a_change_of_format() -> None:
    track = Soundtrack()
    for rate, layout in ((48_000, "stereo"), (44_100, "mono"), (44_100, "mono"), (44_100, "mono")):
        shape = (len(av.AudioLayout(layout).channels), 4410)
        frame = av.AudioFrame.from_ndarray(np.full(shape, 0.5, np.float32), format="fltp", layout=layout)
        frame.sample_rate = rate
        track.add(frame, None)
    pieces = list(iter(lambda: track.take(0.01), None))
    assert len(pieces) >= 9


def test_a_live_inputs_sound_follows_its_pictures_on_average() -> None:
    live = LiveTimeline(25.0)
    assert live.shift is None
    for number in range(100):
        now = 100.0 + number * 0.04 + (0.015 if number % 2 else 0.0)
        live.due(now, 5.0 + number * 0.04)
    assert live.shift == pytest.approx(95.0, abs=0.02)
    live.due(200.0, 0.0)
    assert live.shift == pytest.approx(200.0)


# --- the encoder -----------------------------------------------------------------------------------------------------


def sound(captured: float, value: int = 0) -> Sound:
    return Sound(samples(PIECE, value), captured)


def test_packets_follow_each_other_by_960_ticks_whatever_the_clock_says() -> None:
    encoder = OpusEncoder()
    wobble = [0.0, 0.012, -0.011, 0.03, -0.02] * 10
    encoded = [encoder.encode(sound(1000.0 + number * 0.02 + off)) for number, off in enumerate(wobble)]
    stamps = [one.timestamp for one in encoded if one is not None]
    assert len(stamps) == 50
    assert set(np.diff(stamps)) == {PIECE}
    assert [one.index for one in encoded if one is not None] == list(range(50))
    # What the packet decodes to was captured 6.5 ms before the piece that made it.
    assert stamps[0] == sound_timestamp_at(1000.0) - 312


def test_a_gap_in_the_sound_is_one_in_its_timestamps() -> None:
    encoder = OpusEncoder()
    before, after = encoder.encode(sound(1000.0)), encoder.encode(sound(1001.0))
    assert before is not None
    assert after is not None
    assert after.timestamp - before.timestamp == SOUND_CLOCK


def test_pieces_of_a_time_that_is_over_are_left_out() -> None:
    encoder = OpusEncoder()
    times = [1000.0 + number * 0.02 for number in range(10)] + [1000.1 + number * 0.02 for number in range(10)]
    encoded = [encoder.encode(sound(time)) for time in times]
    assert all(one is not None for one in encoded[:10])
    assert encoded[10] is None
    stamps = [one.timestamp for one in encoded if one is not None]
    assert set(np.diff(stamps)) == {PIECE}


def test_timestamps_wrap_at_32_bits() -> None:
    encoder = OpusEncoder()
    start = (2**32 - 1500) / SOUND_CLOCK
    encoded = [encoder.encode(sound(start + number * 0.02)) for number in range(4)]
    stamps = [one.timestamp for one in encoded if one is not None]
    assert all(0 <= stamp < 2**32 for stamp in stamps)
    assert [(after - before) % 2**32 for before, after in itertools.pairwise(stamps)] == [PIECE] * 3


def test_what_is_encoded_decodes_to_the_same_sound_in_the_same_place() -> None:
    encoder, tone = OpusEncoder(), TestTone()
    first = 1_767_225_600 * SOUND_CLOCK
    packets = [
        encoder.encode(Sound(tone.draw(first + number * PIECE), (first + number * PIECE) / SOUND_CLOCK))
        for number in range(100)
    ]
    decoder = av.CodecContext.create("opus", "r")
    base, heard = packets[0], []
    assert base is not None
    for packet in packets:
        assert packet is not None
        frames = decoder.decode(av.Packet(packet.payload))
        left = frames[0].to_ndarray()[0]
        heard.append(left)
    wave = np.concatenate(heard)
    loud = np.flatnonzero(np.abs(wave[24_000:]) > 0.1) + 24_000
    begin = (loud[0] + base.timestamp - first) % 2**32
    assert begin == pytest.approx(SOUND_CLOCK, abs=0.004 * SOUND_CLOCK)
    octets = sum(len(packet.payload) for packet in packets if packet is not None)
    assert octets * 8 / 2.0 == pytest.approx(BITRATE, rel=0.25)


@pytest.mark.parametrize(("text", "bitrate"), [("64k", 64_000), ("off", 0), ("96000", 96_000), ("6k", 6000)])
def test_bitrates_that_can_be_meant(text: str, bitrate: int) -> None:
    assert sound_bitrate(text) == bitrate


@pytest.mark.parametrize("text", ["", "on", "0", "5999", "257k", "-1", "64 k", "1e5", "64m"])
def test_bitrates_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(ConfigurationError, match="off"):
        sound_bitrate(text)


def test_a_bitrate_that_opus_refuses_is_an_error() -> None:
    with pytest.raises(EncoderError):
        OpusEncoder(2**40)


@given(st.integers(10**9, 4 * 10**9), st.integers(0, 1000))
def test_both_clocks_advance_by_the_same_time(wall: int, later: int) -> None:
    shown = (timestamp_at(wall + later) - timestamp_at(wall)) % 2**32
    heard = (sound_timestamp_at(wall + later) - sound_timestamp_at(wall)) % 2**32
    assert (shown, heard) == (later * 90_000, later * SOUND_CLOCK)
