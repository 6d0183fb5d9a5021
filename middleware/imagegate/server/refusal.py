"""An error as a complete HTTP/1.1 response, for requests that never reach an application."""

from __future__ import annotations

from http import HTTPStatus

from imagegate.errors import ImagegateError


def response_of(error: ImagegateError) -> bytes:
    """Return the response, which announces that the connection is closed after it."""
    body = error.body()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *error.headers,
    ]
    status = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n".encode()
    return status + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n" + body
