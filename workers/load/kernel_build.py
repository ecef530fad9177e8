"""Builds the extension module `workers.load._kernel` out of the C files beside this one. Run by setup.py."""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

_HERE = Path("workers/load")
_OCTETS = Path("workers/forward")
_PARTS = ("inbox", "arrivals")

builder = FFI()
for _part in _PARTS:
    builder.cdef((_HERE / f"{_part}.h").read_text())
builder.set_source(
    "workers.load._kernel",
    "\n".join(f'#include "{part}.h"' for part in _PARTS),
    sources=[str(_HERE / f"{part}.c") for part in _PARTS],
    include_dirs=[str(_HERE), str(_OCTETS)],
    depends=[*(str(_HERE / f"{part}.h") for part in _PARTS), str(_OCTETS / "octets.h")],
    extra_compile_args=["-O3"],
    py_limited_api=True,
)
