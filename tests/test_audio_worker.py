"""Sound through a whole worker to stock aiortc: heard, dated with the pictures, and going on while these are paused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, cast

import av
import msgspec
import numpy as np
import pytest
from aiortc import MediaStreamError, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from broadcaster.adaptation.decision import Decision, State
from broadcaster.bus import Bus
from broadcaster.bus.messages import OfferParams, OfferResult
from broadcaster.errors import NoCommonCodecError
from broadcaster.ladder.encoder import RungEncoder
from broadcaster.ladder.opus import OpusEncoder
from broadcaster.link import LinkServer
from broadcaster.source.picture import WALL_CLOCK
from broadcaster.source.sound import PIECE, Sound
from broadcaster.source.tone import BEEP, TestTone
from broadcaster.stream import OPUS, SOUND_CLOCK, EncodedFrame, Rung, StreamDescription, timestamp_at
from tests.test_worker import MemoryBus
from workers.transport import Endpoint
from workers.viewer import Viewer
from workers.worker import Worker, WorkerSettings

RUNG = Rung("180p", 320, 180, 30.0, 200_000, 1)
PATIENCE = 10.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


class Studio:
    """A broadcaster's end of the link that has a picture and the test tone on the air."""

    def __init__(self, sound: bool) -> None:
        self.server = LinkServer(
            StreamDescription("main", 1, (RUNG,), OPUS if sound else None),
            on_keyframe=lambda rung, patient: None,
            on_demand=lambda demands: None,
        )
        self._encoder = RungEncoder(RUNG)
        self._opus = OpusEncoder()
        self._tone = TestTone()
        self._picture = av.VideoFrame(RUNG.width, RUNG.height, "yuv420p")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> list[str]:
        addresses = await self.server.start("127.0.0.1", 0)
        self._task = asyncio.create_task(self._broadcast())
        return addresses

    async def close(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.server.close()

    async def _broadcast(self) -> None:
        first = round(WALL_CLOCK.now() * SOUND_CLOCK) // PIECE * PIECE
        for number in range(1_000_000):
            captured = (first + number * PIECE) / SOUND_CLOCK
            await asyncio.sleep(max(0.0, captured - WALL_CLOCK.now()))
            encoded = self._opus.encode(Sound(self._tone.draw(first + number * PIECE), captured))
            assert encoded is not None
            self.server.publish_sound(encoded)
            if number % 2 == 0:
                image = self._encoder.encode(self._picture, captured, keyframe=number % 10 == 0)
                self.server.publish(
                    EncodedFrame(0, number // 2, timestamp_at(captured), image.keyframe, 0, False, image.payload)
                )


class Listener:
    """A stock aiortc connection that offers to receive `kinds`, and what it has heard and seen."""

    def __init__(self, *kinds: str) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        for kind in kinds:
            self.connection.addTransceiver(kind, direction="recvonly")
        self.heard: list[np.ndarray[Any, Any]] = []
        self.seen = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def join(self, bus: MemoryBus) -> OfferResult:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        params = OfferParams(stream="main", sdp=self.connection.localDescription.sdp)
        result = await bus.handlers["offer"](msgspec.to_builtins(params))
        assert isinstance(result, OfferResult)
        await self.connection.setRemoteDescription(RTCSessionDescription(type="answer", sdp=result.sdp))
        for transceiver in self.connection.getTransceivers():
            self._tasks.append(asyncio.create_task(self._take(transceiver.receiver.track)))
        return result

    async def _take(self, track: Any) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if track.kind == "audio":
                self.heard.append(frame.to_ndarray().reshape(-1, 2))
            else:
                self.seen += 1

    async def listen(self, count: int) -> np.ndarray[Any, Any]:
        """The next `count` packets' sound, shape (samples, 2)."""
        start = len(self.heard)
        await until(lambda: len(self.heard) >= start + count)
        return np.concatenate(self.heard[start : start + count])

    async def close(self) -> None:
        await self.connection.close()
        await asyncio.gather(*self._tasks)


def beeps(wave: np.ndarray[Any, Any]) -> bool:
    """Whether there is a beep of 100 ms in this second, at its pitch, and else the hum."""
    pieces = wave[: len(wave) // PIECE * PIECE, 0].reshape(-1, PIECE).astype(float) / 32768
    loud = np.sqrt(np.mean(pieces**2, axis=1)) > 0.05
    spectrum = np.abs(np.fft.rfft(pieces[loud].sum(axis=0))) if loud.any() else np.zeros(1)
    pitch = float(np.argmax(spectrum)) * SOUND_CLOCK / PIECE
    return 3 <= loud.sum() <= 8 and bool((np.abs(pieces[~loud]).max(axis=1) > 0.005).all()) and abs(pitch - BEEP) < 60


@pytest.fixture(params=[True, False], ids=["sound", "silent"])
async def studio(request: pytest.FixtureRequest) -> AsyncIterator[Studio]:
    studio = Studio(request.param)
    yield studio
    await studio.close()


@pytest.fixture
async def bus(studio: Studio) -> MemoryBus:
    bus = MemoryBus()
    bus.links = await studio.start()
    return bus


@pytest.fixture
async def worker(bus: MemoryBus) -> AsyncIterator[Worker]:
    endpoint = await Endpoint.open(range(1), announce=["127.0.0.1"])
    worker = Worker("w-1", endpoint, cast(Bus, bus), WorkerSettings(tick=0.1, drain=0.0))
    await worker.start()
    yield worker
    await worker.close()


def pause(viewer: Viewer) -> None:
    """What the adaptation does below the lowest level."""
    viewer.steering.adapter.level = None
    viewer.steering.adapter._aftermath.changed_at = float("inf")
    assert viewer._outlet is not None
    state = State(fps=0.0, rung=None, bitrate=0)
    viewer.steering._carry_out(viewer._outlet, Decision("pause", state, state, {}, {}))


@pytest.mark.parametrize("studio", [True], indirect=True)
@pytest.mark.parametrize("fanout", ["native", "python"])
@pytest.mark.parametrize("kinds", [("video", "audio"), ("audio", "video")], ids=["video first", "audio first"])
async def test_a_viewer_hears_the_tone_also_while_its_picture_is_paused(
    bus: MemoryBus,
    studio: Studio,
    fanout: str,
    kinds: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BEAMCAST_FANOUT", fanout)
    endpoint = await Endpoint.open(range(1), announce=["127.0.0.1"])
    worker = Worker("w-1", endpoint, cast(Bus, bus), WorkerSettings(tick=0.1, drain=0.0))
    await worker.start()
    listener = Listener(*kinds)
    try:
        viewer = worker.viewers[(await listener.join(bus)).secret]
        await until(lambda: listener.seen > 5)
        assert beeps(await listener.listen(50))
        assert studio.server.listeners == 1
        outlet = viewer._outlet
        assert outlet is not None
        await until(lambda: outlet.feedback.reported_at is not None)
        assert (outlet.feedback.packets_lost, outlet.drops, outlet.rtcp_failures) == (0, 0, 0)

        pause(viewer)
        await until(lambda: not studio.server.demands[0].viewers)
        seen, sent = listener.seen, outlet.packets
        assert beeps(await listener.listen(50))
        assert outlet.packets == sent
        assert listener.seen <= seen + 2
        assert studio.server.listeners == 1
        assert viewer.playing
    finally:
        await listener.close()
        await worker.close()
    await until(lambda: studio.server.listeners == 0)


@pytest.mark.parametrize("studio", [True], indirect=True)
async def test_a_viewer_may_take_sound_alone(worker: Worker, bus: MemoryBus, studio: Studio) -> None:
    listener = Listener("audio")
    viewer = worker.viewers[(await listener.join(bus)).secret]
    assert beeps(await listener.listen(50))
    status = viewer.status()
    assert (status.state, status.level, viewer.playing) == ("connected", None, True)
    assert not studio.server.demands[0].viewers
    # A ladder that changes gives it no picture either.
    studio.server.describe(replace(studio.server.description, rungs=(replace(RUNG, bitrate=150_000),)))
    await until(lambda: viewer.steering.adapter._options.levels[0].bitrate == 150_000)
    await listener.listen(10)
    assert viewer._outlet is not None
    assert (viewer._outlet.packets, studio.server.listeners) == (0, 1)
    assert not studio.server.demands[0].viewers
    await listener.close()


@pytest.mark.parametrize("studio", [False], indirect=True)
async def test_who_takes_sound_alone_is_refused_where_there_is_none(worker: Worker, bus: MemoryBus) -> None:
    listener = Listener("audio")
    with pytest.raises(NoCommonCodecError, match="no sound"):
        await listener.join(bus)
    assert not worker.viewers
    assert worker._endpoint.peers == 0
    await listener.close()


@pytest.mark.parametrize("studio", [True], indirect=True)
async def test_a_viewer_that_wants_no_sound_gets_none(worker: Worker, bus: MemoryBus, studio: Studio) -> None:
    listener = Listener("video")
    viewer = worker.viewers[(await listener.join(bus)).secret]
    await until(lambda: listener.seen > 5)
    assert viewer._outlet is not None
    assert viewer._outlet.sound is None
    assert studio.server.listeners == 0
    await listener.close()


@pytest.mark.parametrize("studio", [False], indirect=True)
async def test_a_stream_without_sound_rejects_it(worker: Worker, bus: MemoryBus, studio: Studio) -> None:
    listener = Listener("video", "audio")
    await listener.connection.setLocalDescription(await listener.connection.createOffer())
    params = OfferParams(stream="main", sdp=listener.connection.localDescription.sdp)
    result = await bus.handlers["offer"](msgspec.to_builtins(params))
    assert "m=audio 0 " in result.sdp
    assert "a=inactive" in result.sdp
    assert studio.server.listeners == 0
    await listener.close()
