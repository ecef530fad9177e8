"""What a test waits for, where nothing says when it has come; and how long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds."""


async def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    async with asyncio.timeout(patience):
        while not condition():
            await asyncio.sleep(0.005)


async def eventually(ask: Callable[[], Awaitable[T | None]], patience: float = 2 * PATIENCE) -> T:
    """What `ask` answers, as soon as that is something true."""
    async with asyncio.timeout(patience):
        while not (found := await ask()):
            await asyncio.sleep(0.02)
        return found
