"""Options: each one is a command line flag and an environment variable, read by one mechanism in every process.

A flag wins over its variable, the variable wins over the default. `--udp-ports` is `BEAMCAST_UDP_PORTS`.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from broadcaster.errors import BeamcastError, ConfigurationError
from broadcaster.stream import stream_name

PREFIX = "BEAMCAST_"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and whose options read the environment too."""

    def error(self, message: str) -> NoReturn:
        hint = "" if message.startswith("argument ") else f"; `{self.prog} --help` lists what there is"
        raise ConfigurationError(message + hint)

    def option(
        self,
        flag: str,
        parse: Callable[[str], Any] = str,
        *,
        default: Any = None,
        help: str,  # noqa: A002
        metavar: str | None = None,
        many: bool = False,
    ) -> None:
        """Declare `flag` ("--udp-ports"), parsed by `parse` from the command line or from its variable.

        `many` makes a list of it: the flag may be given again, the variable separates values by commas.
        """
        name = PREFIX + flag.lstrip("-").replace("-", "_").upper()
        checked = _checked(parse)
        shown = ", ".join(map(str, default)) if isinstance(default, list) else default
        shown = "" if shown in (None, "") or isinstance(default, range) else f" (default: {shown})"
        text = os.environ.get(name)
        if text:
            values = [_from_environment(parse, part.strip(), name) for part in (text.split(",") if many else [text])]
            default = values if many else values[0]
        extra: dict[str, Any] = {"action": "append"} if many else {}
        self.add_argument(
            flag,
            type=checked,
            default=None if many else default,
            metavar=metavar or flag.lstrip("-").upper(),
            help=f"{help}{shown} [{name}]".replace("%", "%%"),
            **extra,
        )
        if many:
            self._lists[flag.lstrip("-").replace("-", "_")] = default or []

    def source(self) -> None:
        """Declare what is put on the air: SOURCE, which is no flag, and its `--stream`."""
        self.add_argument(
            "source",
            nargs="?",
            default=os.environ.get(f"{PREFIX}SOURCE") or "pattern",
            metavar="SOURCE",
            help=f"a file, a URL, or 'pattern', the test pattern (default: pattern) [{PREFIX}SOURCE]",
        )
        self.option("--stream", stream_name, default="main", metavar="NAME", help="the name of the stream")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._lists: dict[str, list[Any]] = {}
        super().__init__(*args, **kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, rest = super().parse_known_args(args, namespace)
        for name, default in self._lists.items():
            if getattr(parsed, name, None) is None:
                setattr(parsed, name, list(default))
        return parsed, rest


def _checked(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def check(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            # A ConfigurationError is a ValueError, and of those argparse drops the message; of this class it shows it.
            raise argparse.ArgumentTypeError(str(error)) from None

    return check


def _from_environment(parse: Callable[[str], Any], text: str, name: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigurationError(f"{name}={text}: {error}") from None


def port(text: str) -> int:
    """A port number; 0 lets the system choose."""
    if not text.isdecimal() or int(text) > 65535:
        raise ConfigurationError(f"{text!r} is not a port: use a number from 0 to 65535")
    return int(text)


def port_range(text: str) -> range:
    """ "40000-40099", "40000" or "0" (the system chooses)."""
    first, dash, last = text.partition("-")
    low, high = port(first), port(last if dash else first)
    if high < low or (low == 0 and high != 0):
        raise ConfigurationError(f"{text!r} is not a range of ports: use FIRST-LAST, for example 40000-40099")
    return range(low, high + 1)


def positive(text: str) -> int:
    """A whole number above zero."""
    if not text.isdecimal() or int(text) == 0:
        raise ConfigurationError(f"{text!r} is not a whole number above zero")
    return int(text)


def redis_url(text: str) -> str:
    """A URL that redis-py understands."""
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigurationError(f"{text!r} is not a Redis URL: it starts with redis://, rediss:// or unix://")
    return text


def token(text: str) -> str:
    """What can stand behind "Bearer" (RFC 6750): visible ASCII."""
    if not text or not all("!" <= character <= "~" for character in text):
        raise ConfigurationError("a token is made of visible ASCII characters, without spaces")
    return text


def own_name(kind: str) -> str:
    """A name that no other process has: containers on one host share its name, and number their processes alike."""
    return f"{kind}-{socket.gethostname()}-{secrets.token_hex(3)}"


def main_with_errors(body: Callable[[], int | None]) -> int:
    """Run `body`; an error of ours is one line on stderr and exit code 2 (settings) or 1 (the rest)."""
    try:
        return body() or 0
    except ConfigurationError as error:
        print(f"beamcast: {error.detail}", file=sys.stderr)
        return 2
    except BeamcastError as error:
        print(f"beamcast: {error.detail}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
