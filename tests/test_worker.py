"""The worker: joins, ends and faults of viewers, over a real endpoint and a real frame link, with a bus in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from broadcaster.adaptation.audience import bin_of, bitrate_of
from broadcaster.adaptation.neighbours import Share
from broadcaster.adaptation.path import PathState
from broadcaster.adaptation.samples import Sample
from broadcaster.bus import Bus
from broadcaster.bus.messages import Left, OfferParams, OfferResult, PatchParams, PatchResult
from broadcaster.errors import BusUnavailableError, ConnectionClosedError, OverloadedError, StreamNotLiveError
from broadcaster.link import LinkServer, RungDemand
from broadcaster.monitor import KEYS, QualityMonitor
from broadcaster.stream import Rung, StreamDescription
from workers.forward.feedback import Feedback
from workers.steering import PLANNING, starting_level
from workers.streams import Feed, FeedSettings
from workers.transport import Endpoint
from workers.viewer import Viewer
from workers.worker import Worker, WorkerSettings

OFFER = (Path(__file__).parent / "data" / "chromium156_offer.sdp").read_text()
DESCRIPTION = StreamDescription("main", 1, (Rung("360p", 640, 360, 30.0, 800_000, 3),))
PATIENCE = 5.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


class MemoryBus:
    """What a worker needs of the bus. `hold` makes writing a session's record wait for an event."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str | None]] = []
        self.left: list[Left] = []
        self.sessions: dict[str, Any] = {}
        self.handlers: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self.links: list[str] = []
        self.fault: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.writing = asyncio.Event()
        self.deletions: list[tuple[str, ...]] = []

    async def serve(self, id: str, handlers: Any) -> None:  # noqa: A002
        self.handlers = handlers

    def lease(self, kind: str, id: str, make: Any, *, on_taken: Any) -> Any:  # noqa: A002
        async def nothing() -> None:
            return None

        return SimpleNamespace(acquire=nothing, release=nothing, renew_soon=lambda: None)

    def publish(self, type: str, data: Any, *, stream: str | None, viewer: str | None = None) -> None:  # noqa: A002
        self.events.append((type, getattr(data, "reason", None)))
        if isinstance(data, Left):
            self.left.append(data)

    async def put_session(self, secret: str, record: Any) -> None:
        self.writing.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.fault is not None:
            raise self.fault
        self.sessions[secret] = record

    async def delete_session(self, *secrets: str) -> None:
        self.deletions.append(secrets)
        for secret in secrets:
            self.sessions.pop(secret, None)

    async def refresh_sessions(self, secrets: list[str]) -> bool:
        return True

    async def streams(self) -> list[Any]:
        return [SimpleNamespace(lease=SimpleNamespace(name="main", link=self.links))] if self.links else []

    async def offer(self) -> OfferResult:
        result = await self.handlers["offer"](msgspec.to_builtins(OfferParams(stream="main", sdp=OFFER)))
        assert isinstance(result, OfferResult)
        return result

    async def patch(self, secret: str, if_match: str | None, fragment: str) -> PatchResult:
        params = PatchParams(secret=secret, if_match=if_match, fragment=fragment)
        result = await self.handlers["patch"](msgspec.to_builtins(params))
        assert isinstance(result, PatchResult)
        return result


@pytest.fixture
async def link() -> AsyncIterator[LinkServer]:
    demands: list[Any] = []
    server = LinkServer(DESCRIPTION, on_keyframe=lambda rung, patient: None, on_demand=demands.append)
    yield server
    await server.close()


@pytest.fixture
async def bus(link: LinkServer) -> MemoryBus:
    bus = MemoryBus()
    bus.links = await link.start("127.0.0.1", 0)
    return bus


@pytest.fixture
async def worker(bus: MemoryBus, receiver: str) -> AsyncIterator[Worker]:
    endpoint = await Endpoint.open(range(1), announce=["127.0.0.1"])
    worker = Worker("w-1", endpoint, cast(Bus, bus), WorkerSettings(capacity=2, tick=0.01, drain=0.0))
    await worker.start()
    yield worker
    await worker.close()


def users(worker: Worker) -> int:
    return sum(worker._feeds._users.values())


async def test_a_viewer_joins_and_its_end_gives_back_what_it_had(worker: Worker, bus: MemoryBus) -> None:
    result = await bus.offer()
    assert list(worker.viewers) == [result.secret] == list(bus.sessions)
    assert users(worker) == 1
    worker.viewers[result.secret].close("deleted")
    await until(lambda: not bus.sessions)
    assert users(worker) == 0 and not worker.viewers and worker._endpoint.peers == 0
    assert bus.events == [("up", None), ("joined", None), ("left", "deleted")]


async def test_the_records_of_those_who_leave_together_are_deleted_together(worker: Worker, bus: MemoryBus) -> None:
    secrets = [(await bus.offer()).secret for _ in range(2)]
    for secret in secrets:
        worker.viewers[secret].close("closed")
    await until(lambda: not bus.sessions)
    assert bus.deletions == [tuple(secrets)]


async def test_a_worker_that_closes_leaves_no_record_behind(bus: MemoryBus) -> None:
    worker = Worker("w-1", await Endpoint.open(range(1), announce=["127.0.0.1"]), cast(Bus, bus))
    await worker.start()
    await bus.offer()
    assert len(bus.sessions) == 1
    await worker.close()
    assert not bus.sessions


async def test_places_are_counted_once_while_records_are_written(worker: Worker, bus: MemoryBus) -> None:
    bus.hold = asyncio.Event()
    first = asyncio.create_task(bus.offer())
    await bus.writing.wait()
    second = asyncio.create_task(bus.offer())
    await until(lambda: len(worker.viewers) == 2)
    with pytest.raises(OverloadedError):
        await bus.offer()
    bus.hold.set()
    await asyncio.gather(first, second)


@pytest.mark.parametrize("fault", [BusUnavailableError("no Redis"), None], ids=["refused", "too late"])
async def test_a_session_that_cannot_be_recorded_is_none(
    worker: Worker, bus: MemoryBus, fault: Exception | None
) -> None:
    bus.fault, bus.hold = fault, asyncio.Event()
    offering = asyncio.create_task(bus.offer())
    await bus.writing.wait()
    if fault is None:
        offering.cancel()  # as the bus does at the caller's deadline
    else:
        bus.hold.set()
    with pytest.raises((BusUnavailableError, asyncio.CancelledError)):
        await offering
    assert not worker.viewers and users(worker) == 0 and worker._endpoint.peers == 0


async def test_a_viewer_that_is_sent_away_while_it_joins_is_told(worker: Worker, bus: MemoryBus) -> None:
    bus.hold = asyncio.Event()
    offering = asyncio.create_task(bus.offer())
    await bus.writing.wait()
    await worker.drain()
    bus.hold.set()
    with pytest.raises(OverloadedError):
        await offering
    assert not bus.sessions and not worker.viewers and users(worker) == 0


async def test_an_offer_that_waits_for_its_stream_finds_the_worker_draining(bus: MemoryBus, worker: Worker) -> None:
    links, bus.links = bus.links, []
    offering = asyncio.create_task(bus.offer())
    await until(lambda: users(worker) == 1)
    await worker.drain()
    bus.links = links
    with pytest.raises(OverloadedError):
        await offering
    assert users(worker) == 0 and not worker.viewers


async def test_a_stream_without_a_source_takes_no_place(
    bus: MemoryBus, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.links = []
    monkeypatch.setattr(worker._feeds, "_settings", FeedSettings(ready_timeout=0.05, linger=0.05))
    with pytest.raises(StreamNotLiveError):
        await bus.offer()
    assert worker._joining == 0 and users(worker) == 0
    await until(lambda: not worker._feeds.running())


@pytest.mark.parametrize("step", ["tick", "relevel"])
async def test_a_fault_of_one_viewer_ends_that_viewer_alone(
    worker: Worker, bus: MemoryBus, link: LinkServer, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty, sound = [worker.viewers[(await bus.offer()).secret] for _ in range(2)]
    seen: list[Any] = []

    def broken(viewer: Viewer, argument: object) -> None:
        if viewer is faulty:
            raise ZeroDivisionError
        seen.append(argument)

    monkeypatch.setattr(Viewer, step, broken)
    if step == "relevel":
        link.describe(DESCRIPTION)
    await until(lambda: len(seen) >= (3 if step == "tick" else 1))
    assert list(worker.viewers.values()) == [sound]
    assert link.statistics().connections == 1 and link.statistics().errors == 0
    assert ("left", "failed") in bus.events


async def test_a_fault_of_the_look_itself_is_not_the_last_look(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[int] = []

    def broken() -> list[Feed]:
        looks.append(1)
        raise ZeroDivisionError

    monkeypatch.setattr(worker._feeds, "running", broken)
    await until(lambda: len(looks) >= 3)
    assert "a look at the viewers failed" in caplog.text
    monkeypatch.undo()


async def test_candidates_after_an_ice_restart_are_no_restart(worker: Worker, bus: MemoryBus) -> None:
    session = await bus.offer()
    credentials = "a=ice-ufrag:newufrag\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n"
    restarted = await bus.patch(session.secret, session.etag, credentials)
    assert restarted.fragment is not None and restarted.etag != session.etag
    trickled = await bus.patch(
        session.secret, restarted.etag, credentials + "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n"
    )
    assert trickled.fragment is None and trickled.etag == restarted.etag


async def test_what_the_viewers_paths_carry_reaches_the_broadcaster(bus: MemoryBus, link: LinkServer) -> None:
    async def locate(stream: str) -> list[str]:
        return bus.links

    feed = Feed("main", locate, cast(Any, None), on_description=lambda description: None)
    feed.start()
    await feed.description(PATIENCE)
    feed._demand_changed({0: 2})
    feed.tell_audience({0: [500_000, 0], 7: [1e6]})
    await until(lambda: link.demands[0] == RungDemand(2, {0: 1, bin_of(500_000): 1}))
    assert sum(feed.audience.values()) == 3
    feed._demand_changed({})
    feed.tell_audience({})
    await until(lambda: link.demands[0] == RungDemand(0))
    assert link.statistics().errors == 0
    await feed.close()


async def test_a_newcomer_starts_where_most_of_the_audience_is(worker: Worker, bus: MemoryBus) -> None:
    first = worker.viewers[(await bus.offer()).secret]
    (feed,) = worker._feeds.running()
    before = first.steering.adapter.level
    feed.tell_audience({0: [90_000.0] * 3 + [9e6]})
    second = worker.viewers[(await bus.offer()).secret]
    assert before is not None
    assert second.steering.adapter.level is not None
    assert second.steering.adapter.level.bitrate <= before.bitrate
    assert second.steering.adapter.level == starting_level(first.steering.adapter._options.levels, 90_000)


async def test_a_viewer_that_has_settled_tells_what_its_path_carries(worker: Worker, bus: MemoryBus) -> None:
    viewer = worker.viewers[(await bus.offer()).secret]
    assert viewer.steering.carried is None
    viewer._gauge.path = PathState(estimate=700_000.0, capacity=4e6)
    for now in range(20):
        viewer.steering.adapter.update(float(now), Sample(), PathState())
    assert viewer.steering.adapter.level is not None
    viewer.steering.adapter.level = viewer.steering.adapter._options.levels[0]
    assert viewer.steering.carried == (viewer.steering.adapter.level.rung, 700_000.0)
    viewer.steering.adapter.level = viewer.steering.adapter._options.levels[-1]
    assert viewer.steering.carried == (0, 0.85 * 4e6)


async def test_a_viewer_carries_what_it_has_settled_on_however_little_was_needed(
    worker: Worker, bus: MemoryBus
) -> None:
    viewer = worker.viewers[(await bus.offer()).secret]
    for now in range(20):
        viewer.steering.adapter.update(float(now), Sample(), PathState())
    level = viewer.steering.adapter.level
    assert level is not None
    viewer._gauge.path = PathState(estimate=0.5 * level.bitrate)
    assert viewer.steering.carried is not None
    rung, carried = viewer.steering.carried
    assert rung == level.rung
    assert bitrate_of(bin_of(carried)) >= PLANNING.overhead * level.bitrate, "the rung is to stay as it is"
    assert carried < 1.3 * level.bitrate


async def test_how_fast_bursts_come_through_a_shared_line_is_nobodys_own(worker: Worker, bus: MemoryBus) -> None:
    viewer = worker.viewers[(await bus.offer()).secret]
    for now in range(20):
        viewer.steering.adapter.update(float(now), Sample(), PathState())
    viewer.steering.adapter.level = viewer.steering.adapter._options.levels[-1]
    viewer._gauge.path = PathState(estimate=700_000.0, capacity=1e7)
    viewer.steering.adapter.share = Share()
    assert viewer.steering.carried == (0, 0.85 * 1e7)
    viewer.steering.adapter.share = Share(cap=3)
    assert viewer.steering.carried is not None
    assert viewer.steering.carried[1] < 4e6


async def test_the_end_of_congestion_is_heard_as_soon_as_its_beginning(worker: Worker, bus: MemoryBus) -> None:
    viewer = worker.viewers[(await bus.offer()).secret]
    path = PathState(estimate=9e5, queue_delay=0.05, congested=True, measured=1)
    estimator = SimpleNamespace(state=lambda now: path, watched=False)
    outlet = SimpleNamespace(estimator=estimator, feedback=Feedback(), sound_is_estimated=False)
    viewer.steering.update(cast(Any, outlet), 1.0, Sample())
    assert estimator.watched
    path = PathState(estimate=9e5, queue_delay=0.0, measured=2)
    viewer.steering.update(cast(Any, outlet), 1.1, Sample())
    assert not estimator.watched


async def test_overload_reaches_every_viewer_and_ends_for_every_viewer(
    worker: Worker, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    viewers = [worker.viewers[(await bus.offer()).secret] for _ in range(2)]
    for overloaded in (True, False):
        monkeypatch.setattr(worker._meter, "update", lambda now, *, lag, counts, it=overloaded: it)
        worker._measure_load(1.0, 0.3)
        assert [viewer.steering.adapter.overloaded for viewer in viewers] == [overloaded] * 2
        worker._meter.overloaded = overloaded
    assert caplog.text.count("overloaded: all viewers get fewer frames; the event loop is late by 300 ms") == 1
    assert caplog.text.count("no longer overloaded") == 1


async def test_what_a_viewer_over_tcp_does_not_take_is_no_overload(
    worker: Worker, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    udp, tcp = [worker.viewers[(await bus.offer()).secret] for _ in range(2)]
    seen: list[dict[str, tuple[int, int]]] = []
    monkeypatch.setattr(worker._meter, "update", lambda now, *, lag, counts: seen.append(counts))
    for viewer, is_tcp in ((udp, False), (tcp, True)):
        viewer._outlet = cast(Any, SimpleNamespace(path=SimpleNamespace(is_tcp=is_tcp), packets=500, drops=90))
    worker._measure_load(1.0, 0.0)
    udp._outlet = tcp._outlet = None
    assert seen[-1] == {udp.id: (500, 90)}


async def test_the_devices_of_a_household_are_behind_one_line(worker: Worker, bus: MemoryBus) -> None:
    viewer = worker.viewers[(await bus.offer()).secret]
    assert viewer.line is None, "it is not connected"
    viewer._outlet = cast(Any, object())
    for address, line in (("192.0.2.1", "192.0.2.1"), ("2001:db8:0:1::17", "2001:db8:0:1::")):
        viewer._peer.path = cast(Any, SimpleNamespace(address=(address, 9), is_tcp=False))
        assert viewer.line == line
    viewer._offer = replace(viewer._offer, video=None)
    assert viewer.line is None, "it gets no pictures"
    viewer._outlet = viewer._peer.path = None


async def test_viewers_of_one_stream_behind_one_line_are_kept_together(
    worker: Worker, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.settings = WorkerSettings(capacity=8)
    monkeypatch.setattr(Viewer, "line", property(lambda viewer: lines.get(viewer.id)))
    monkeypatch.setattr(Viewer, "queue", property(lambda viewer: 0.1))
    lines: dict[str, str] = {}
    viewers = [worker.viewers[(await bus.offer()).secret] for _ in range(6)]
    low, *_, elsewhere, other = viewers
    for viewer in viewers:
        viewer.steering.adapter.level = viewer.steering.adapter._options.levels[0 if viewer is low else -1]
        lines[viewer.id] = "192.0.2.2" if viewer is elsewhere else "192.0.2.1"
    other.stream = "other"
    worker._compare_neighbours(100.0)
    shares = [
        viewer.steering.neighbours and viewer.steering.neighbours.share(100.0, viewer.id, 0) for viewer in viewers
    ]
    assert [share and share.cap for share in shares] == [1, 1, 1, 1, None, None]
    lines.clear()
    worker._compare_neighbours(101.0)
    assert not worker._neighbours, "nobody is left there"
    assert low.steering.neighbours is None
    other.stream = "main"


async def test_a_viewer_that_is_late_to_connect_gives_way_where_all_places_are_taken(
    worker: Worker, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await bus.offer(), await bus.offer()
    with pytest.raises(OverloadedError):
        await bus.offer()
    now, wall = time.monotonic(), time.time()
    monkeypatch.setattr("time.time", lambda: wall - 3600.0)  # somebody sets the machine's clock
    worker.viewers[first.secret]._started = now - worker.settings.late
    third = await bus.offer()
    assert set(worker.viewers) == {second.secret, third.secret}
    assert ("left", "timeout") in bus.events
    assert worker.settings.late <= bus.left[0].duration < worker.settings.late + PATIENCE


async def test_a_frame_link_is_found_again_while_redis_is_away(
    worker: Worker, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bus.offer()

    async def away() -> list[Any]:
        raise BusUnavailableError("away")

    monkeypatch.setattr(bus, "streams", away)
    assert await worker._locate("main") == bus.links


async def test_the_library_reads_a_viewer_like_any_connection(worker: Worker, bus: MemoryBus) -> None:
    viewer = worker.viewers[(await bus.offer()).secret]
    stats = await QualityMonitor(viewer).get_connection_stats()  # type: ignore[arg-type]
    assert set(stats) == set(KEYS)
    assert stats["packet_loss"] is None
    viewer.close("deleted")
    with pytest.raises(ConnectionClosedError):
        await QualityMonitor(viewer).get_connection_stats()  # type: ignore[arg-type]
