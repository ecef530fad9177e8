"""Run benchmarks: all of them, or those named. Results go to benchmarks/results/ as JSON.

python -m benchmarks
python -m benchmarks sending
python -m benchmarks browser     takes nine minutes, and so is not among "all"
python -m benchmarks report      writes the results there are into docs/performance.md and docs/adaptation.md
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import time
from pathlib import Path

from benchmarks import report

PACKAGE = Path(__file__).parent
RESULTS = PACKAGE / "results"
NAMES = (
    "adaptation",
    "audience_ladder",
    "inbound",
    "isolation",
    "joining",
    "joins",
    "ladder",
    "link",
    "load",
    "scale",
    "sending",
    "start",
    "viewers",
    "worker",
)
"""Modules of this package that have `run() -> dict`."""

LONG = ("browser",)
"""More of them, which run only when they are named."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Benchmarks, side by side, on loopback.")
    known = (*NAMES, *LONG, "report")
    usual = (*NAMES, "report")
    help_text = f"any of {', '.join(known)}; by default all but {', '.join(LONG)}"
    parser.add_argument("name", nargs="*", metavar="NAME", help=help_text)
    chosen = parser.parse_args().name or usual
    unknown = set(chosen) - set(known)
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    RESULTS.mkdir(exist_ok=True)
    for name in chosen:
        print(f"== {name}", flush=True)
        if name == "report":
            print(f"   docs: {', '.join(report.write(RESULTS))}\n")
        else:
            measure(name)


def measure(name: str) -> None:
    """Run one benchmark and write its result."""
    began = time.monotonic()
    figures = importlib.import_module(f"benchmarks.{name}").run()
    system = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    machine = {"python": platform.python_version(), "system": system, "cores": os.cpu_count()}
    result = {"benchmark": name, "machine": machine, "figures": figures}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"   {path.relative_to(PACKAGE.parent)}, after {time.monotonic() - began:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
