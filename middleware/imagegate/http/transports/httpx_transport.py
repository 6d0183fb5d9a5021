"""Requests through any `httpx.AsyncBaseTransport`: httpx's own, one over HTTP/2, or a mock."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

import httpx

from imagegate.http.messages import (
    Interrupted,
    NotSent,
    Request,
    Response,
    Timeouts,
    joined,
    not_http,
)
from imagegate.http.transports.failures import why_not_connected


class HttpxTransport:
    """Sends through `transport`, which stays its owner's to close."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def send(self, request: Request) -> Response:
        """Send as `Sender` does. `httpx.AsyncHTTPTransport` forgets `sni_hostname` when it uses a connection again."""
        if unsound := not_http(request):
            raise unsound
        timeouts = request.timeouts
        extensions: dict[str, Any] = {
            "timeout": {
                "connect": timeouts.connect,
                "read": timeouts.read,
                "write": timeouts.write,
                "pool": timeouts.pool,
            }
        }
        if request.sni_hostname is not None:
            extensions["sni_hostname"] = request.sni_hostname
        try:
            response = await self._transport.handle_async_request(
                httpx.Request(
                    request.method,
                    request.url,
                    headers=list(request.headers),
                    content=request.content,
                    extensions=extensions,
                )
            )
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise _failure(exc, timeouts, in_body=False) from exc
        body = _ClassifiedBody(cast("httpx.AsyncByteStream", response.stream), timeouts)
        return Response(response.status_code, joined(response.headers.raw), body)

    async def aclose(self) -> None:
        """Leave the transport open: it is not ours."""


class _ClassifiedBody:
    """A reply's body that fails with `Interrupted`, so that no reader has to know httpx."""

    def __init__(self, body: httpx.AsyncByteStream, timeouts: Timeouts) -> None:
        self._body = body
        self._pieces = aiter(body)
        self._timeouts = timeouts

    def __aiter__(self) -> _ClassifiedBody:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except httpx.HTTPError as exc:
            raise _failure(exc, self._timeouts, in_body=True) from exc

    async def aclose(self) -> None:
        with contextlib.suppress(httpx.HTTPError):
            await asyncio.shield(self._body.aclose())


_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)


def _failure(exc: Exception, timeouts: Timeouts, *, in_body: bool) -> NotSent | Interrupted:
    """Turn httpx's exceptions into ours, which happens nowhere else. What is not known to be unsent may be sent."""
    timed_out = isinstance(exc, httpx.TimeoutException)
    if isinstance(exc, _NEVER_SENT) and not in_body:
        return NotSent(_why_not_sent(exc, timeouts), timed_out=timed_out)
    match exc:
        case httpx.WriteTimeout():
            text = f"the server took no more of the request for {timeouts.write:g} s"
        case httpx.TimeoutException() if in_body:
            text = f"the reply stopped for {timeouts.read:g} s"
        case httpx.TimeoutException():
            text = f"no reply within {timeouts.read:g} s"
        case httpx.LocalProtocolError():
            text = "the request is not as long as announced"
        case httpx.RemoteProtocolError() if "closed" not in str(exc) and "disconnected" not in str(exc):
            text = "the reply is not valid HTTP"
        case _ if in_body:
            text = "connection closed before the reply was complete"
        case _:
            text = "connection closed without a reply"
    return Interrupted(text, timed_out=timed_out)


def _why_not_sent(exc: Exception, timeouts: Timeouts) -> str:
    if isinstance(exc, httpx.PoolTimeout):
        return f"no free connection within {timeouts.pool:g} s"
    if isinstance(exc, httpx.ConnectTimeout):
        return f"no connection within {timeouts.connect:g} s"
    if isinstance(exc, httpx.UnsupportedProtocol | httpx.InvalidURL):
        return "not a valid http or https URL"
    return why_not_connected(exc)
