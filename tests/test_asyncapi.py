"""The AsyncAPI document is current, hangs together, and describes what is really sent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import jsonschema
import msgspec
import pytest

from broadcaster.bus.asyncapi import document, text
from broadcaster.bus.messages import EventType, Method

DOCUMENT: dict[str, Any] = document()
DOCS = Path(__file__).parent.parent / "docs"


def test_the_document_is_current() -> None:
    assert (DOCS / "asyncapi.json").read_text() == text(), (
        "run: python -m broadcaster.bus.asyncapi > docs/asyncapi.json"
    )


@pytest.mark.processes
def test_the_command_prints_the_document() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "broadcaster.bus.asyncapi"], capture_output=True, text=True, check=True
    )
    assert run.stdout == text()


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for part in value.values() for found in _references(part)]
    if isinstance(value, list):
        return [found for part in value for found in _references(part)]
    return []


def test_every_reference_leads_somewhere() -> None:
    references = _references(DOCUMENT)
    assert len(references) > 40
    for reference in references:
        found: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found


def test_every_type_and_method_is_described() -> None:
    told = {*DOCUMENT["channels"]["events"]["messages"], *DOCUMENT["channels"]["stats"]["messages"]}
    assert told == set(get_args(EventType))
    assert set(DOCUMENT["x-methods"]) == set(get_args(Method))


def _examples() -> list[dict[str, Any]]:
    lines = (DOCS / "events.md").read_text().split("\n")
    return [json.loads(line) for line in lines if line.startswith('{"type"')]


@pytest.mark.parametrize("example", _examples(), ids=lambda example: example["type"])
def test_the_examples_of_the_guide_fit_the_schemas(example: dict[str, Any]) -> None:
    schema = {**DOCUMENT["components"]["messages"][example["type"]]["payload"], "components": DOCUMENT["components"]}
    jsonschema.validate(example, schema)
    data = DOCUMENT["components"]["schemas"][_data_of(example["type"])]
    assert set(example["data"]) == set(data["properties"]), "examples show every key"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**example, "data": {}}, schema)


def _data_of(kind: str) -> str:
    payload = DOCUMENT["components"]["messages"][kind]["payload"]
    reference: str = payload["allOf"][1]["properties"]["data"]["$ref"]
    return reference.rpartition("/")[2]


def test_the_guide_has_an_example_of_every_type() -> None:
    assert {example["type"] for example in _examples()} == set(get_args(EventType))
    assert msgspec.json.decode((DOCS / "asyncapi.json").read_bytes()) == DOCUMENT
