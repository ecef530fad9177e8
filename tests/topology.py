"""A whole Beamcast of real processes on loopback: a redis-server, gateways, a broadcaster, workers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.redis_server import RedisServer

READY_TIMEOUT = 25.0


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Process:
    """One of our processes; its log goes to a file."""

    def __init__(self, name: str, arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.arguments = arguments
        self.log = folder / f"{name}.log"
        self._environment = environment
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self.arguments,
                env={**os.environ, **self._environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    async def stop(self) -> int | None:
        """End the process, kindly first; its exit code."""
        if self.process is None:
            return None
        if self.process.returncode is None:
            self.terminate()
            try:
                async with asyncio.timeout(8):
                    await self.process.wait()
            except TimeoutError:
                self.kill()
        return await self.process.wait()


class Topology:
    """`async with Topology(tmp_path, workers=2, gateways=2) as beamcast:` and everything takes work."""

    def __init__(
        self,
        folder: Path,
        *,
        source: str = "pattern",
        stream: str = "main",
        workers: int = 1,
        gateways: int = 1,
        announce: str | None = "127.0.0.1",
        worker_arguments: tuple[str, ...] = (),
        broadcaster_arguments: tuple[str, ...] = (),
    ) -> None:
        self.stream = stream
        self.redis = RedisServer()
        self._folder = folder
        self._source = source
        self._counts = workers, gateways
        self._announce = announce
        self._worker_arguments = worker_arguments
        self._broadcaster_arguments = broadcaster_arguments
        self.workers: dict[str, Process] = {}
        self.gateways: dict[str, Process] = {}
        self.urls: list[str] = []
        self.http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.redis.start)
        self.http = aiohttp.ClientSession()
        workers, gateways = self._counts
        self.broadcaster = self._process(
            "broadcaster",
            ["broadcaster", "broadcast", self._source, "--stream", self.stream, *self._broadcaster_arguments],
        )
        for n in range(1, gateways + 1):
            port = free_port()
            self.urls.append(f"http://127.0.0.1:{port}")
            name = f"gateway-{n}"
            self.gateways[name] = self._process(name, ["gateway", "--port", str(port), "--id", name])
        for n in range(1, workers + 1):
            name = f"worker-{n}"
            self.workers[name] = self.worker(name)
        try:
            for process in self.processes:
                await process.start()
            async with asyncio.timeout(READY_TIMEOUT):
                await self._ready(workers)
        except BaseException as error:
            error.add_note(self.logs())
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self.logs())
        await self._stop()

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def processes(self) -> list[Process]:
        return [self.broadcaster, *self.gateways.values(), *self.workers.values()]

    def worker(self, name: str) -> Process:
        """A worker that is not started yet."""
        arguments = ["workers", "--udp-ports", "0", "--id", name, *self._worker_arguments]
        if self._announce is not None:
            arguments += ["--announce", self._announce]
        return self._process(name, arguments)

    async def get(self, path: str, *, gateway: int = 0) -> Any:
        """The JSON at `path` of a gateway."""
        async with self.http.get(self.urls[gateway] + path) as response:
            return await response.json()

    def logs(self) -> str:
        """The last lines of every process, for a test that failed."""
        parts = []
        for process in self.processes:
            if process.log.exists():
                lines = [line[:400] for line in process.log.read_text(errors="replace").splitlines()[-25:]]
                parts.append(f"--- {process.name}\n" + "\n".join(lines))
        return "\n".join(parts)

    def _process(self, name: str, arguments: list[str]) -> Process:
        return Process(name, arguments, self._folder, {"BEAMCAST_REDIS_URL": self.redis.url})

    async def _ready(self, workers: int) -> None:
        while True:
            try:
                alive = [await self.get("/api/workers", gateway=n) for n in range(len(self.urls))]
                streams = [await self.get("/api/streams", gateway=n) for n in range(len(self.urls))]
            except aiohttp.ClientError:
                alive, streams = [], []
            if (
                alive
                and all(len(answer["workers"]) == workers for answer in alive)
                and all(any(stream["live"] for stream in answer["streams"]) for answer in streams)
            ):
                return
            ended = [p.name for p in self.processes if p.process and p.process.returncode is not None]
            assert not ended, f"{', '.join(ended)} ended at start"
            await asyncio.sleep(0.1)

    async def _stop(self) -> None:
        await asyncio.gather(*(process.stop() for process in self.processes))
        await self.http.close()
        await asyncio.to_thread(self.redis.stop)
