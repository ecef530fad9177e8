"""Adaptation judged on a simulated link: traces, baselines, score, report. `python -m benchmarks adaptation`."""

from benchmarks.adaptation.run import run

__all__ = ["run"]
