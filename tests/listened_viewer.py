"""A viewer made by hand whose reports an outlet takes, as in a worker."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from tests.handmade_viewer import Served, seen, serve, session
from tests.rtp_viewer import CLOCK, WITH_TRANSPORT
from workers.forward import Outlet, OutletSettings
from workers.forward.history import LostPacket
from workers.transport import Endpoint, SrtpKeys
from workers.transport.path import Path


class Listened(Served):
    """A viewer's peer whose reports an outlet takes, as in a worker."""

    outlet: Outlet

    def __init__(self, settings: OutletSettings) -> None:
        super().__init__()
        self.settings = settings
        self.asked: list[str] = []

    def connected(self, keys: SrtpKeys) -> None:
        assert self.peer.path is not None
        self.outlet = Outlet(WITH_TRANSPORT, keys, self.peer.path, CLOCK, settings=self.settings)
        self.outlet.listener = self
        self.peer.on_moved = self.moved
        self.peer.listen(self.outlet.open_inbox, self.hear)
        super().connected(keys)

    def received(self, data: bytes) -> None:
        self.outlet.receive_rtcp(data, self.now())
        super().received(data)

    def hear(self) -> None:
        self.outlet.hear(self.now())
        self.happened.set()

    def moved(self, path: Path) -> None:
        self.outlet.path = path

    def keyframe_needed(self, outlet: Outlet, patient: bool) -> None:
        self.asked.append("keyframe")

    def resend(self, outlet: Outlet, lost: list[LostPacket]) -> None:
        self.asked.append("packets")

    @staticmethod
    def now() -> float:
        return asyncio.get_running_loop().time()


class Connection:
    """One viewer, connected."""

    def __init__(self, endpoint: Endpoint, settings: OutletSettings | None = None, *, tcp: bool = False) -> None:
        self.endpoint = endpoint
        self.served, self.viewer = serve(endpoint, tcp=tcp, kind=partial(Listened, settings or OutletSettings()))

    async def __aenter__(self) -> Connection:
        await self.viewer.__aenter__()
        await self.viewer.connect(self.endpoint.fingerprint)
        await self.served.until(lambda: self.served.keys)
        keys = self.served.keys[0]
        self.session = session(keys.profile, keys.rx_key, outbound=True)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.viewer.__aexit__(*error)

    @property
    def outlet(self) -> Outlet:
        return self.served.outlet

    async def say(self, *packets: bytes, plain: bool = False) -> None:
        """Send packets, protected unless `plain`, and wait until the server has read and heard them."""
        before = self.endpoint.statistics.datagrams
        for packet in packets:
            self.viewer.send(packet if plain else self.session.protect_rtcp(packet))
        await seen(self.endpoint, before + len(packets))
        self.served.hear()
