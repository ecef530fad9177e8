"""Results as Markdown, written by `python -m benchmarks report` between the marks of the documents, and plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import plots

DOCS = Path(__file__).parent.parent / "docs"
DOCUMENTS = (DOCS / "performance.md", DOCS / "adaptation.md")
END = "<!-- end -->"


def write(results: Path) -> list[str]:
    """Replace the tables and plots of every benchmark that has a result; their names."""
    return [name for document in DOCUMENTS for name in _write(results, document)]


def _write(results: Path, document: Path) -> list[str]:
    text = document.read_text(encoding="utf-8")
    written = []
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        mark = f"<!-- {path.stem} -->\n"
        before, found, rest = text.partition(mark)
        if found:
            shown = tables(result)
            plot = plots.draw(path.stem, result["figures"], document.parent / document.stem)
            if plot is not None:
                shown = f"![{path.stem}]({plot.parent.name}/{plot.name})\n\n{shown}"
            text = f"{before}{mark}\n{shown}\n{END}{rest.partition(END)[2]}"
            written.append(path.stem)
    document.write_text(text, encoding="utf-8")
    return written


def tables(result: dict[str, Any]) -> str:
    """A result's machine, its single figures, and a table for each list of rows."""
    machine, figures = result["machine"], result["figures"]
    parts = [f"{machine['cores']} cores, {machine['system']}, Python {machine['python']}"]
    single = {name: value for name, value in _flat(figures) if not _is_rows(value)}
    if single:
        parts.append(_table(["figure", "value"], [[_words(name), _shown(value)] for name, value in single.items()]))
    for name, rows in figures.items():
        if _is_rows(rows):
            columns = list(rows[0])
            body = [[_shown(row.get(column)) for column in columns] for row in rows]
            parts.append(f"{_words(name).capitalize()}:\n\n" + _table([_words(column) for column in columns], body))
    return "\n\n".join(parts) + "\n"


def _flat(figures: dict[str, Any]) -> list[tuple[str, Any]]:
    """The figures in order; of a spread (count, median, ...) and of other groups each member by itself."""
    flat: list[tuple[str, Any]] = []
    for name, value in figures.items():
        if isinstance(value, dict):
            flat += [(f"{name}: {member}", inner) for member, inner in value.items()]
        else:
            flat.append((name, value))
    return flat


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    if isinstance(value, list):
        return ", ".join(_shown(one) for one in value)
    return str(value)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
