"""Which addresses are announced, and in which order."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from aioice import Candidate as ReferenceCandidate

from broadcaster.errors import ConfigurationError
from workers.transport import Endpoint, addresses


def test_the_default_route_comes_first_and_loopback_last(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {socket.AF_INET: "192.0.2.77", socket.AF_INET6: None}
    monkeypatch.setattr(addresses, "default_route", lambda family, destination: sources[family])
    assert addresses.local_addresses() == ["192.0.2.77", "127.0.0.1", "::1"]
    sources[socket.AF_INET6] = "2001:db8::77"
    assert addresses.local_addresses() == ["192.0.2.77", "2001:db8::77", "127.0.0.1", "::1"]


class Probe:
    """A UDP socket whose routing table says `source`."""

    source: str | None = None

    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None: ...

    def connect(self, address: object) -> None:
        if self.source is None:
            raise OSError("Network is unreachable")

    def getsockname(self) -> tuple[str | None, int]:
        return self.source, 4711


@pytest.mark.parametrize(
    ("source", "usable"),
    [
        ("198.51.100.4", True),
        ("2001:db8::4", True),
        ("fd00::2", True),
        ("fe80::1%eth0", False),
        ("fe80::1", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("0.0.0.0", False),
        (None, False),
    ],
)
def test_only_addresses_that_viewers_can_use_are_routes(
    source: str | None, usable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Probe, "source", source)
    monkeypatch.setattr(socket, "socket", Probe)
    assert addresses.default_route(socket.AF_INET, "192.0.2.1") == (source if usable else None)


def test_the_real_routing_table_is_asked_without_sending() -> None:
    assert addresses.default_route(socket.AF_INET, "127.0.0.1") is None
    for address in addresses.local_addresses():
        assert not ipaddress.ip_address(address).is_link_local


def test_candidates_prefer_udp_and_earlier_addresses() -> None:
    found = addresses.candidates(["192.0.2.7", "2001:db8::7"], 40000)
    assert [(one.protocol, one.address) for one in found] == [
        ("udp", "192.0.2.7"),
        ("udp", "2001:db8::7"),
        ("tcp", "192.0.2.7"),
        ("tcp", "2001:db8::7"),
    ]
    priorities = [one.priority for one in found]
    assert priorities == sorted(priorities, reverse=True)
    assert len(set(priorities)) == len({one.foundation for one in found}) == 4
    assert priorities[0] == (126 << 24) + (65535 << 8) + 255


def test_a_candidate_is_written_as_others_read_it() -> None:
    udp, tcp = addresses.candidates(["192.0.2.7"], 40000)
    assert str(udp) == "candidate:1 1 udp 2130706431 192.0.2.7 40000 typ host"
    assert str(tcp).endswith(" 192.0.2.7 40000 typ host tcptype passive")
    read = ReferenceCandidate.from_sdp(str(tcp).removeprefix("candidate:"))
    assert (read.transport, read.host, read.port, read.tcptype) == ("tcp", "192.0.2.7", 40000, "passive")


@pytest.mark.parametrize("text", ["example.com", "", "192.0.2.256", "0.0.0.0", "::", "239.1.1.1", "192.0.2.1:5000"])
def test_what_cannot_be_announced_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="announce"):
        addresses.parse_addresses([text])


def test_announced_addresses_are_normalised_and_named_once() -> None:
    assert addresses.parse_addresses([" 192.0.2.7", "2001:DB8:0::7", "192.0.2.7"]) == ["192.0.2.7", "2001:db8::7"]


async def test_an_answer_has_the_addresses_of_this_machine() -> None:
    endpoint = await Endpoint.open(range(1))
    found = await endpoint.candidates()
    assert {one.port for one in found} == {endpoint.port}
    assert [one.address for one in found if one.protocol == "udp"][-2:] == ["127.0.0.1", "::1"]
    assert len(found) == 2 * len({one.address for one in found})
    await endpoint.close()


async def test_announced_addresses_replace_them_exactly() -> None:
    endpoint = await Endpoint.open(range(1), announce=["203.0.113.7", "127.0.0.1"])
    found = await endpoint.candidates()
    assert [one.address for one in found] == ["203.0.113.7", "127.0.0.1"] * 2
    await endpoint.close()


async def test_a_host_name_is_refused_before_any_port_is_taken() -> None:
    with pytest.raises(ConfigurationError, match=r"'example\.com' is not an IP address"):
        await Endpoint.open(range(1), announce=["example.com"])


async def test_an_address_that_appears_later_gets_sockets_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "local_addresses", lambda: ["127.0.0.1"])
    endpoint = await Endpoint.open(range(1))
    monkeypatch.setattr(addresses, "local_addresses", lambda: ["127.0.0.2", "127.0.0.1", "203.0.113.7"])
    found = await endpoint.candidates()
    assert [one.address for one in found if one.protocol == "udp"] == ["127.0.0.2", "127.0.0.1"]
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as viewer:
        viewer.connect(("127.0.0.2", endpoint.port))
    await endpoint.close()


async def test_an_address_whose_port_somebody_else_has_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(addresses, "local_addresses", lambda: ["127.0.0.1"])
    endpoint = await Endpoint.open(range(1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
        squatter.bind(("127.0.0.2", endpoint.port))
        monkeypatch.setattr(addresses, "local_addresses", lambda: ["127.0.0.2", "127.0.0.1"])
        found = await endpoint.candidates()
    assert {one.address for one in found} == {"127.0.0.1"}
    assert "127.0.0.2" in caplog.text
    await endpoint.close()


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:0:1::17", "2001:db8:0:1:ffff::9", True),
        ("2001:db8:0:1::17", "2001:db8:0:2::17", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_who_may_share_a_line(one: str, other: str, shared: bool) -> None:
    assert (addresses.line_of(one) == addresses.line_of(other)) is shared
