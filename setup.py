"""What pyproject.toml cannot say: the C kernel is built where that can be done, and left out where not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext


class optional_build_ext(build_ext):  # noqa: N801  # commands are named so
    """No compiler, no headers, not Linux: install without the kernel."""

    def run(self) -> None:
        self._attempt(super().run)

    def build_extension(self, ext: Any) -> None:
        self._attempt(super().build_extension, ext)

    def copy_extensions_to_source(self) -> None:
        self._attempt(super().copy_extensions_to_source)

    def _attempt(self, step: Callable[..., None], *arguments: Any) -> None:
        try:
            step(*arguments)
        except Exception as error:
            print(
                f"beamcast: the C kernel is left out ({type(error).__name__}: {error}). Everything works without it, "
                "with fewer viewers per worker; for more install a C compiler and Python's headers, and install again.",
                file=sys.stderr,
            )


setup(
    cffi_modules=[f"workers/{room}/kernel_build.py:builder" for room in ("forward", "load")]
    if sys.platform == "linux"
    else [],
    cmdclass={"build_ext": optional_build_ext},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
