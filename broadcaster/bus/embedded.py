"""EmbeddedRedis: a Redis of our own for one machine, when no other was named."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Literal

from broadcaster.errors import BusUnavailableError

log = logging.getLogger(__name__)

EmbeddedKind = Literal["redis-server", "valkey-server", "fakeredis"]
KINDS: tuple[EmbeddedKind, ...] = ("redis-server", "valkey-server", "fakeredis")

_PATIENCE = 10.0
"""Seconds that a child may take until it answers PING."""

_PAUSE = 0.5
"""Seconds before a child that ended is started again."""

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent dies."""


class EmbeddedRedis:
    """The first of `kinds` that runs here, as a child on a free loopback port, without persistence.

    It dies with its parent: by the kernel's doing on Linux; elsewhere only fakeredis notices a parent that was killed.
    `start()` belongs into the main thread, because Linux takes the death of the starting thread for the parent's.
    """

    def __init__(self, *, kinds: Sequence[EmbeddedKind] = KINDS) -> None:
        self._kinds = kinds
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        self.kind: EmbeddedKind | None = None
        self.url = ""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start it and wait until it answers; BusUnavailableError when none of `kinds` runs."""
        for kind in self._kinds:
            for _ in range(3):
                port = await self._launch(kind)
                if port is None:
                    break
                if await self._answers(port):
                    self.kind = kind
                    self._port = port
                    self.url = f"redis://127.0.0.1:{port}/0"
                    return
                await self.stop()
        raise BusUnavailableError(
            f"none of {', '.join(self._kinds)} could be started: install redis, or name a running one with --redis-url"
        )

    async def keep(self) -> None:
        """Start it again on its port whenever it ends; runs until it is cancelled. To be called after `start()`.

        What it held is gone. Nothing of ours lives there alone: leases and sessions are written anew by their owners.
        """
        assert self.kind is not None
        while True:
            if self._process is not None:
                code = await self._process.wait()
                log.warning("%s ended with code %d; starting it again", self.kind, code)
            await asyncio.sleep(_PAUSE)
            if await self._launch(self.kind, self._port) is not None:
                await self._answers(self._port)

    async def stop(self) -> None:
        """End the child. Harmless when it has ended already."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(2.0):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _launch(self, kind: EmbeddedKind, port: int = 0) -> int | None:
        """Start a child on `port`, 0 for any that is free; the port, or None when this kind does not start here."""
        if kind == "fakeredis":
            self._process = await _child(sys.executable, "-m", "broadcaster.bus.fakeserver", str(port))
            assert self._process.stdout is not None
            try:
                async with asyncio.timeout(_PATIENCE):
                    line = await self._process.stdout.readline()
            except TimeoutError:
                line = b""
            if not line.strip().isdigit():
                await self.stop()
                return None
            return int(line)
        program = shutil.which(kind)
        if program is None:
            return None
        port = port or _free_port()
        options = ("--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no")
        self._process = await _child(program, *options, quiet=True)
        return port

    async def _answers(self, port: int) -> bool:
        assert self._process is not None
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until and self._process.returncode is None:
            try:
                async with asyncio.timeout(1.0):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(b"*1\r\n$4\r\nPING\r\n")
                    reply = await reader.readline()
                    writer.close()
                    await writer.wait_closed()
            except OSError:
                reply = b""
            if reply.startswith(b"+PONG"):
                return True
            await asyncio.sleep(0.02)
        return False


async def _child(*command: str, quiet: bool = False) -> asyncio.subprocess.Process:
    # A group of its own: ^C at the terminal must not take Redis from under processes that still say goodbye to it.
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL if quiet else asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL if quiet else None,
        process_group=0,
        preexec_fn=_die_with_parent(),
    )


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
