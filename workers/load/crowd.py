"""Crowd: all viewers of a run; joins them, reads for them, answers for them, and keeps what was measured."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from broadcaster.errors import LoadError
from workers.forward.rtcp import ReportBlock
from workers.load import feedback
from workers.load.arrivals import Arrivals
from workers.load.client import Client, Credentials, Identity
from workers.load.counters import Counters, Disorder, Integers, Packets
from workers.load.inbox import EVER, Batch, Inbox, overflowed
from workers.load.session import Answer, Whep, offer

_RTP_HEADER = 12


@dataclass(frozen=True)
class CrowdSettings:
    """`ramp` is joins a second; `loss` is the share of RTP packets that are thrown away before they count."""

    viewers: int = 10
    ramp: float = 50.0
    loss: float = 0.0
    nack: bool = False
    joined_packets: bool = True
    """Let the kernel leave packets together that were sent as one (UDP_GRO)."""
    tick: float = 0.1
    """Seconds between looks at the sockets; the kernel notes when packets arrive, so nothing is measured late."""
    prompt_tick: float = 0.02
    """The same with NACK, which is worth something only when it is early."""
    check_interval: float = 2.5
    report_interval: float = 1.0
    """As Chromium, each with up to 10 % more or less."""
    feedback_interval: float = 0.06
    """Seconds between transport-wide feedback, but a tick at least; Chromium's are 60 to 75 ms apart at 1 Mbit/s."""
    verified_first: int = 10
    """Media packets of each viewer that are decrypted."""
    verified_viewers: int = 100
    """Of every so many viewers one has all packets decrypted."""


@dataclass
class Joined:
    """Times of one viewer's way, monotonic seconds; NaN is not yet."""

    posted: float
    answered: float = float("nan")
    connected: float = float("nan")
    problem: str | None = None


@dataclass
class Tally:
    """What is counted over all viewers."""

    datagrams: int = 0
    """RTP that arrived, before any was thrown away."""
    dropped: int = 0
    """RTP that was thrown away here, to look like a lossy network."""
    retransmissions: int = 0
    verified: int = 0
    refusal: str | None = None
    """What the server answered when it took no more viewers."""


class Crowd:
    """Used once: `join()` while `attend()` runs beside it, which goes on as long as wanted; then `leave()`."""

    def __init__(self, whep: Whep, settings: CrowdSettings, *, seed: int | None = None) -> None:
        self.settings = settings
        self.counters = Counters(settings.viewers)
        self.tally = Tally()
        self.clients: dict[int, Client] = {}
        """The viewers that got connected, by their index."""
        self.joined: dict[int, Joined] = {}
        """Everyone who tried."""
        self._whep = whep
        self._identity = Identity()
        self._inbox = Inbox(settings.viewers, joined=settings.joined_packets)
        self._sessions: list[str] = []
        self._wanted: dict[int, feedback.Wanted] = {}
        self._arrivals = Arrivals(settings.viewers)
        self._feedback_at = 0.0
        self._random = random.Random(seed)
        self._chance = np.random.default_rng(seed)
        size = settings.viewers
        self._media = np.full(size, -1, np.int64)
        self._rtx = np.full(size, -1, np.int64)
        self._check_due = np.full(size, np.inf)
        self._report_due = np.full(size, np.inf)
        self.stopped = float("nan")
        """When the measurement ended; monotonic seconds, as all times here."""
        self.deserted = asyncio.Event()
        """Whoever was connected has lost the connection."""
        self.overflowed = 0
        """Datagrams that this machine had no room for, because it read too late."""

    async def join(self) -> None:
        """Join all viewers at the pace of the ramp, until all did or the server refused one."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as joining:
            for viewer in range(self.settings.viewers):
                await asyncio.sleep(started + viewer / self.settings.ramp - time.monotonic())
                if self.tally.refusal is not None:
                    return
                joining.create_task(self._join(viewer))

    async def attend(self, look: Callable[[], None]) -> None:
        """Read and answer for all viewers until cancelled; `look()` is called after each round."""
        tick = self.settings.prompt_tick if self.settings.nack else self.settings.tick
        while True:
            self._read()
            self._speak(time.monotonic())
            look()
            await asyncio.sleep(tick)

    async def leave(self) -> None:
        """Take what still waits, then end all sessions."""
        self._read()
        self.stopped = time.monotonic()
        self.counters.end(np.array(list(self.clients), np.int64), self.stopped)
        self.overflowed = sum(overflowed(client.socket) for client in self.clients.values())
        gate = asyncio.Semaphore(16)

        async def end(session: str) -> None:
            async with gate:
                await self._whep.leave(session)

        await asyncio.gather(*(end(session) for session in self._sessions))
        for client in self.clients.values():
            client.close()

    @property
    def playing(self) -> int:
        """Viewers to which a whole frame came."""
        return int(np.isfinite(self.counters.first_frame).sum())

    @property
    def repaired(self) -> int:
        return sum(wanted.repaired for wanted in self._wanted.values())

    async def _join(self, viewer: int) -> None:
        joined = self.joined[viewer] = Joined(posted=time.monotonic())
        credentials = Credentials.new()
        try:
            session, answer = await self._whep.join(
                offer(credentials.ufrag, credentials.password, self._identity.fingerprint)
            )
        except LoadError as error:
            joined.problem = error.detail
            self.tally.refusal = self.tally.refusal or error.detail
            return
        joined.answered = time.monotonic()
        if session:
            self._sessions.append(session)
        try:
            client = self._client(answer, credentials)
        except OSError as error:
            joined.problem = f"no UDP socket: {error.strerror}"
            return
        try:
            await client.connect()
        except LoadError as error:
            joined.problem = error.detail
            client.socket.close()
            return
        except asyncio.CancelledError:
            client.socket.close()
            raise
        joined.connected = time.monotonic()
        self._admit(viewer, client, joined.connected)

    def _client(self, answer: Answer, credentials: Credentials) -> Client:
        """Raises OSError where there is no socket to have."""
        family = socket.AF_INET6 if ":" in answer.address[0] else socket.AF_INET
        udp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._inbox.prepare(udp)
            return Client(self._identity, answer, credentials.ufrag, udp)
        except OSError:
            udp.close()
            raise

    def _admit(self, viewer: int, client: Client, now: float) -> None:
        self.clients[viewer] = client
        self._media[viewer] = client.answer.ssrc
        if client.answer.rtx_ssrc is not None:
            self._rtx[viewer] = client.answer.rtx_ssrc
        if client.answer.transport is not None:
            self._arrivals.add(viewer, client)
        if self.settings.nack:
            self._wanted[viewer] = feedback.Wanted()
        self._check_due[viewer] = now + self.settings.check_interval * self._random.random()
        self._report_due[viewer] = now + self.settings.report_interval * self._random.random()
        self._inbox.add(
            viewer,
            client.socket,
            transport=client.answer.transport,
            media=client.answer.ssrc,
            kept=self.settings.verified_first if viewer % self.settings.verified_viewers else EVER,
            resent=client.answer.rtx_ssrc if self.settings.nack else None,
        )

    # --- what comes in -------------------------------------------------------------------------------------------

    def _read(self) -> None:
        for batch in self._inbox.batches():
            self._take(batch)

    def _take(self, batch: Batch) -> None:
        viewer, rtp = batch.viewer, batch.rtp
        for row in np.flatnonzero(~rtp).tolist():
            self._take_other(int(viewer[row]), batch.data(row), float(batch.arrival[row]))
        self.tally.datagrams += int(rtp.sum())
        if self.settings.loss:
            kept = rtp & (self._chance.random(len(viewer)) >= self.settings.loss)
            self.tally.dropped += int((rtp & ~kept).sum())
            rtp = kept
        media = rtp & (batch.ssrc == self._media[viewer])
        resent = rtp & (batch.ssrc == self._rtx[viewer])
        self._verify(batch, np.flatnonzero(media & (batch.place >= 0)))
        self._take_resent(batch, np.flatnonzero(resent))
        numbered = (media | resent) & (batch.number >= 0)
        self._arrivals.note(viewer[numbered], batch.number[numbered], batch.arrival[numbered])
        disorders = self.counters.take(
            Packets(
                viewer=viewer[media],
                sequence=batch.sequence[media],
                timestamp=batch.timestamp[media],
                marker=batch.marker[media],
                size=batch.size[media],
                arrival=batch.arrival[media],
            )
        )
        for disorder in disorders:
            self._want(disorder)

    def _take_other(self, viewer: int, data: bytes, arrival: float) -> None:
        client = self.clients[viewer]
        packet = client.receive(data, arrival)
        if packet is not None:
            sent_at = feedback.sender_report_time(packet)
            if sent_at is not None:
                client.last_sender_report = sent_at, arrival
        self._forget_ended(viewer)

    def _forget_ended(self, viewer: int) -> None:
        if self.clients[viewer].ended is not None:
            self._inbox.remove(viewer)
            self._arrivals.remove(viewer)
            self._check_due[viewer] = self._report_due[viewer] = np.inf
            if all(client.ended is not None for client in self.clients.values()):
                self.deserted.set()

    def _verify(self, batch: Batch, rows: Integers) -> None:
        for row in rows.tolist():
            self.tally.verified += 1
            self.clients[int(batch.viewer[row])].unprotect(batch.data(row))

    def _take_resent(self, batch: Batch, rows: Integers) -> None:
        self.tally.retransmissions += len(rows)
        for row in rows.tolist():
            wanted = self._wanted.get(int(batch.viewer[row]))
            packet = self.clients[int(batch.viewer[row])].unprotect(batch.data(row)) if wanted is not None else None
            if wanted is not None and packet is not None:
                self.tally.verified += 1
                start = _RTP_HEADER + (4 + 4 * int.from_bytes(packet[14:16], "big") if packet[0] & 0x10 else 0)
                wanted.resent(int.from_bytes(packet[start : start + 2], "big"))

    def _want(self, disorder: Disorder) -> None:
        wanted = self._wanted.get(disorder.viewer)
        if wanted is not None:
            wanted.note(disorder.before, disorder.highest, disorder.arrived)

    # --- what goes out -------------------------------------------------------------------------------------------

    def _speak(self, now: float) -> None:
        """Send everything in one go: each datagram that finds the server asleep costs a wakeup."""
        datagrams: list[tuple[Client, bytes]] = []
        for viewer in np.flatnonzero(self._check_due <= now).tolist():
            self._check_due[viewer] = now + self.settings.check_interval * self._random.uniform(0.9, 1.1)
            datagrams.append((self.clients[viewer], self.clients[viewer].check(now)))
            self._forget_ended(viewer)
        reports: dict[int, bytes] = {}
        for viewer in np.flatnonzero(self._report_due <= now).tolist():
            self._report_due[viewer] = now + self.settings.report_interval * self._random.uniform(0.9, 1.1)
            reports[viewer] = self._report(viewer, self.clients[viewer], now)
        for viewer, wanted in self._wanted.items():
            numbers = wanted.due(now)
            if numbers and self.clients[viewer].ended is None:
                reports[viewer] = reports.get(viewer, b"") + feedback.nack(int(self._media[viewer]), numbers)
        packets = list(reports.items())
        if now - self._feedback_at >= self.settings.feedback_interval:
            self._feedback_at = now
            packets = self._arrivals.tell(reports)
        datagrams += ((self.clients[viewer], self.clients[viewer].protect_rtcp(packet)) for viewer, packet in packets)
        for client, datagram in datagrams:
            client.send(datagram)

    def _report(self, viewer: int, client: Client, now: float) -> bytes:
        counters, ssrc = self.counters, client.answer.ssrc
        block = None
        if counters.packets[viewer]:
            fraction_lost, lost = counters.report(viewer)
            lsr, since = client.last_sender_report or (0, now)
            block = ReportBlock(
                ssrc=ssrc,
                fraction_lost=fraction_lost,
                cumulative_lost=lost,
                highest_sequence=int(counters.highest[viewer]),
                jitter=int(counters.jitter[viewer]),
                lsr=lsr,
                dlsr=int((now - since) * 65_536),
            )
        packet = feedback.receiver_report(block)
        if client.answer.transport is not None:
            return packet
        at, before = client.reported
        octets = int(counters.octets[viewer])
        client.reported = now, octets
        received = (octets - before) * 8 / (now - at)
        client.estimate = feedback.next_estimate(client.estimate or feedback.REMB_START, received)
        return packet + feedback.remb(int(client.estimate), ssrc)
