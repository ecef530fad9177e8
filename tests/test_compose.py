"""compose.yaml is what Compose accepts, and what we promise of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

COMPOSE = Path(__file__).parent.parent / "compose.yaml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    document = YAML(typ="safe").load(COMPOSE)
    services: dict[str, Any] = document["services"]
    return services


def test_the_file_follows_the_compose_schema() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    result = subprocess.run(check, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_part_is_there(services: dict[str, Any]) -> None:
    assert set(services) == {"redis", "gateway", "broadcaster", "worker"}


@pytest.mark.parametrize("name", ["redis", "gateway", "broadcaster", "worker"])
def test_every_service_is_confined_and_watched(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["user"].split(":")[0] not in {"0", "root"}
    assert service["cap_drop"] == ["ALL"]
    assert service["healthcheck"]["test"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}


def test_what_decides_who_may_watch_reaches_the_gateway(services: dict[str, Any]) -> None:
    assert services["gateway"]["environment"]["BEAMCAST_TOKEN"] == "${BEAMCAST_TOKEN:-}"


def test_every_setting_that_is_passed_on_exists(services: dict[str, Any]) -> None:
    for command, service in (("gateway", "gateway"), ("broadcast", "broadcaster"), ("worker", "worker")):
        run = [sys.executable, "-m", "broadcaster", command, "--help"]
        text = subprocess.run(run, capture_output=True, text=True, check=True).stdout
        for name in set(services[service]["environment"]) - {"BEAMCAST_ID_FILE"}:
            assert f"[{name}]" in text, f"{command} knows no {name}"


def test_workers_can_be_scaled_on_the_hosts_network(services: dict[str, Any]) -> None:
    worker = services["worker"]
    assert worker["network_mode"] == "host"
    assert "ports" not in worker
    assert "container_name" not in worker
    assert worker["environment"]["BEAMCAST_UDP_PORTS"] == "${BEAMCAST_UDP_PORTS:-40000-40099}"
