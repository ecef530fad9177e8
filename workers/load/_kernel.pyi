"""The compiled kernel; inbox.h and arrivals.h say what is in it."""

from typing import Any

ffi: Any
lib: Any
