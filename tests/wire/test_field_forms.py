"""Forms of `tests/field`: what arrives at the provider."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
from urllib.parse import urlsplit

import pytest
from tests.wire.field_support import CLIENT, GOOD, Bench, Form, forms, parts_of


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
