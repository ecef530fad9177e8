"""The compiled kernel; kernel.h says what is in it."""

from typing import Any

ffi: Any
lib: Any
