"""How figures are summed up, and what is said of bars."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def spread(values: Sequence[float], digits: int) -> dict[str, float]:
    """Of two values or more."""
    return {
        "count": len(values),
        "median": round(statistics.median(values), digits),
        "p90": round(statistics.quantiles(values, n=10)[-1], digits),
        "max": round(max(values), digits),
    }


def verdict(held: bool) -> str:
    return "holds" if held else "MISSED"


def below(value: float, bar: float) -> str:
    """The bar, and whether the value is below it."""
    return f"bar {bar:g}: {verdict(value < bar)}"
