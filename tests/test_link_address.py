"""Addresses of the frame link, as they are announced and as they are read."""

from __future__ import annotations

import pytest

from broadcaster.errors import LinkError
from broadcaster.link.address import announced_addresses, split_address


def test_addresses() -> None:
    assert announced_addresses(("127.0.0.1", 5)) == ["127.0.0.1:5"]
    assert announced_addresses(("::1", 5)) == ["[::1]:5"]
    assert announced_addresses(("0.0.0.0", 5))[-1] == "127.0.0.1:5"
    assert announced_addresses(("::", 5))[-1] == "[::1]:5"
    assert "0.0.0.0:5" not in announced_addresses(("0.0.0.0", 5))
    assert split_address("[::1]:5") == ("::1", 5)
    assert split_address("host.example:65535") == ("host.example", 65535)
    for wrong in ("", "host", "host:", ":5", "host:0", "host:65536", "host:-1", "host:x"):
        with pytest.raises(LinkError):
            split_address(wrong)
