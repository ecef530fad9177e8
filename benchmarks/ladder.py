"""What a broadcaster computes: the test pattern at 720p30, and its ladder on top.

CPU is process time as a share of one core; latency is from capture to the encoded frame, in milliseconds.
"""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

from broadcaster.ladder import Ladder, derive_rungs
from broadcaster.source import open_source
from broadcaster.source.picture import WALL_CLOCK
from broadcaster.stream import RTP_CLOCK, EncodedFrame, timestamp_at

SECONDS = 5.0
SETTLE = 1.0


def run() -> dict[str, Any]:
    source = open_source("pattern:1280x720@30", name="bench")
    rungs = derive_rungs(source.width, source.height, source.fps)
    latencies: list[list[float]] = [[] for _ in rungs]

    def on_frame(frame: EncodedFrame) -> None:
        age = (timestamp_at(WALL_CLOCK.now()) - frame.timestamp) & 0xFFFFFFFF
        latencies[frame.rung].append(age / RTP_CLOCK * 1000)

    ladder = Ladder(rungs, on_frame)
    unsubscribe = source.subscribe(ladder.push)
    pattern = _cpu()
    for index in range(len(rungs)):
        ladder.set_demand(index, active=True)
    everything = _cpu()
    figures = {
        "pattern_cpu": pattern,
        "pattern_and_ladder_cpu": everything,
        "rungs": [
            {
                "name": rung.name,
                "encode_ms": round(counters.encode_seconds / max(1, counters.encoded) * 1000, 2),
                "dropped": counters.dropped,
                "bitrate": counters.bitrate,
                "latency_ms_median": round(statistics.median(latency), 1),
                "latency_ms_p99": round(statistics.quantiles(latency, n=100)[-1], 1),
            }
            for rung, counters, latency in zip(rungs, ladder.statistics(), latencies, strict=True)
        ],
    }
    unsubscribe()
    ladder.close()
    source.close()
    print(f"   pattern {pattern:.1%} of a core, with {len(rungs)} rungs {everything:.1%}")
    return figures


def _cpu() -> float:
    pause = threading.Event()
    pause.wait(SETTLE)
    cpu, wall = time.process_time(), time.monotonic()
    pause.wait(SECONDS)
    return (time.process_time() - cpu) / (time.monotonic() - wall)


if __name__ == "__main__":
    print(run())
