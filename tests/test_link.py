"""Both ends of the frame link over loopback TCP, and what happens when one of them misbehaves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from broadcaster.errors import ConfigurationError, LinkError
from broadcaster.link import ClientLimits, LinkClient, LinkServer, RungDemand, ServerLimits, WireLimits
from broadcaster.link.address import announced_addresses, split_address
from broadcaster.link.backlog import BacklogLimits
from broadcaster.link.server import aggregate
from broadcaster.link.wire import VERSION, Decoder, Demand, Hello, KeyframeRequest, Message, Ping, Pong, Refusal, encode
from broadcaster.stream import EncodedFrame, Rung, StreamDescription

PATIENCE = 10.0
DESCRIPTION = StreamDescription(
    "main", 7, (Rung("720p", 1280, 720, 30.0, 2_500_000, 2), Rung("360p", 640, 360, 30.0, 800_000, 3))
)
OTHER_LADDER = StreamDescription("main", 7, (Rung("180p", 320, 180, 15.0, 200_000, 3),))
WATCHED = RungDemand(1)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


class Broadcaster(LinkServer):
    """A server that writes down what it is asked for."""

    def __init__(self, description: StreamDescription = DESCRIPTION, limits: ServerLimits | None = None) -> None:
        self.keyframes: list[int] = []
        self.patient: list[int] = []
        self.heard: list[dict[int, RungDemand]] = []
        super().__init__(
            description,
            on_keyframe=lambda rung, patient: (self.patient if patient else self.keyframes).append(rung),
            on_demand=self.heard.append,
            limits=limits or ServerLimits(),
        )
        self.counts = [0] * 16
        self.addresses: list[str] = []

    def send(self, rung: int, *, keyframe: bool = False, size: int = 100) -> EncodedFrame:
        frame = EncodedFrame(rung, self.counts[rung], self.counts[rung] * 3000, keyframe, 0, False, bytes(size))
        self.counts[rung] += 1
        self.publish(frame)
        return frame


class Worker(LinkClient):
    """A client that writes down what it gets."""

    def __init__(self, *addresses: str, stream: str = "main", limits: ClientLimits | None = None) -> None:
        self.addresses = list(addresses)
        self.frames: list[EncodedFrame] = []
        self.descriptions: list[StreamDescription] = []
        self.downs = 0
        super().__init__(
            stream,
            self._where,
            on_description=self.descriptions.append,
            on_frame=self.frames.append,
            on_down=self._count_down,
            limits=limits or ClientLimits(retry_least=0.01, retry_most=0.05),
        )

    async def _where(self) -> list[str]:
        return self.addresses

    def _count_down(self) -> None:
        self.downs += 1


@asynccontextmanager
async def broadcasting(
    description: StreamDescription = DESCRIPTION, limits: ServerLimits | None = None, port: int = 0
) -> AsyncIterator[Broadcaster]:
    server = Broadcaster(description, limits)
    server.addresses = await server.start("127.0.0.1", port)
    yield server
    await server.close()


@asynccontextmanager
async def working(*addresses: str, stream: str = "main", limits: ClientLimits | None = None) -> AsyncIterator[Worker]:
    client = Worker(*addresses, stream=stream, limits=limits)
    client.start()
    yield client
    await client.close()


class Stranger:
    """A raw connection that speaks as the test likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._decoder = Decoder(frames=True)
        self._messages: list[Message] = []

    async def next(self) -> Message | None:
        """The next message; None at the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            while not self._messages:
                try:
                    data = await self.reader.read(65536)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self._messages += self._decoder.feed(data)
        return self._messages.pop(0)

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.writer.write(encode(message))


@asynccontextmanager
async def stranger(address: str) -> AsyncIterator[Stranger]:
    reader, writer = await asyncio.open_connection(*split_address(address))
    yield Stranger(reader, writer)
    writer.transport.abort()
    await asyncio.sleep(0)


@contextmanager
def slow_reader(address: str, *messages: Message) -> Iterator[socket.socket]:
    """A worker with a small receive buffer that says `messages` and reads when the test does."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.connect(split_address(address))
        connection.sendall(b"".join(encode(message) for message in messages))
        connection.setblocking(False)
        yield connection


async def test_frames_of_demanded_rungs_arrive_from_a_keyframe_on() -> None:
    async with broadcasting() as server, working(*server.addresses) as worker:
        assert await worker.ready(PATIENCE) == DESCRIPTION
        assert worker.up
        worker.demand({1: WATCHED})
        await until(lambda: server.keyframes == [1])
        assert server.heard == [{0: RungDemand(0), 1: WATCHED}]
        server.send(1)
        server.send(0, keyframe=True)
        sent = [server.send(1, keyframe=True, size=300_000), server.send(1), server.send(1)]
        await until(lambda: len(worker.frames) == 3)
        assert worker.frames == sent
        statistics = server.statistics()
        assert (statistics.connections, statistics.published, statistics.sent) == (1, 5, 3)
        assert statistics.dropped == 1


async def test_a_frame_is_encoded_once_for_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    from broadcaster.link import server as module

    calls = 0

    def counting(message: Message, limits: WireLimits) -> bytes:
        nonlocal calls
        calls += isinstance(message, EncodedFrame)
        return encode(message, limits)

    monkeypatch.setattr(module, "encode", counting)
    async with broadcasting() as server, working(*server.addresses) as one, working(*server.addresses) as two:
        for worker in (one, two):
            await worker.ready(PATIENCE)
            worker.demand({0: WATCHED})
        await until(lambda: server.demands[0].viewers == 2)
        server.send(0, keyframe=True)
        await until(lambda: len(one.frames) == len(two.frames) == 1)
        assert calls == 1


async def test_demand_adds_up_and_shrinks_when_a_worker_leaves() -> None:
    async with broadcasting() as server, working(*server.addresses) as one:
        await one.ready(PATIENCE)
        one.demand({0: RungDemand(1, {42: 1})})
        await until(lambda: server.demands[0] == RungDemand(1, {42: 1}))
        async with working(*server.addresses) as two:
            await two.ready(PATIENCE)
            two.demand({0: RungDemand(2, {42: 1, 7: 1}), 1: RungDemand(1)})
            await until(lambda: server.demands == {0: RungDemand(3, {7: 1, 42: 2}), 1: RungDemand(1)})
        await until(lambda: server.demands == {0: RungDemand(1, {42: 1}), 1: RungDemand(0)})
        one.demand({})
        await until(lambda: server.demands == {0: RungDemand(0), 1: RungDemand(0)})
        assert server.heard[-1] == server.demands
    assert len(server.heard) == 4


def test_audiences_add_up_over_workers() -> None:
    alone = {0: RungDemand(1, {5: 1})}
    assert aggregate([alone], 1) == {0: RungDemand(1, {5: 1})}
    assert aggregate([alone, {0: RungDemand(0, {9: 4})}], 1) == {0: RungDemand(1, {5: 1})}
    assert aggregate([alone, {0: RungDemand(3, {5: 1, 6: 1})}], 2) == {0: RungDemand(4, {5: 2, 6: 1}), 1: RungDemand(0)}
    assert aggregate([{3: RungDemand(1, {5: 1})}], 1) == {0: RungDemand(0)}


async def test_a_rung_that_a_worker_begins_to_demand_later_is_as_urgent_as_it_says() -> None:
    async with broadcasting() as server, working(*server.addresses) as worker:
        await worker.ready(PATIENCE)
        worker.demand({1: WATCHED})
        await until(lambda: server.keyframes == [1])
        worker.demand({0: WATCHED, 1: WATCHED})
        await until(lambda: server.patient == [0])
        worker.request_keyframe(0, patient=True)
        await until(lambda: server.patient == [0, 0])
        worker.demand({1: WATCHED})
        worker.request_keyframe(0)
        worker.request_keyframe(0, patient=True)
        worker.demand({0: WATCHED, 1: WATCHED})
        await until(lambda: server.keyframes == [1, 0])
        assert server.patient == [0, 0]


async def test_a_worker_joins_a_rung_that_others_watch_without_a_new_keyframe() -> None:
    async with broadcasting() as server, working(*server.addresses) as one, working(*server.addresses) as two:
        for worker in (one, two):
            await worker.ready(PATIENCE)
        two.demand({1: WATCHED})
        one.demand({0: WATCHED})
        await until(lambda: server.demands == {0: WATCHED, 1: WATCHED})
        server.keyframes.clear()
        sent = [server.send(0, keyframe=True), server.send(0)]
        two.request_keyframe(0)
        two.demand({0: WATCHED, 1: WATCHED})
        await until(lambda: len(two.frames) == 2)
        sent.append(server.send(0))
        await until(lambda: len(two.frames) == 3)
        assert [frame.index for frame in two.frames] == [frame.index for frame in sent]
        newest = sent[1].timestamp
        assert [frame.timestamp for frame in two.frames] == [newest - 1, newest, sent[2].timestamp]
        assert server.keyframes == server.patient == []


async def test_what_nobody_has_watched_for_a_while_is_no_start() -> None:
    async with broadcasting() as server, working(*server.addresses) as worker:
        await worker.ready(PATIENCE)
        worker.demand({0: WATCHED, 1: WATCHED})
        await until(lambda: server.demands[0] == WATCHED)
        server.send(0, keyframe=True)
        await until(lambda: len(worker.frames) == 1)
        worker.demand({1: WATCHED})
        worker.demand({0: WATCHED, 1: WATCHED})
        await until(lambda: server.patient == [0])
        assert len(worker.frames) == 1


async def test_keyframe_requests_arrive_unless_the_rung_does_not_exist() -> None:
    async with broadcasting() as server, working(*server.addresses) as worker:
        worker.request_keyframe(0)
        await worker.ready(PATIENCE)
        worker.demand({1: WATCHED, 9: WATCHED})
        await until(lambda: server.keyframes == [1])
        worker.request_keyframe(9)
        worker.request_keyframe(1)
        worker.request_keyframe(1, patient=True)
        await until(lambda: server.patient == [1])
        assert server.keyframes == [1, 1]


async def test_a_changed_ladder_is_described_and_starts_at_keyframes() -> None:
    async with broadcasting() as server, working(*server.addresses) as worker:
        await worker.ready(PATIENCE)
        worker.demand({0: WATCHED, 1: WATCHED})
        await until(lambda: server.demands[1].viewers == 1)
        server.send(0, keyframe=True)
        server.describe(OTHER_LADDER)
        server.send(1, keyframe=True)
        server.send(0)
        last = server.send(0, keyframe=True)
        await until(lambda: len(worker.frames) == 2)
        assert worker.frames[1] == last
        assert worker.descriptions == [DESCRIPTION, OTHER_LADDER]
        assert worker.description == OTHER_LADDER
        assert server.heard[-1] == {0: WATCHED}


async def test_demand_is_said_again_after_a_reconnect() -> None:
    async with broadcasting() as first:
        address = first.addresses[0]
        client = working(address)
        worker = await client.__aenter__()
        worker.demand({1: RungDemand(4)})
        await worker.ready(PATIENCE)
        await until(lambda: first.demands[1] == RungDemand(4))
    await until(lambda: worker.downs == 1)
    assert not worker.up
    async with broadcasting(OTHER_LADDER, port=split_address(address)[1]) as second:
        assert await worker.ready(PATIENCE) == OTHER_LADDER
        second.describe(DESCRIPTION)
        await until(lambda: second.demands[1] == RungDemand(4))
        await client.__aexit__(None, None, None)
    assert worker.downs == 1
    assert not worker.up


async def test_all_located_addresses_are_tried() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
        other = StreamDescription("other", 1, DESCRIPTION.rungs)
        async with (
            broadcasting(other) as wrong,
            broadcasting() as right,
            working("nonsense", dead, *wrong.addresses, *right.addresses) as worker,
        ):
            assert await worker.ready(PATIENCE) == DESCRIPTION
            await until(lambda: wrong.statistics().connections == 0)
            assert wrong.statistics().refused == 1


async def test_ready_says_why_it_failed() -> None:
    other = StreamDescription("other", 1, DESCRIPTION.rungs)
    async with broadcasting(other) as server, working(*server.addresses) as worker:
        await until(lambda: server.statistics().refused > 1)
        with pytest.raises(LinkError, match="this broadcaster has the stream other, not main"):
            await worker.ready(0.01)
    async with working() as worker:
        await asyncio.sleep(0)
        with pytest.raises(LinkError, match="no broadcaster has it on the air"):
            await worker.ready(0.05)


async def test_an_error_while_locating_is_a_failed_round() -> None:
    async with broadcasting() as server:
        rounds = 0

        async def locate() -> list[str]:
            nonlocal rounds
            rounds += 1
            if rounds < 3:
                raise ConfigurationError("the registry is away")
            return server.addresses

        client = LinkClient(
            "main",
            locate,
            on_description=lambda _: None,
            on_frame=lambda _: None,
            on_down=lambda: None,
            limits=ClientLimits(retry_least=0.01),
        )
        client.start()
        await client.ready(PATIENCE)
        assert rounds == 3
        await client.close()


async def test_a_fault_while_locating_is_logged_and_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async with broadcasting() as server:
        faults = [KeyError("nobody expected this")]

        async def locate() -> list[str]:
            if faults:
                raise faults.pop()
            return server.addresses

        client = LinkClient(
            "main", locate, on_description=lambda _: None, on_frame=lambda _: None, on_down=lambda: None
        )
        client.start()
        await client.ready(PATIENCE)
        await client.close()
    assert "nobody expected this" in caplog.text


async def test_close_ends_even_when_locating_loses_a_cancellation() -> None:
    locating = asyncio.Event()
    lost = 0

    async def locate() -> list[str]:
        nonlocal lost
        locating.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            lost += 1
            if lost > 1:
                raise
        return []

    client = LinkClient(
        "main",
        locate,
        on_description=lambda _: None,
        on_frame=lambda _: None,
        on_down=lambda: None,
        limits=ClientLimits(retry_least=0.0),
    )
    client.start()
    async with asyncio.timeout(PATIENCE):
        await locating.wait()
        await client.close()
    assert lost == 2


async def test_the_pause_between_rounds_doubles_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await real(0)

    monkeypatch.setattr("broadcaster.link.client.asyncio.sleep", sleep)

    async def nowhere() -> list[str]:
        return []

    client = LinkClient(
        "main",
        nowhere,
        on_description=lambda _: None,
        on_frame=lambda _: None,
        on_down=lambda: None,
        jitter=lambda: 1.0,
    )
    client.start()
    async with asyncio.timeout(PATIENCE):
        while len(pauses) < 7:
            await real(0)
    await client.close()
    assert pauses[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


async def test_a_slow_worker_loses_whole_frames_and_nobody_else_notices() -> None:
    limits = ServerLimits(socket_buffer=65536, backlog=BacklogLimits(size=200_000, age=10.0))
    async with broadcasting(limits=limits) as server, working(*server.addresses) as fast:
        await fast.ready(PATIENCE)
        fast.demand({0: WATCHED})
        await until(lambda: server.demands[0].viewers == 1)
        with slow_reader(server.addresses[0], Hello(VERSION, "main"), Demand({0: WATCHED})) as slow:
            await until(lambda: server.demands[0].viewers == 2)
            server.keyframes.clear()
            sent = [server.send(0, keyframe=True, size=20_000)]
            for _ in range(99):
                sent.append(server.send(0, size=20_000))
                await asyncio.sleep(0)
            await until(lambda: len(fast.frames) == 100)
            assert fast.frames == sent
            statistics = server.statistics()
            assert statistics.dropped > 50
            assert statistics.waiting <= 10

            decoder = Decoder(frames=True)
            received: list[EncodedFrame] = []

            def read() -> None:
                while True:
                    try:
                        data = slow.recv(65536)
                    except BlockingIOError:
                        return
                    received.extend(m for m in decoder.feed(data) if isinstance(m, EncodedFrame))

            def drained() -> bool:
                read()
                return server.keyframes == [0]

            await until(drained)
            assert received == sent[: len(received)]
            server.send(0, size=20_000)
            restart = server.send(0, keyframe=True, size=20_000)

            def restarted() -> bool:
                read()
                return restart in received

            await until(restarted)
            assert received == [*sent[: len(received) - 1], restart]
        await until(lambda: server.statistics().connections == 1)
        assert server.statistics().dropped == statistics.dropped + 1


async def test_an_old_backlog_is_lost_whole() -> None:
    limits = ServerLimits(socket_buffer=4096, backlog=BacklogLimits(age=0.0))
    async with broadcasting(limits=limits) as server:
        with slow_reader(server.addresses[0], Hello(VERSION, "main"), Demand({0: WATCHED})):
            await until(lambda: server.demands[0].viewers == 1)
            server.send(0, keyframe=True, size=1_000_000)
            for _ in range(10):
                server.send(0)
                await asyncio.sleep(0.002)
            assert server.statistics().waiting <= 1
            assert server.statistics().dropped >= 9


async def test_a_frame_beyond_the_limit_is_dropped_and_counted() -> None:
    limits = ServerLimits(wire=WireLimits(frame=70_000))
    async with broadcasting(limits=limits) as server, working(*server.addresses) as worker:
        await worker.ready(PATIENCE)
        worker.demand({0: WATCHED})
        await until(lambda: server.demands[0].viewers == 1)
        server.send(0, keyframe=True, size=80_000)
        good = server.send(0, keyframe=True)
        await until(lambda: worker.frames == [good])
        assert server.statistics().oversized == 1


async def test_a_worker_that_says_nothing_is_dropped() -> None:
    async with (
        broadcasting(limits=ServerLimits(hello=0.05)) as server,
        stranger(server.addresses[0]) as silent,
    ):
        assert await silent.next() is None
        assert server.statistics().silent == 1


async def test_a_half_open_worker_is_dropped_and_one_that_answers_is_kept() -> None:
    limits = ServerLimits(ping=0.05, silence=0.2)
    async with (
        broadcasting(limits=limits) as server,
        working(*server.addresses) as worker,
        stranger(server.addresses[0]) as dead,
    ):
        dead.send(Hello(VERSION, "main"))
        assert await dead.next() == DESCRIPTION
        pings = 0
        while await dead.next() is not None:
            pings += 1
        assert pings >= 2
        await until(lambda: server.statistics().connections == 1)
        assert worker.up
        assert worker.downs == 0


async def test_a_broadcaster_that_falls_silent_is_left() -> None:
    limits = ClientLimits(silence=0.1, retry_least=0.01, retry_most=0.05)
    async with broadcasting() as server, working(*server.addresses, limits=limits) as worker:
        await until(lambda: worker.downs == 2)
        assert len(worker.descriptions) >= 2


async def test_a_broadcaster_that_never_describes_is_left() -> None:
    refused = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()
        refused.set()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with working(f"{host}:{port}", limits=ClientLimits(connect=0.05)) as worker:
        async with asyncio.timeout(PATIENCE):
            await refused.wait()
        with pytest.raises(LinkError, match="no description came"):
            await worker.ready(0.01)
        assert worker.downs == 0
    server.close()
    await server.wait_closed()


async def test_connections_are_limited() -> None:
    limits = ServerLimits(connections=1)
    async with (
        broadcasting(limits=limits) as server,
        stranger(server.addresses[0]) as idle,
        working(*server.addresses) as worker,
    ):
        await worker.ready(PATIENCE)
        async with stranger(server.addresses[0]) as third:
            assert await third.next() is None
        idle.send(Hello(VERSION, "main"))
        answer = await idle.next()
        assert isinstance(answer, Refusal)
        assert "serves 1 workers already" in answer.reason
        assert await idle.next() is None
        assert worker.up


async def test_another_version_is_refused_with_a_reason() -> None:
    async with broadcasting() as server, stranger(server.addresses[0]) as worker:
        worker.send(Hello(9, "main"))
        answer = await worker.next()
        assert isinstance(answer, Refusal)
        assert "version 3 of the frame link, not 9" in answer.reason
        assert await worker.next() is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\xff" * 64,
        encode(KeyframeRequest(0)),
        encode(Hello(VERSION, "main")) * 2,
        encode(Hello(VERSION, "main")) + encode(EncodedFrame(0, 0, 0, True, 0, False, b"x")),
        encode(Hello(VERSION, "main")) + encode(DESCRIPTION),
    ],
    ids=["http", "ones", "no-hello", "two-hellos", "frame", "description"],
)
async def test_a_worker_that_breaks_the_protocol_is_cut(data: bytes) -> None:
    async with (
        broadcasting() as server,
        working(*server.addresses) as good,
        stranger(server.addresses[0]) as bad,
    ):
        await good.ready(PATIENCE)
        bad.writer.write(data)
        while await bad.next() is not None:
            pass
        await until(lambda: server.statistics().errors == 1)
        assert good.up


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        encode(EncodedFrame(0, 0, 0, True, 0, False, b"x")),
        encode(Ping(1)),
        encode(StreamDescription("other", 1, DESCRIPTION.rungs)),
        encode(DESCRIPTION) + encode(EncodedFrame(2, 0, 0, True, 0, False, b"x")),
        encode(DESCRIPTION) + encode(Pong(1)),
        encode(DESCRIPTION) + encode(Refusal("late")),
    ],
    ids=["ssh", "early-frame", "early-ping", "other", "no-such-rung", "pong", "late-refusal"],
)
async def test_a_broadcaster_that_breaks_the_protocol_is_left(data: bytes) -> None:
    hellos = 0

    async def bad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hellos
        writer.write(data)
        with_hello = await reader.read(1000)
        hellos += with_hello == encode(Hello(VERSION, "main"))
        writer.close()

    server = await asyncio.start_server(bad, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with working(f"{host}:{port}") as worker:
        await until(lambda: hellos >= 2)
        assert worker.frames == []
    server.close()
    await server.wait_closed()


async def test_a_port_in_use_is_one_clear_error() -> None:
    async with broadcasting() as server:
        port = split_address(server.addresses[0])[1]
        with pytest.raises(LinkError, match=f"cannot listen on 127.0.0.1:{port} .*choose another"):
            await Broadcaster().start("127.0.0.1", port)


async def test_closing_what_was_not_started() -> None:
    await Broadcaster().close()
    await Worker().close()


def test_addresses() -> None:
    assert announced_addresses(("127.0.0.1", 5)) == ["127.0.0.1:5"]
    assert announced_addresses(("::1", 5)) == ["[::1]:5"]
    assert announced_addresses(("0.0.0.0", 5))[-1] == "127.0.0.1:5"
    assert announced_addresses(("::", 5))[-1] == "[::1]:5"
    assert "0.0.0.0:5" not in announced_addresses(("0.0.0.0", 5))
    assert split_address("[::1]:5") == ("::1", 5)
    assert split_address("host.example:65535") == ("host.example", 65535)
    for wrong in ("", "host", "host:", ":5", "host:0", "host:65536", "host:-1", "host:x"):
        with pytest.raises(LinkError):
            split_address(wrong)
