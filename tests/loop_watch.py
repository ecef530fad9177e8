"""LoopWatch: whether an event loop was ever blocked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

BLOCKED = 0.3
"""Seconds for which a loop may not answer while the machine had time for another thread of this process."""

_TICK = 0.02


class LoopWatch(threading.Thread):
    """Asks the loop for a sign of life every tick, and counts the ticks that it let pass unanswered.

    A tick that was late itself does not count: then the machine was busy, and the loop is not to blame.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(daemon=True, name="loop-watch")
        self._loop = loop
        self._answered = threading.Event()
        self._stopping = threading.Event()
        self.worst = 0.0

    def run(self) -> None:
        waiting = 0.0
        self._ask()
        while not self._stopping.is_set():
            before = time.monotonic()
            self._stopping.wait(_TICK)
            on_time = time.monotonic() - before < 2 * _TICK
            if self._answered.is_set():
                waiting = 0.0
                self._ask()
            elif on_time:
                waiting += _TICK
                self.worst = max(self.worst, waiting)

    def _ask(self) -> None:
        self._answered.clear()
        try:
            self._loop.call_soon_threadsafe(self._answered.set)
        except RuntimeError:
            self._stopping.set()

    def stop(self) -> None:
        self._stopping.set()
        self.join()


@contextmanager
def never_blocked() -> Iterator[None]:
    """Assert that the running loop always goes on meanwhile."""
    watch = LoopWatch(asyncio.get_running_loop())
    watch.start()
    try:
        yield
    finally:
        watch.stop()
    assert watch.worst < BLOCKED, f"the event loop was blocked for {watch.worst:.2f} s"
