from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.metrics import Histogram, escaped, family
from tests.fake_bus import Front

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]

_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')
_UNESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def parsed(text: str) -> Series:
    """A strict reader of the text format: HELP, TYPE and samples of a family stand together, and nothing twice."""
    assert text.endswith("\n")
    series: Series = {}
    name = kind = ""
    families: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in families
            families.add(name)
        elif line.startswith("# TYPE "):
            assert line.split(" ")[2] == name
            kind = line.split(" ")[3]
        else:
            match = _LINE.fullmatch(line)
            assert match, line
            suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            assert match[1] in {name + suffix for suffix in suffixes}
            labels = match[2] or ""
            assert sum(len(found[0]) for found in _LABEL.finditer(labels)) == len(labels), line
            pairs = frozenset(
                (found[1], re.sub(r"\\.", lambda escape: _UNESCAPED[escape[0]], found[2]))
                for found in _LABEL.finditer(labels)
            )
            assert (match[1], pairs) not in series
            series[match[1], pairs] = float(match[3])
    return series


@pytest_asyncio.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with Front(tmp_path).running() as front:
        yield front


async def scrape(front: Front) -> Series:
    response = await front.http.get("/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(await response.text())


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


async def test_the_registry_is_shown(front: Front) -> None:
    front.registry.add_worker("w-1", viewers=3, streams={"main": 2, "other": 1})
    front.registry.add_worker("w-2", state="draining", capacity=7)
    front.registry.add_stream("other", live=False)
    front.registry.age = 0.25
    series = await scrape(front)
    assert value(series, "beamcast_registry_fresh") == 1
    assert value(series, "beamcast_streams") == 2
    assert value(series, "beamcast_stream_live", stream="main") == 1
    assert value(series, "beamcast_stream_live", stream="other") == 0
    assert value(series, "beamcast_viewers", stream="main", worker="w-1") == 2
    assert value(series, "beamcast_viewers", stream="other", worker="w-1") == 1
    assert value(series, "beamcast_worker_capacity", worker="w-2") == 7
    assert value(series, "beamcast_worker_ready", worker="w-1") == 1
    assert value(series, "beamcast_worker_ready", worker="w-2") == 0
    assert value(series, "beamcast_worker_lease_age_seconds", worker="w-1") == pytest.approx(0.35)
    assert value(series, "beamcast_registry_age_seconds") == pytest.approx(0.25)


async def test_requests_are_counted_by_route_and_answers_timed(front: Front) -> None:
    for _ in range(3):
        assert (await front.post()).status == 201
    assert (await front.post("unknown")).status == 404
    assert (await front.http.get("/nowhere/at/all")).status == 404
    assert (await front.http.request("PROPFIND", "/whep/main")).status == 405
    series = await scrape(front)
    requests = "beamcast_http_requests_total"
    assert value(series, requests, route="/whep/{stream}", method="POST", status="201") == 3
    assert value(series, requests, route="/whep/{stream}", method="POST", status="404") == 1
    assert value(series, requests, route="unmatched", method="GET", status="404") == 1
    assert sum(count for (name, labels), count in series.items() if ("method", "other") in labels) == 1
    assert value(series, "beamcast_whep_answer_seconds_count") == 3
    assert value(series, "beamcast_whep_answer_seconds_bucket", le="+Inf") == 3
    assert 0 < value(series, "beamcast_whep_answer_seconds_sum") < 3


async def test_strange_names_stay_labels(front: Front) -> None:
    name = 'w"1\\\n}'
    front.registry.add_worker(name)
    assert value(await scrape(front), "beamcast_worker_capacity", worker=name) == 100


def test_escapes() -> None:
    assert escaped('a"b\\c\nd') == r"a\"b\\c\nd"
    assert family("x", "gauge", "one\ntwo\\", []) == "# HELP x one\\ntwo\\\\\n# TYPE x gauge\n"


def test_buckets_are_cumulative_and_bounds_belong_to_them() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.1, 0.5, 1.0, 2.0):
        histogram.observe(seconds)
    assert histogram.samples() == [
        ("_bucket", {"le": "0.1"}, 1),
        ("_bucket", {"le": "1"}, 3),
        ("_bucket", {"le": "+Inf"}, 4),
        ("_sum", {}, pytest.approx(3.6)),
        ("_count", {}, 4),
    ]
