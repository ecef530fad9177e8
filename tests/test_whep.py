from __future__ import annotations

import asyncio
import gzip
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from broadcaster.errors import (
    BeamcastError,
    CallTimeoutError,
    ConfigurationError,
    NoCommonCodecError,
    OfferError,
    OverloadedError,
    PreconditionFailedError,
    PreconditionRequiredError,
    SessionNotFoundError,
    StreamNotFoundError,
)
from gateway.whep import MAX_BODY, WhepSettings, ice_server
from tests.fake_bus import ANSWER, FRAGMENT, OFFER, SECRET, Front, accepting, raising

EXPOSED = {"Location", "ETag", "Link", "Accept-Patch", "Retry-After", "Beamcast-Viewer"}


@pytest_asyncio.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with Front(tmp_path).running() as front:
        yield front


async def problem(response: Any, status: int) -> dict[str, Any]:
    """Assert that the response is a problem document that another site may read, and return it."""
    assert response.status == status, await response.text()
    assert response.content_type == "application/problem+json"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    document: dict[str, Any] = await response.json()
    assert document.keys() == {"type", "title", "status", "detail", "instance"}
    assert document["status"] == status
    assert document["instance"] == response.url.path
    assert document["type"] == "about:blank" or document["type"].startswith("urn:beamcast:problem:")
    return document


# --- POST ------------------------------------------------------------------------------------------------------


async def test_an_offer_makes_a_session(front: Front) -> None:
    response = await front.post()
    assert response.status == 201
    assert response.headers["Content-Type"] == "application/sdp"
    assert response.headers["Location"] == f"/whep/main/{SECRET}"
    assert response.headers["ETag"] == '"ice1"'
    assert response.headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"
    assert response.headers["Cache-Control"] == "no-store"
    assert set(response.headers["Access-Control-Expose-Headers"].split(", ")) == EXPOSED
    assert "Link" not in response.headers
    assert await response.text() == ANSWER
    [(worker, method, params)] = front.bus.calls
    assert (worker, method, params.stream, params.sdp) == ("w-1", "offer", "main", OFFER)


@pytest.mark.parametrize("content_type", ["application/sdp; charset=utf-8", "Application/SDP"])
async def test_the_content_type_may_have_parameters_and_any_case(front: Front, content_type: str) -> None:
    assert (await front.post(headers={"Content-Type": content_type})).status == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/sdpx"},
        {"Content-Type": "application/json"},
        {"Content-Type": ";;;"},
        {"Content-Type": ""},
        {},
    ],
)
async def test_another_content_type_is_415(front: Front, headers: dict[str, str]) -> None:
    response = await front.post(headers=headers, skip_auto_headers=["Content-Type"])
    assert (await problem(response, 415))["type"] == "urn:beamcast:problem:media-type"


@pytest.mark.parametrize("body", [b"", b" \r\n", b"\xff\xfe\x00", "v=0\r\ns=é".encode("latin-1")])
async def test_a_body_that_is_no_text_is_422(front: Front, body: bytes) -> None:
    await problem(await front.post(data=body), 422)
    assert front.bus.calls == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OfferError("m=application only"), 422),
        (ConfigurationError("an argument makes no sense"), 422),
        (NoCommonCodecError("no VP8"), 406),
        (StreamNotFoundError("what stream?"), 409),
    ],
)
async def test_what_a_worker_says_of_an_offer(front: Front, error: BeamcastError, status: int) -> None:
    front.registry.add_worker("w-2", viewers=50)
    front.bus.answers["w-1"] = raising(error)
    response = await front.post()
    await problem(response, status)
    assert [worker for worker, _, _ in front.bus.calls] == ["w-1"]
    assert ("Retry-After" in response.headers) == (status == 409)


@pytest.mark.parametrize("name", ["nothing", "UPPER", "..x", "a%2fb", "%00", "%ff", "x" * 64, "%F0%9F%92%A9", "a b"])
async def test_an_unknown_stream_is_404(front: Front, name: str) -> None:
    response = await front.http.post(
        f"/whep/{name}", data=OFFER, headers={"Content-Type": "application/sdp"}, allow_redirects=False
    )
    assert response.status == 404
    assert response.content_type == "application/problem+json"
    assert front.bus.calls == []


async def test_a_stream_that_went_off_the_air_is_409(front: Front) -> None:
    front.recent.note(["evening"], time.monotonic())
    response = await front.post("evening")
    await problem(response, 409)
    assert int(response.headers["Retry-After"]) > 0


async def test_a_slate_is_played_too(front: Front) -> None:
    front.registry.add_stream("quiet", live=False)
    assert (await front.post("quiet")).status == 201


async def test_no_capacity_is_503(front: Front) -> None:
    front.registry.add_worker("w-1", viewers=100)
    front.registry.add_worker("w-2", state="draining")
    response = await front.post()
    assert (await problem(response, 503))["title"] == "No capacity"
    assert int(response.headers["Retry-After"]) > 0
    assert front.bus.calls == []


@pytest.mark.parametrize("error", [CallTimeoutError("silence"), OverloadedError("full")])
async def test_the_next_best_worker_is_tried_once(front: Front, error: BeamcastError) -> None:
    front.registry.add_worker("w-2", viewers=10)
    front.bus.answers["w-1"] = raising(error)
    front.bus.answers["w-2"] = accepting
    assert (await front.post()).status == 201
    assert [worker for worker, _, _ in front.bus.calls] == ["w-1", "w-2"]
    # The one that failed has not renewed its lease since: the next player does not wait for it.
    assert (await front.post()).status == 201
    assert [worker for worker, _, _ in front.bus.calls] == ["w-1", "w-2", "w-2"]


async def test_two_failures_are_503(front: Front) -> None:
    for name in ("w-2", "w-3"):
        front.registry.add_worker(name)
    front.bus.answers.clear()
    response = await front.post()
    await problem(response, 503)
    assert "Retry-After" in response.headers
    assert len(front.bus.calls) == 2


async def test_a_burst_spreads_over_workers(front: Front) -> None:
    front.registry.add_worker("w-2")
    front.bus.answers["w-2"] = accepting
    responses = await asyncio.gather(*(front.post() for _ in range(40)))
    assert {response.status for response in responses} == {201}
    assert sum(worker == "w-1" for worker, _, _ in front.bus.calls) == 20


async def test_without_redis_it_is_503(front: Front) -> None:
    front.registry.fresh = False
    response = await front.post()
    assert "Redis" in (await problem(response, 503))["detail"]
    assert "Retry-After" in response.headers
    front.registry.fresh = True
    front.bus.away = True
    await problem(await front.post(), 503)
    front.bus.away = False
    assert (await front.post()).status == 201


async def test_ice_servers_are_links(tmp_path: Path) -> None:
    links = tuple(ice_server(text) for text in ("stun:stun.example.net:3478", "turn:t.example.net?transport=udp me pw"))
    async with Front(tmp_path, ice_servers=links).running() as front:
        assert (await front.post()).headers.getall("Link") == [
            '<stun:stun.example.net:3478>; rel="ice-server"',
            '<turn:t.example.net?transport=udp>; rel="ice-server"; username="me"; credential="pw"; '
            'credential-type="password"',
        ]


@pytest.mark.parametrize("text", ["", "http://x", "stun:", "turn:host", "turn:host a", 'turn:host a "', "stun:h a b"])
def test_what_is_no_ice_server(text: str) -> None:
    with pytest.raises(ConfigurationError, match="ICE server"):
        ice_server(text)


# --- hostile bodies ---------------------------------------------------------------------------------------------


async def test_a_large_body_is_413(front: Front) -> None:
    await problem(await front.post(data=b"v" * (MAX_BODY + 1)), 413)
    assert (await front.post(data=OFFER.ljust(MAX_BODY))).status == 201


async def test_an_endless_body_is_413(front: Front) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 4096
            yield b"v" * 4096
            await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await problem(await front.post(data=endless()), 413)
    assert sent < 16 * 1024 * 1024


async def test_a_body_that_does_not_come_is_408(tmp_path: Path) -> None:
    async with Front(tmp_path, whep=WhepSettings(body=0.05)).running() as front:
        answer = await raw(front, HEAD + SDP + b"Content-Length: 100\r\n\r\nv=0")
        assert answer.split()[1] == b"408"
        assert front.bus.calls == []


async def test_a_compressed_bomb_is_413(front: Front) -> None:
    headers = {"Content-Type": "application/sdp", "Content-Encoding": "gzip"}
    await problem(await front.post(data=gzip.compress(b"v" * 5_000_000), headers=headers), 413)


async def raw(front: Front, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", front.http.port)
    writer.write(request)
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer


HEAD = b"POST /whep/main HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
SDP = b"Content-Type: application/sdp\r\n"


@pytest.mark.parametrize(
    ("rest", "statuses"),
    [
        (SDP + b"Content-Type: text/html\r\nContent-Length: 3\r\n\r\nv=0", {b"415", b"400"}),
        (SDP + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nv=0", {b"400"}),
        (SDP + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {b"400"}),
        (SDP + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", {b"400", b"422"}),
        (SDP + b"Content-Length: -1\r\n\r\n", {b"400"}),
        (SDP + b"X: " + b"a" * 20_000 + b"\r\nContent-Length: 0\r\n\r\n", {b"400", b"431"}),
        (SDP + b"Content-Length: 99999999999999\r\n\r\nv=0", {b"413"}),
        (SDP + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nv=0", {b"400", b"422"}),
    ],
)
async def test_hostile_http_gets_an_answer_and_no_worker(front: Front, rest: bytes, statuses: set[bytes]) -> None:
    async with asyncio.timeout(5):
        assert (await raw(front, HEAD + rest)).split()[1] in statuses
    assert front.bus.calls == []
    assert (await front.post()).status == 201


async def test_the_player_may_hang_up_at_any_time(front: Front) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", front.http.port)
    writer.write(HEAD + SDP + b"Content-Length: 100\r\n\r\nv=0")
    await writer.drain()
    writer.transport.abort()
    assert (await front.post()).status == 201
    assert len(front.bus.calls) == 1


# --- PATCH ------------------------------------------------------------------------------------------------------


async def test_trickle_is_204(front: Front) -> None:
    response = await front.patch(front.join())
    assert response.status == 204
    assert "ETag" not in response.headers
    [(_, method, params)] = front.bus.calls
    assert (method, params.secret, params.if_match, params.fragment) == ("patch", SECRET, "ice1", FRAGMENT)


async def test_a_restart_is_200_with_a_new_tag(front: Front) -> None:
    response = await front.patch(front.join(), if_match="*")
    assert response.status == 200
    assert response.headers["ETag"] == '"ice2"'
    assert response.headers["Content-Type"] == "application/trickle-ice-sdpfrag"
    assert await response.text() == "a=ice-ufrag:new\r\n"


async def test_a_missing_if_match_is_for_the_worker_to_judge(front: Front) -> None:
    assert (await front.patch(front.join(), if_match=None)).status == 204
    assert front.bus.calls[0][2].if_match is None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PreconditionFailedError("old"), 412),
        (PreconditionRequiredError("missing"), 428),
        (OfferError("no fragment"), 422),
        (SessionNotFoundError("gone"), 404),
        (CallTimeoutError("silence"), 504),
    ],
)
async def test_what_a_worker_says_of_a_fragment(front: Front, error: BeamcastError, status: int) -> None:
    front.bus.answers["w-1"] = raising(error)
    await problem(await front.patch(front.join()), status)


@pytest.mark.parametrize("tag", ["ice1", 'W/"ice1"', '"a", "b"', "", '"a'])
async def test_what_is_no_strong_tag_is_412(front: Front, tag: str) -> None:
    await problem(await front.patch(front.join(), if_match=tag), 412)
    assert front.bus.calls == []


async def test_a_fragment_of_another_type_is_415(front: Front) -> None:
    await problem(await front.patch(front.join(), headers={"Content-Type": "application/sdp"}), 415)


async def test_an_empty_fragment_is_422(front: Front) -> None:
    await problem(await front.patch(front.join(), data=b""), 422)


# --- DELETE and who has a session -------------------------------------------------------------------------------


async def test_delete_is_200_and_then_404(front: Front) -> None:
    url = front.join()
    response = await front.http.delete(url)
    assert (response.status, await response.read()) == (200, b"")
    del front.bus.sessions[SECRET]
    await problem(await front.http.delete(url), 404)
    assert [method for _, method, _ in front.bus.calls] == ["leave"]


@pytest.mark.parametrize("secret", ["short", "x" * 200, "%2e%2e%2f" * 8, "é" * 30, "*" * 43])
async def test_what_cannot_be_a_secret_is_404_without_asking_redis(front: Front, secret: str) -> None:
    front.bus.away = True
    await problem(await front.http.delete(f"/whep/main/{secret}"), 404)
    await problem(await front.patch(f"/whep/main/{secret}"), 404)


async def test_a_session_belongs_to_its_stream(front: Front) -> None:
    front.join(stream="other")
    await problem(await front.http.delete(f"/whep/main/{SECRET}"), 404)
    assert front.bus.calls == []


async def test_a_session_dies_with_its_worker(front: Front) -> None:
    url = front.join(worker="w-9")
    await problem(await front.http.delete(url), 404)
    # Without a fresh registry nobody knows that the worker is dead.
    front.registry.fresh = False
    await problem(await front.http.delete(url), 503)


async def test_sessions_without_redis_are_503(front: Front) -> None:
    url = front.join()
    front.bus.away = True
    await problem(await front.http.delete(url), 503)
    await problem(await front.patch(url), 503)


# --- methods, tokens, other sites -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
async def test_the_endpoint_takes_post_only(front: Front, method: str) -> None:
    response = await front.http.request(method, "/whep/main")
    assert response.status == 405
    assert set(response.headers["Allow"].replace(" ", "").split(",")) == {"OPTIONS", "POST"}
    assert response.content_type == "application/problem+json"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST"])
async def test_a_session_takes_patch_and_delete_only(front: Front, method: str) -> None:
    response = await front.http.request(method, front.join())
    assert response.status == 405
    assert set(response.headers["Allow"].replace(" ", "").split(",")) == {"OPTIONS", "PATCH", "DELETE"}


@pytest.mark.parametrize(
    ("url", "methods", "accepts"),
    [
        ("/whep/main", "OPTIONS, POST", ("Accept-Post", "application/sdp")),
        (f"/whep/main/{SECRET}", "DELETE, OPTIONS, PATCH", ("Accept-Patch", "application/trickle-ice-sdpfrag")),
    ],
)
async def test_preflight_needs_no_token(tmp_path: Path, url: str, methods: str, accepts: tuple[str, str]) -> None:
    async with Front(tmp_path, tokens=("secret",)).running() as front:
        response = await front.http.options(url, headers={"Origin": "https://example.org"})
    assert response.status == 204
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Access-Control-Allow-Methods"] == methods
    assert response.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type, If-Match"
    assert int(response.headers["Access-Control-Max-Age"]) > 0
    assert response.headers[accepts[0]] == accepts[1]


@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", "Basic secret", "Bearer", "secret", "Bearer séc", "Bearer "]
)
async def test_without_a_token_it_is_401(tmp_path: Path, authorization: str | None) -> None:
    async with Front(tmp_path, tokens=("secret", "other")).running() as front:
        headers = {} if authorization is None else {"Authorization": authorization}
        url = front.join()
        for response in (
            await front.post(headers={"Content-Type": "application/sdp", **headers}),
            await front.patch(url, headers=headers),
            await front.http.delete(url, headers=headers),
        ):
            await problem(response, 401)
            assert response.headers["WWW-Authenticate"] == "Bearer"
        assert front.bus.calls == []


@pytest.mark.parametrize("authorization", ["Bearer secret", "bearer other", "Bearer  secret"])
async def test_every_token_opens(tmp_path: Path, authorization: str) -> None:
    async with Front(tmp_path, tokens=("secret", "other")).running() as front:
        headers = {"Content-Type": "application/sdp", "Authorization": authorization}
        assert (await front.post(headers=headers)).status == 201


async def test_named_origins_alone_may_play(tmp_path: Path) -> None:
    async with Front(tmp_path, cors_origins=("https://a.example",)).running() as front:
        headers = {"Content-Type": "application/sdp"}
        friend = await front.post(headers={**headers, "Origin": "https://a.example"})
        stranger = await front.post(headers={**headers, "Origin": "https://b.example"})
    assert friend.headers["Access-Control-Allow-Origin"] == "https://a.example"
    assert "Access-Control-Allow-Origin" not in stranger.headers
    assert friend.headers["Vary"] == stranger.headers["Vary"] == "Origin"


async def test_a_bug_is_a_500_with_an_id_that_the_log_knows(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    front.bus.answers["w-1"] = raising(ZeroDivisionError("boom"))
    response = await front.post()
    assert response.status == 500
    document = await response.json()
    assert document["instance"].startswith("urn:uuid:")
    assert "boom" not in await response.text()
    assert document["instance"] in caplog.text
    # The failed attempt does not weigh on its worker for ever.
    front.registry.add_worker("w-2")
    front.bus.answers["w-1"] = accepting
    assert (await front.post()).status == 201
    assert front.bus.calls[-1][0] == "w-1"


async def test_no_log_tells_the_secret_of_a_session(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gateway")
    url = front.join()
    assert (await front.patch(url)).status == 204
    front.bus.answers["w-1"] = raising(ZeroDivisionError("boom"))
    assert (await front.http.delete(url)).status == 500
    assert "PATCH /whep/main/SECRET 204" in caplog.text
    assert "DELETE /whep/main/SECRET failed" in caplog.text
    assert SECRET not in caplog.text
