"""Adaptation: (time, measurements) -> decision. Pure: no clock, no I/O, no aiortc, so that any run can be replayed."""
