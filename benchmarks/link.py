"""What the frame link costs: three rungs at 30 fps from one process to four, over loopback.

    python -m benchmarks.link [--seconds 10] [--receivers 4]

Prints one JSON object: CPU as a share of one core, for the sender and for each receiver (process time, measured while
frames flow), and how late frames arrive, in milliseconds from publish() to on_frame.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time
from typing import Any

from broadcaster.link import LinkClient, LinkServer, RungDemand
from broadcaster.stream import EncodedFrame, Rung, StreamDescription

RUNGS = (
    Rung("720p", 1280, 720, 30.0, 2_500_000, 2),
    Rung("360p", 640, 360, 30.0, 800_000, 3),
    Rung("180p", 320, 180, 30.0, 200_000, 3),
)
DESCRIPTION = StreamDescription("bench", 1, RUNGS)
FPS = 30
CLOCK = 1_000_000
"""Frames carry their time of departure as index, in microseconds of the monotonic clock that all processes share."""


async def receive(address: str) -> dict[str, Any]:
    """Take all rungs until the sender ends; the figures of this process."""
    delays: list[float] = []
    started = 0.0

    def on_frame(frame: EncodedFrame) -> None:
        nonlocal started
        started = started or time.process_time()
        delays.append(time.monotonic() - frame.index / CLOCK)

    async def locate() -> list[str]:
        return [address]

    down = asyncio.Event()
    client = LinkClient("bench", locate, on_description=lambda _: None, on_frame=on_frame, on_down=down.set)
    client.demand({rung: RungDemand(1) for rung in range(len(RUNGS))})
    client.start()
    await client.ready(10)
    await down.wait()
    cpu = time.process_time() - started
    await client.close()
    return {"cpu": cpu, "frames": len(delays), "delays": delays}


async def send(server: LinkServer, seconds: float) -> float:
    """Publish every rung at its bitrate, a keyframe each second; the CPU seconds that this took."""
    sizes = random.Random(1)
    mean = [rung.bitrate / 8 / FPS for rung in RUNGS]
    payloads = [os.urandom(int(size * 6)) for size in mean]
    before, start = time.process_time(), time.monotonic()
    for tick in range(int(seconds * FPS)):
        keyframe = tick % FPS == 0
        for rung, size in enumerate(mean):
            length = int(size * (4 if keyframe else sizes.uniform(0.6, 1.2)))
            index = int(time.monotonic() * CLOCK)
            server.publish(EncodedFrame(rung, index, tick * 3000, keyframe, 0, False, payloads[rung][:length]))
        await asyncio.sleep(max(0.0, start + (tick + 1) / FPS - time.monotonic()))
    return time.process_time() - before


async def measure(seconds: float, receivers: int) -> dict[str, Any]:
    """Run the sender here and the receivers in processes of their own; the figures of all of them."""
    ready = asyncio.Event()

    def on_demand(demands: dict[int, RungDemand]) -> None:
        if all(demand.viewers == receivers for demand in demands.values()):
            ready.set()

    server = LinkServer(DESCRIPTION, on_keyframe=lambda rung, patient: None, on_demand=on_demand)
    [address] = await server.start("127.0.0.1", 0)
    command = [sys.executable, "-m", "benchmarks.link", "--receive", address]
    pipe = asyncio.subprocess.PIPE
    children = [await asyncio.create_subprocess_exec(*command, stdout=pipe, limit=2**26) for _ in range(receivers)]
    async with asyncio.timeout(30):
        await ready.wait()
    cpu = await send(server, seconds)
    counts = server.statistics()
    await server.close()
    heard = [json.loads((await child.communicate())[0]) for child in children]
    delays = sorted(delay for one in heard for delay in one["delays"])
    return {
        "seconds": seconds,
        "rungs": len(RUNGS),
        "fps": FPS,
        "receivers": receivers,
        "bitrate": round(counts.bytes * 8 / seconds / receivers),
        "sender_cpu_percent": round(100 * cpu / seconds, 2),
        "receiver_cpu_percent": [round(100 * one["cpu"] / seconds, 2) for one in heard],
        "frames_published": counts.published,
        "frames_received": [one["frames"] for one in heard],
        "frames_dropped": counts.dropped,
        "delay_ms_median": round(1000 * statistics.median(delays), 3),
        "delay_ms_p99": round(1000 * delays[int(0.99 * len(delays))], 3),
    }


def run() -> dict[str, Any]:
    """Ten seconds to four receivers."""
    figures = asyncio.run(measure(10.0, 4))
    receivers = ", ".join(f"{share:g}" for share in figures["receiver_cpu_percent"])
    print(f"   sender {figures['sender_cpu_percent']:g} % of a core, receivers {receivers} %;", end=" ")
    print(f"delay {figures['delay_ms_median']:g} ms, p99 {figures['delay_ms_p99']:g} ms")
    return figures


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.link", description="What the frame link costs.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--receivers", type=int, default=4)
    parser.add_argument("--receive", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    figures = receive(options.receive) if options.receive else measure(options.seconds, options.receivers)
    print(json.dumps(asyncio.run(figures), indent=None if options.receive else 2))


if __name__ == "__main__":
    main()
