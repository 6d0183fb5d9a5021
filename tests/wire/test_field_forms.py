"""Forms of `tests/field`: what arrives at the provider."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
from urllib.parse import urlsplit

import httpx
import pytest
from tests.wire.field_support import CLIENT, EDITS, GOOD, SMALL, Bench, Form, forms, parts_of


@pytest.mark.parametrize("form", forms(), ids=lambda form: form.name)
def test_forms(bench: Bench, form: Form) -> None:
    bench.first.post = GOOD
    status, body = exchange(bench.url, with_key(form.request))
    assert status == form.right["status"], body
    (request,) = bench.first.posts
    parts = parts_of(request)
    upstream = form.right["upstream"]
    assert {part.name: part.content.decode() for part in parts if part.filename is None} == upstream["fields"]
    assert [
        {
            "part": part.name,
            "filename": part.filename,
            "type": part.media_type,
            "sha256": hashlib.sha256(part.content).hexdigest(),
        }
        for part in parts
        if part.filename is not None
    ] == upstream["files"]


def test_servers_that_want_a_length(bench: Bench) -> None:
    """A form has its length from the beginning, also while it is still coming in."""
    bench.first.post, bench.first.demands_length = GOOD, True
    content = SMALL + bytes(9_000_000)
    files = {"image": ("\u65b0\u5efa.png", content, "image/png"), "mask": ("", b"", "application/octet-stream")}
    fields = {"model": "alone", "prompt": "A kite"}
    for _ in range(5):
        bench.first.requests.clear()
        reply = httpx.post(bench.url + EDITS, data=fields, files=files, headers=CLIENT, timeout=30)
        assert reply.status_code == 200, reply.text
        (request,) = bench.first.posts
        assert bench.first.faults == []
        assert [part.content for part in parts_of(request) if part.filename is not None] == [content]


def with_key(request: bytes) -> bytes:
    first, _, rest = request.partition(b"\r\n")
    return first + f"\r\nAuthorization: {CLIENT['authorization']}\r\n".encode() + rest


def exchange(url: str, request: bytes) -> tuple[int, bytes]:
    """Send the bytes of a request as they are."""
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=30) as connection:
        connection.sendall(request)
        reply = http.client.HTTPResponse(connection)
        with contextlib.closing(reply):
            reply.begin()
            return reply.status, reply.read()
