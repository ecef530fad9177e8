"""The plots of the benchmarks: the same results make the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import plots, report

SENDING = {"native": 1.0, "twin": 3.0, "stock": 20.0, "floor": 0.6, "srtp": 0.3}
RESULTS: dict[str, list[dict[str, Any]]] = {
    "inbound": [{"datagram": "RR", "aiortc": 8.0, "python": 11.0, "native": 2.0}],
    "isolation": [
        {
            "bad_viewer": "deaf",
            "without_ms": 36.0,
            "with_ms": 37.0,
            "without_ms_rounds": [35.0, 37.0],
            "with_ms_rounds": [36.0, 38.0],
        }
    ],
    "scale": [{"workers": 2, "us_of_each": [3.0, 3.1]}],
    "sending": [
        {"sink": sink, "packets": packets, "viewers": viewers, **SENDING}
        for sink in ("single", "joined")
        for packets in (1, 4)
        for viewers in (1, 100)
    ],
    "worker": [
        {
            "viewers": viewers,
            "kbit": 1000,
            "us": 3.0,
            "floor_us": 1.0,
            "cpu_percent_of_100": 4.0,
            "python_percent_of_100": python,
        }
        for viewers, python in ((50, 1.0), (200, None))
    ],
}


def doubled(value: Any) -> Any:
    """The same result with every measured figure twice as large."""
    if isinstance(value, dict):
        return {name: doubled(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [doubled(inner) for inner in value]
    return 2 * value if isinstance(value, float) else value


@pytest.mark.parametrize("name", RESULTS)
def test_a_plot_changes_only_with_what_it_shows(name: str, tmp_path: Path) -> None:
    first = plots.draw(name, {"rows": RESULTS[name]}, tmp_path / "first")
    again = plots.draw(name, {"rows": RESULTS[name]}, tmp_path / "again")
    other = plots.draw(name, {"rows": [doubled(row) for row in RESULTS[name]]}, tmp_path / "other")
    assert first is not None and again is not None and other is not None
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    assert b"<svg" in first.read_bytes() and b"<dc:date>" not in first.read_bytes()


def test_a_benchmark_without_a_plot_has_none(tmp_path: Path) -> None:
    assert plots.draw("ladder", {}, tmp_path) is None


def test_the_report_shows_the_plot_above_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document, results = tmp_path / "performance.md", tmp_path / "results"
    document.write_text("before\n<!-- scale -->\nold\n<!-- end -->\nafter\n")
    results.mkdir()
    (results / "scale.json").write_text(
        '{"machine": {"cores": 2, "system": "Linux 6.1", "python": "3.11"},'
        ' "figures": {"rows": [{"workers": 1, "us_of_each": [3.0]}]}}'
    )
    monkeypatch.setattr(report, "DOCUMENTS", (document,))
    assert report.write(results) == ["scale"]
    text = document.read_text()
    assert "![scale](performance/scale.svg)" in text and "old" not in text and text.endswith("after\n")
    assert (tmp_path / "performance" / "scale.svg").exists()
