"""A page of Chromium whose media goes through relays."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests.lossy_relay import LossyRelay, through


@asynccontextmanager
async def relayed(page: Any) -> AsyncIterator[list[LossyRelay]]:
    """The media of every session that this page makes from here on goes through a relay of its own; they are listed."""
    relays: list[LossyRelay] = []
    async with AsyncExitStack() as stack:

        async def post(route: Any) -> None:
            response = await route.fetch()
            sdp = await response.text()
            if route.request.method != "POST" or response.status != 201:
                await route.fulfill(response=response)
                return
            found = re.search(r"a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 (\d+)", sdp)
            assert found, sdp
            relay = await stack.enter_async_context(LossyRelay(target=("127.0.0.1", int(found[1])), seed=11))
            relays.append(relay)
            await route.fulfill(response=response, body=through(sdp, relay.port))

        await page.route("**/whep/**", post)
        yield relays
