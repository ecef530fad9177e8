"""The command `beamcast`: one verb for each process, and `up` for all of them on one machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version

from broadcaster.errors import ConfigurationError
from broadcaster.settings import main_with_errors

USAGE = """\
usage: beamcast COMMAND [OPTIONS]

  up [SOURCE]        everything on this machine: open the URL that it prints
  broadcast SOURCE   encode a source and put it on the air as a stream
  worker             host viewers
  gateway            WHEP, pages and API on one HTTP port
  events             print what happens, a JSON line an event
  status             who is on the air
  load URL           join as many viewers as wanted, and measure what they get

  beamcast COMMAND --help lists the options of a command; each setting is an environment variable too.
"""

_PROCESSES = {"worker": "workers", "gateway": "gateway", "load": "workers.load"}
_VERBS = {
    "up": "broadcaster.up",
    "broadcast": "broadcaster.broadcast",
    "events": "broadcaster.events",
    "status": "broadcaster.status",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments` (those of the process when None) and return the exit code."""
    return main_with_errors(lambda: _run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in {"--help", "-h", "help"}:
        print(USAGE, end="")
        return 0
    if command in {"--version", "-V", "version"}:
        print(f"beamcast {version('beamcast')}")
        return 0
    if command in _PROCESSES:
        # These processes live in packages that this one may not import; they take its place.
        os.execv(sys.executable, [sys.executable, "-m", _PROCESSES[command], *rest])
    if command in _VERBS:
        verb: Callable[[list[str]], int] = import_module(_VERBS[command]).main
        return verb(rest)
    raise ConfigurationError(f"there is no command {command!r}; `beamcast --help` lists them")
