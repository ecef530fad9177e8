from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from yarl import URL

from tests.fake_bus import PAGES, Front


@pytest_asyncio.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    pages = tmp_path / "pages"
    pages.mkdir()
    (tmp_path / "secret.txt").write_text("nobody's business")
    async with Front(pages).running() as front:
        yield front


@pytest.mark.parametrize(
    ("path", "file", "content_type"),
    [
        ("/", "index.html", "text/html"),
        ("/watch/main", "watch.html", "text/html"),
        ("/watch/unknown", "watch.html", "text/html"),
        ("/dashboard/main", "dashboard.html", "text/html"),
        ("/static/watch.js", "watch.js", "javascript"),
    ],
)
async def test_pages(front: Front, path: str, file: str, content_type: str) -> None:
    response = await front.http.get(path)
    assert response.status == 200
    assert response.content_type.endswith(content_type)  # application/javascript on old systems
    assert await response.text() == PAGES[file]
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'self'; ")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    again = await front.http.get(path, headers={"If-None-Match": response.headers["ETag"]})
    assert again.status == 304


@pytest.mark.parametrize(
    "path",
    [
        "/watch/UPPER",
        "/watch/",
        "/watch/a%2fb",
        "/static/",
        "/static/nothing.js",
        "/static/../secret.txt",
        "/static/..%2fsecret.txt",
        "/static/%2e%2e/secret.txt",
        "/static/..%5csecret.txt",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/watch.js%00",
        "/static/" + "x" * 5000,
        "/static/%ff%fe",
        "/favicon.ico",
    ],
)
async def test_anything_else_is_404(front: Front, path: str) -> None:
    response = await front.http.session.get(URL(f"http://127.0.0.1:{front.http.port}{path}", encoded=True))
    assert response.status == 404
    assert response.content_type == "application/problem+json"


async def test_pages_are_read_only(front: Front) -> None:
    response = await front.http.post("/")
    assert response.status == 405
    assert response.content_type == "application/problem+json"
    assert response.headers["Allow"] == "GET,HEAD"
