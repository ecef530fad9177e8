"""Harnesses in C around the kernel's files, built with the sanitizers and run; silent when nothing was found."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
KERNEL = TESTS.parent / "workers" / "forward"
LOAD = TESTS.parent / "workers" / "load"
ROUNDS = int(os.environ.get("SANITIZER_ROUNDS", "600"))
COMPILER = os.environ.get("CC", "cc")
FLAGS = (
    "-std=gnu11",
    "-g",
    "-O1",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fno-sanitize-recover=all",
    f"-I{KERNEL}",
    f"-I{LOAD}",
)


def compiling(compiler: str, options: Sequence[str], target: Path, harness: str, *parts: str) -> list[Any]:
    """The command that makes `target` of a harness and of those `parts` of the kernel that it does not include."""
    sources = (TESTS / harness, *(KERNEL / part for part in parts))
    return [compiler, *FLAGS, *options, *sources, "-lm", "-o", target]


def assert_nothing_found(folder: Path, harness: str, *parts: str, rounds: int = ROUNDS) -> None:
    """Build in `folder`, run that many rounds, and fail on whatever a sanitizer says."""
    target = folder / "harness"
    sanitizers = ("-fsanitize=address,undefined,float-cast-overflow",)
    subprocess.run(compiling(COMPILER, sanitizers, target, harness, *parts), check=True)
    done = subprocess.run([target, str(rounds), "1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
