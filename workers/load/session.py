"""WHEP from the viewer's side: an offer goes out, an answer comes back, and a DELETE ends the session."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit, urlunsplit

import aiohttp

from broadcaster.errors import ConfigurationError, LoadError

PATIENCE = 10.0
"""Seconds for an HTTP request."""

_OFFER = """\
v=0
o=- 1 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
a=msid-semantic: WMS
m=video 9 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:{ufrag}
a=ice-pwd:{password}
a=ice-options:trickle
a=fingerprint:sha-256 {fingerprint}
a=setup:actpass
a=mid:0
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay
a=extmap:9 urn:ietf:params:rtp-hdrext:sdes:mid
a=recvonly
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 goog-remb
a=rtcp-fb:96 transport-cc
a=rtcp-fb:96 ccm fir
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
"""
"""What Chromium offers, without the codecs and extensions that this server does not answer."""

_LAST_PORT = 65_535
_IDS = frozenset(map(str, range(1, 15)))
"""Of extensions whose headers have one octet (RFC 8285 section 4.2)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a viewer must know of the answer; `rtx_ssrc` is None where nothing is sent again. `transport` is the id of
    transport-wide numbers, on which feedback is wanted; None where a REMB is.
    """

    address: tuple[str, int]
    ufrag: str
    password: str
    fingerprint: str
    ssrc: int
    rtx_ssrc: int | None
    transport: int | None = None


def offer(ufrag: str, password: str, fingerprint: str) -> str:
    """The offer of one viewer; `fingerprint` is the SHA-256 of its certificate ("AB:CD:…")."""
    return _OFFER.format(ufrag=ufrag, password=password, fingerprint=fingerprint).replace("\n", "\r\n")


def endpoint(url: str, stream: str) -> str:
    """The WHEP endpoint: `url` itself where it has a path, else that of `stream` there. Raises ConfigurationError."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(f"{url!r} is not the address of a server: use http://HOST:PORT/whep/STREAM")
    return url if parts.path not in {"", "/"} else urlunsplit(parts._replace(path=f"/whep/{stream}"))


def is_loopback(host: str) -> bool:
    """Whether everything that `host` resolves to is this machine's loopback. Raises LoadError."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)}
    except OSError as error:
        raise LoadError(f"{host} cannot be resolved ({error.strerror}); is the address right?") from None
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)


def parse_answer(sdp: str, *, loopback: bool) -> Answer:
    """Read an answer; `loopback` wants loopback media, else the best address for UDP is taken. Raises LoadError."""
    candidates = re.findall(
        r"^a=candidate:\S+ 1 udp (\d{1,10}) (\S+) (\d{1,5}) typ host", sdp, re.MULTILINE | re.IGNORECASE
    )
    usable = [
        (int(priority), host, int(port))
        for priority, host, port in candidates
        if _is_literal(host, loopback=loopback) and int(port) <= _LAST_PORT
    ]
    if not usable:
        where = "on loopback, which a server on loopback must" if loopback else "over UDP"
        raise LoadError(f"the server offers no media {where}; start its workers with --announce ADDRESS")
    _, host, port = max(usable)
    rtx = re.search(r"^a=ssrc-group:FID \d+ (\d{1,10})\s", sdp, re.MULTILINE)
    return Answer(
        address=(host, port),
        ufrag=_found(r"ice-ufrag:(\S+)", sdp),
        password=_found(r"ice-pwd:(\S+)", sdp),
        fingerprint=_found(r"fingerprint:sha-256 (\S+)", sdp).upper(),
        ssrc=_ssrc(_found(r"ssrc:(\d{1,10}) ", sdp)),
        rtx_ssrc=_ssrc(rtx[1]) if rtx else None,
        transport=_transport(sdp),
    )


def _transport(sdp: str) -> int | None:
    extension = re.search(r"^a=extmap:(\d+)\S* \S+-transport-wide-cc-extensions-01\s*$", sdp, re.MULTILINE)
    wanted = re.search(r"^a=rtcp-fb:\S+ transport-cc\s*$", sdp, re.MULTILINE)
    if not extension or not wanted:
        return None
    if extension[1] not in _IDS:
        raise LoadError(f"the server's answer has a=extmap:{extension[1]}, which cannot be; is that a WHEP endpoint?")
    return int(extension[1])


def _ssrc(number: str) -> int:
    if int(number) >> 32:
        raise LoadError(f"the server's answer has a=ssrc:{number}, which cannot be; is that a WHEP endpoint?")
    return int(number)


def _is_literal(host: str, *, loopback: bool) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback is loopback
    except ValueError:
        return False


def _found(pattern: str, sdp: str) -> str:
    match = re.search(f"^a={pattern}", sdp, re.MULTILINE)
    if match is None:
        raise LoadError(f"the server's answer lacks a={pattern.partition(':')[0]}; is that a WHEP endpoint?")
    return match[1]


class Whep:
    """The endpoint of one stream. A server on loopback must not send viewers elsewhere."""

    def __init__(self, http: aiohttp.ClientSession, url: str, *, token: str | None, loopback: bool) -> None:
        self._http = http
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._loopback = loopback

    async def join(self, text: str) -> tuple[str, Answer]:
        """Post an offer; the session's address and the answer. Raises LoadError when the server refuses."""
        headers = {**self._headers, "Content-Type": "application/sdp", "Accept": "application/sdp"}
        try:
            async with (
                asyncio.timeout(PATIENCE),
                self._http.post(self._url, data=text, headers=headers, allow_redirects=not self._loopback) as response,
            ):
                if response.status != 201:
                    raise LoadError(f"{self._url} answered {response.status}: {await _reason(response)}")
                body = await response.text()
                location = response.headers.get("Location")
                session = urljoin(str(response.url), location) if location else ""
        except TimeoutError:
            raise LoadError(f"{self._url} did not answer within {PATIENCE:.0f} s") from None
        except aiohttp.ClientConnectorError as error:
            raise LoadError(f"no server at {self._url}: {error.strerror or error}") from None
        except (aiohttp.ClientError, UnicodeDecodeError) as error:
            raise LoadError(f"{self._url} did not answer as HTTP wants: {error}") from None
        return session, parse_answer(body, loopback=self._loopback)

    async def leave(self, session: str) -> None:
        """End a session, as far as the server is still there to hear it."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(PATIENCE), self._http.delete(session, headers=self._headers):
                pass


async def _reason(response: aiohttp.ClientResponse) -> str:
    """The detail of a problem (RFC 9457), else what the status is called."""
    try:
        problem = await response.json(content_type=None)
        return str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        return response.reason or "no reason given"
