"""Conditional requests for pictures."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from imagegate.protocol.image_format import BY_EXTENSION
from imagegate.stores import FileStore, MemoryStore, ServedStore, put
from imagegate.stores.conditional import is_unchanged
from imagegate.stores.serving import ServeImages

PNG = BY_EXTENSION["png"]
CONTENT = bytes(range(256)) * 40
ETAG, MODIFIED = '"abc.png"', "Sun, 29 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("asked", "unchanged"),
    [
        ({}, False),
        ({"if-none-match": ETAG}, True),
        ({"if-none-match": f"W/{ETAG}"}, True),
        ({"if-none-match": f'"other", {ETAG}'}, True),
        ({"if-none-match": " * "}, True),
        ({"if-none-match": '"other"'}, False),
        ({"if-none-match": "abc.png"}, False),
        ({"if-none-match": ""}, False),
        ({"if-modified-since": MODIFIED}, True),
        ({"if-modified-since": "Sun, 29 Nov 2026 10:00:01 GMT"}, True),
        ({"if-modified-since": "Sun, 29 Nov 2026 09:59:59 GMT"}, False),
        ({"if-modified-since": "Sunday, 29-Nov-26 10:00:00 GMT"}, True),
        ({"if-modified-since": "yesterday"}, False),
        ({"if-modified-since": "Sun, 99 Nov 2026 10:00:00 GMT"}, False),
        ({"if-none-match": '"other"', "if-modified-since": MODIFIED}, False),
        ({"if-none-match": ETAG, "if-modified-since": "Sun, 29 Nov 2026 09:59:59 GMT"}, True),
    ],
)
def test_is_unchanged(asked: dict[str, str], unchanged: bool) -> None:
    assert is_unchanged(Headers(asked), etag=ETAG, last_modified=MODIFIED) is unchanged


def test_several_fields_are_one() -> None:
    raw = [(b"if-none-match", b'"other"'), (b"if-none-match", ETAG.encode())]
    assert is_unchanged(Headers(raw=raw), etag=ETAG, last_modified=MODIFIED)


@given(st.text(st.characters(max_codepoint=255)), st.text(st.characters(max_codepoint=255)))
def test_whatever_is_asked_there_is_an_answer(tags: str, since: str) -> None:
    raw = [(b"if-none-match", tags.encode("latin-1")), (b"if-modified-since", since.encode("latin-1"))]
    for asked in (raw, raw[1:]):
        is_unchanged(Headers(raw=asked), etag=ETAG, last_modified=MODIFIED)


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ServedStore:
    return FileStore(tmp_path / "images", ttl=60) if request.param == "file" else MemoryStore(ttl=60)


def ask(store: ServedStore, *requests: tuple[str, dict[str, str]], signature: str = "") -> list[httpx.Response]:
    """The answers to requests for one picture, each with its method and headers."""

    async def run() -> list[httpx.Response]:
        key = await put(store, CONTENT, PNG)
        link = await store.link(key, "http://test/images/") + signature
        transport = httpx.ASGITransport(app=ServeImages(store))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport) as client:
            first = await client.get(link)
            named = {"ETAG": first.headers.get("etag", ""), "MODIFIED": first.headers.get("last-modified", "")}
            return [
                first,
                *[
                    await client.request(method, link, headers={name: named.get(it, it) for name, it in asked.items()})
                    for method, asked in requests
                ],
            ]

    return asyncio.run(run())


@pytest.mark.parametrize("condition", [{"if-none-match": "ETAG"}, {"if-modified-since": "MODIFIED"}])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_picture_that_the_client_has_is_not_sent_again(
    store: ServedStore, method: str, condition: dict[str, str]
) -> None:
    """304 with what a cache needs, and without a body or what describes one."""
    first, again = ask(store, (method, {**condition, "range": "bytes=0-9"}))
    assert (first.status_code, first.content) == (200, CONTENT)
    assert (again.status_code, again.content) == (304, b"")
    for name in ("etag", "last-modified", "cache-control", "x-content-type-options"):
        assert again.headers[name] == first.headers[name]
    assert {"content-length", "content-type", "content-range"}.isdisjoint(again.headers)


def test_a_picture_that_it_does_not_have_is_sent(store: ServedStore) -> None:
    past = formatdate(1_000_000_000, usegmt=True)
    _, *answers = ask(store, ("GET", {"if-none-match": '"other"'}), ("GET", {"if-modified-since": past}), ("HEAD", {}))
    assert [(answer.status_code, answer.content) for answer in answers] == [(200, CONTENT), (200, CONTENT), (200, b"")]
    assert answers[2].headers["content-length"] == str(len(CONTENT))


def test_ranges(tmp_path: Path) -> None:
    """A part of a file, also where ``If-Range`` names what the client has; all of it where it names something else."""
    requests: list[tuple[str, dict[str, Any]]] = [
        ("GET", {"range": "bytes=10-19"}),
        ("GET", {"range": "bytes=10-19", "if-range": "ETAG"}),
        ("GET", {"range": "bytes=10-19", "if-range": "MODIFIED"}),
        ("GET", {"range": "bytes=10-19", "if-range": '"other"'}),
        ("HEAD", {"range": "bytes=10-19"}),
        ("GET", {"range": "bytes=99999999-"}),
    ]
    _, *answers = ask(FileStore(tmp_path, ttl=60), *requests)
    assert [answer.status_code for answer in answers] == [206, 206, 206, 200, 206, 416]
    assert [answer.content for answer in answers[:4]] == [CONTENT[10:20]] * 3 + [CONTENT]
    assert answers[0].headers["content-range"] == f"bytes 10-19/{len(CONTENT)}"


def test_a_condition_is_no_way_past_the_signature(store: ServedStore) -> None:
    (refused, again) = ask(store, ("GET", {"if-none-match": "*"}), signature="0")
    assert (refused.status_code, again.status_code) == (403, 403)
