"""One request and the head of its reply, on a connection of aiohttp's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from imagegate.http.messages import CHUNK, NotSent, Request, Response, joined
from imagegate.http.outbox import SMALL, Outbox, Pieces
from imagegate.http.reply_body import BodyInMemory, ReplyBody
from imagegate.http.request_body import Upload
from imagegate.http.why import as_failure
from imagegate.protocol.content_length import read_length

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.http import RawResponseMessage

_FIELD: Final = 64 * 1024
"""Bytes of a reply's header field; aiohttp's 8 KiB is less than a signed Location may need."""
_BODILESS: Final = ("GET", "HEAD", "OPTIONS", "TRACE")
"""Methods whose requests say nothing about a body that they do not have."""


class ClosedBeforehand(NotSent):
    """The server had closed the connection before the request was sent; another connection may do."""


class Target(NamedTuple):
    """Where a request goes, as a URL says it."""

    origin: URL
    path: str
    """With the query."""
    host: str
    """With the port, as the Host field has it."""


async def round_trip(
    connection: Connection, target: Target, request: Request, on_close: Callable[[], None], outbox: Outbox
) -> Response:
    """Sends the request and returns when the head of its reply is there; `on_close` is called when the reply is closed.

    What is small is sent by `outbox`.

    Raises `Interrupted`, from aiohttp's error, when there is no reply, `ClosedBeforehand` where there can be none, and
    exceptions of the request's body as they are; the connection is closed then.
    """
    upload: Upload | None = None
    unsent: Pieces = []
    try:
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            raise aiohttp.ServerDisconnectedError
        _expect_reply(protocol, request)
        length = _length(request)
        head, content = _head(target, request, length), b"" if request.content is None else request.content
        if isinstance(content, bytes) and len(content) <= SMALL and not protocol.writing_paused:
            unsent = outbox.write(transport, head + content)
            protocol.start_timeout()
        else:
            upload = Upload(protocol, head, content, length, request.timeouts.write)
        message, payload = await protocol.read()
        if 100 <= message.code < 200:
            message, payload = await _after_interim(protocol, upload, message, payload)
        if upload is not None:
            upload.answered()
    except BaseException as exc:
        if upload is not None:
            upload.cancel()
        connection.close()
        if not isinstance(exc, aiohttp.ClientError | HttpProcessingError | OSError):
            raise
        if upload is not None:
            upload.raise_error()
        if unsent:
            raise ClosedBeforehand("the connection was closed before the request was sent") from exc
        raise as_failure(exc, request.timeouts) from exc
    headers = joined(message.raw_headers)
    is_sent = upload is None or upload.is_complete
    if is_sent and payload.is_eof() and payload.exception() is None and protocol.connected:
        if upload is not None:
            _stop_timeout(protocol)  # it is started when the upload ends, perhaps with the reply there already
        whole = payload.read_nowait()  # before others get the connection: this reads on
        connection.release()
        return Response(message.code, headers, BodyInMemory(whole, on_close))
    body = ReplyBody(connection, protocol, message, payload, request.timeouts, upload, on_close)
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


async def _after_interim(
    protocol: ResponseHandler, upload: Upload | None, message: RawResponseMessage, payload: aiohttp.StreamReader
) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
    """The reply that follows those which only say that it will."""
    while 100 <= message.code < 200:
        if message.code == 101:
            protocol.force_close()  # what it speaks now nobody has asked for
            break
        if upload is None or upload.has_ended:
            protocol.start_timeout()  # aiohttp has stopped it, as after any reply without a body
        message, payload = await protocol.read()
    if payload.is_eof():
        _stop_timeout(protocol)
    return message, payload


def _stop_timeout(protocol: ResponseHandler) -> None:
    protocol.read_timeout = None  # until the next request
    protocol.start_timeout()


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
    """Of the body, where it is known. Raises `NotSent` where the header says what is no length, or several."""
    if request.content is None or isinstance(request.content, bytes):
        return len(request.content or b"")
    said = {value for name, value in request.headers if name.lower() == "content-length"}
    if not said:
        return None
    length = read_length(said.pop())
    if said or length is None:
        raise NotSent("the content-length header of the request is not one number")
    return length
