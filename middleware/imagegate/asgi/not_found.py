"""The innermost application of a standalone gateway: a 404 in OpenAI's envelope for every other path."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from imagegate.asgi.helpers import header, request_id, route_path, send_error, send_json
from imagegate.errors import ImagegateError

_ENDPOINTS: Final[Sequence[tuple[re.Pattern[str], str]]] = tuple(
    (re.compile(pattern), methods)
    for pattern, methods in (
        (r".*/images/(generations|edits|variations)/?", "POST"),
        (r".*/models(/.+)?", "GET"),
        (r".*/tasks/[^/]+/?", "GET, DELETE"),
        (r".*/usage", "GET"),
        (r"/images/[^/]+|/(healthz|readyz|metrics|docs|openapi\.json)", "GET, HEAD"),
    )
)
"""Paths and the methods that are answered there, where it is for the layers or for what is in front of them."""

Readiness = Mapping[str, str]
"""What ``/readyz`` answers: ``status``, which is ``ready`` or says why it is not, and what is known of the parts."""


class NotFound:
    """404 in OpenAI's envelope, 405 for another method on an endpoint, and an empty lifespan.

    Answers ``/healthz`` as long as the process runs, and ``/readyz`` where the gateway can do its work.

    Args:
        readiness: finds out; None: there is no ``/readyz``.
    """

    def __init__(self, readiness: Callable[[], Awaitable[Readiness]] | None = None) -> None:
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "http":
            is_question = scope["method"] in ("GET", "HEAD") and route_path(scope) == "/readyz"
            if self._readiness is not None and is_question:
                found = await self._readiness()
                await send_json(send, 200 if found["status"] == "ready" else 503, msgspec.json.encode(found))
            else:
                await _answer(scope, send)


async def _answer(scope: Scope, send: Send) -> None:
    method, path = scope["method"], route_path(scope)
    if method in ("GET", "HEAD") and path == "/healthz":
        await send_json(send, 200, b'{"status":"ok"}')
        return
    allowed = next((methods for pattern, methods in _ENDPOINTS if pattern.fullmatch(path)), method)
    if method not in allowed.split(", "):
        error = ImagegateError(
            f"Not allowed: {method} {path[:128]}. Use {allowed.replace(', ', ' or ')}.",
            status=405,
            type="invalid_request_error",
            code="method_not_allowed",
            headers=[(b"allow", allowed.encode())],
        )
    else:
        error = ImagegateError(
            f"Unknown request URL: {method} {path[:128]}.",
            status=404,
            type="invalid_request_error",
            code="unknown_url",
        )
    error.headers.append((b"x-request-id", request_id(header(scope, b"x-request-id")).encode()))
    await send_error(send, error)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
