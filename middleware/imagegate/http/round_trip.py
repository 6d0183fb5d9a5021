"""One request and the head of its reply, on a connection of aiohttp's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import aiohttp
from yarl import URL

from imagegate.http.messages import CHUNK, NotSent, Request, Response, joined
from imagegate.http.reply_body import BodyInMemory, ReplyBody
from imagegate.http.request_body import Upload

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection

_SMALL: Final = 64 * 1024
"""Bytes of a request's body that every socket takes at once, so that nobody waits for it."""
_FIELD: Final = 64 * 1024
"""Bytes of a reply's header field; aiohttp's 8 KiB is less than a signed Location may need."""
_BODILESS: Final = ("GET", "HEAD", "OPTIONS", "TRACE")
"""Methods whose requests say nothing about a body that they do not have."""


class Target(NamedTuple):
    """Where a request goes, as a URL says it."""

    origin: URL
    path: str
    """With the query."""
    host: str
    """With the port, as the Host field has it."""


async def round_trip(
    connection: Connection, target: Target, request: Request, on_close: Callable[[], None]
) -> Response:
    """Sends the request and returns when the head of its reply is there; `on_close` is called when the reply is closed.

    Raises an exception of aiohttp's when there is no reply, and those of the request's body as they are. The connection
    is closed then.
    """
    upload: Upload | None = None
    try:
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            raise aiohttp.ServerDisconnectedError
        _expect_reply(protocol, request)
        length = _length(request)
        head, content = _head(target, request, length), b"" if request.content is None else request.content
        if isinstance(content, bytes) and len(content) <= _SMALL and not protocol.writing_paused:
            transport.write(head + content)
            protocol.start_timeout()
        else:
            upload = Upload(protocol, head, content, _length(request), request.timeouts.write)
        message, payload = await protocol.read()
        while 100 <= message.code < 200 and message.code != 101:
            message, payload = await protocol.read()
        if upload is not None:
            upload.raise_error()  # the server's answer to a request that broke off says nothing
    except BaseException as exc:
        connection.close()
        if upload is not None:
            upload.cancel()
            if isinstance(exc, Exception):
                upload.raise_error()
        raise
    headers = joined(message.raw_headers)
    is_sent = upload is None or upload.is_complete
    if is_sent and payload.is_eof() and payload.exception() is None and protocol.connected:
        whole = payload.read_nowait()  # before others get the connection: this reads on
        connection.release()
        return Response(message.code, headers, BodyInMemory(whole, on_close))
    body = ReplyBody(connection, protocol, payload, headers, request.timeouts, upload, on_close)
    return Response(message.code, headers, body)


def _expect_reply(protocol: ResponseHandler, request: Request) -> None:
    protocol.set_response_params(
        skip_payload=request.method == "HEAD",
        read_until_eof=True,
        auto_decompress=False,
        read_timeout=request.timeouts.read,
        read_bufsize=CHUNK,  # so that one piece that waits stops nothing
        max_field_size=_FIELD,
    )


def _head(target: Target, request: Request, length: int | None) -> bytes:
    """The request up to its body. What frames the body is ours to say."""
    lines = [f"{request.method} {target.path} HTTP/1.1\r\n"]
    host = f"Host: {target.host}\r\n"
    for name, value in request.headers:
        match name.lower():
            case "host":
                host = f"Host: {value}\r\n"
            case "content-length" | "transfer-encoding":
                pass
            case _:
                lines.append(f"{name}: {value}\r\n")
    lines.insert(1, host)
    if request.content is None and request.method in _BODILESS:
        lines.append("\r\n")
    elif length is not None:
        lines.append(f"Content-Length: {length}\r\n\r\n")
    else:
        lines.append("Transfer-Encoding: chunked\r\n\r\n")
    return "".join(lines).encode("ascii")


def _length(request: Request) -> int | None:
    """Of the body, where it is known."""
    if request.content is None or isinstance(request.content, bytes):
        return len(request.content or b"")
    said = {value for name, value in request.headers if name.lower() == "content-length"}
    if not said:
        return None
    length = said.pop()
    if said or not length.isdecimal():
        raise NotSent("the content-length header of the request is not one number")
    return int(length)
