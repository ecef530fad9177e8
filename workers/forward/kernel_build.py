"""Builds the extension module `workers.forward._kernel` out of the C files beside this one. Run by setup.py."""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

_HERE = Path("workers/forward")
_PARTS = ("cipher", "feedback", "estimate", "kernel", "consent", "receive")

builder = FFI()
for _part in _PARTS:
    builder.cdef((_HERE / f"{_part}.h").read_text())
builder.set_source(
    "workers.forward._kernel",
    "\n".join(f'#include "{part}.h"' for part in _PARTS),
    sources=[str(_HERE / f"{part}.c") for part in _PARTS],
    include_dirs=[str(_HERE)],
    depends=[str(header) for header in sorted(_HERE.glob("*.h"))],
    extra_compile_args=["-O3", "-ffp-contract=off"],
    py_limited_api=True,
)
