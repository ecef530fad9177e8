"""Builds the extension module `workers.forward._kernel` out of kernel.c. Run by setup.py."""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

_HERE = Path("workers/forward")

builder = FFI()
builder.cdef((_HERE / "kernel.h").read_text())
builder.set_source(
    "workers.forward._kernel",
    '#include "kernel.c"',
    include_dirs=[str(_HERE)],
    depends=[str(_HERE / name) for name in ("kernel.c", "kernel.h")],
    extra_compile_args=["-O3"],
    py_limited_api=True,
)
