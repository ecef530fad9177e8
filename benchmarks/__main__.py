"""Run benchmarks: all of them, or those named. Results go to benchmarks/results/ as JSON.

python -m benchmarks
python -m benchmarks sending
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import time
from pathlib import Path

PACKAGE = Path(__file__).parent
RESULTS = PACKAGE / "results"


def names() -> list[str]:
    """The benchmarks there are: the modules of this package that have `run() -> dict`."""
    return sorted(module.name for module in pkgutil.iter_modules([str(PACKAGE)]) if module.name != "__main__")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Benchmarks, side by side, on loopback.")
    parser.add_argument("name", nargs="*", metavar="NAME", help=f"any of {', '.join(names())}; all by default")
    chosen = parser.parse_args().name
    unknown = set(chosen) - set(names())
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    RESULTS.mkdir(exist_ok=True)
    for name in chosen or names():
        print(f"== {name}")
        figures = importlib.import_module(f"benchmarks.{name}").run()
        machine = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
        result = {"benchmark": name, "at": time.time(), "machine": machine, "figures": figures}
        path = RESULTS / f"{name}.json"
        path.write_text(json.dumps(result, indent=2) + "\n")
        print(f"   {path.relative_to(PACKAGE.parent)}\n")


if __name__ == "__main__":
    main()
