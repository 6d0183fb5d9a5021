"""The innermost application of a standalone gateway: a 404 in OpenAI's envelope for every other path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from imagegate.asgi.helpers import header, route_path, send_error, send_json
from imagegate.asgi.request_ids import request_id
from imagegate.errors import ImagegateError

_ENDPOINTS: Final = ("/images/generations", "/images/edits", "/images/variations")


Readiness = Mapping[str, str]
"""What ``/readyz`` answers: ``status``, which is ``ready`` or says why it is not, and what is known of the parts."""


class NotFound:
    """404 in OpenAI's envelope, 405 for another method on the Images API, and an empty lifespan.

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
    if method != "POST" and path.rstrip("/").endswith(_ENDPOINTS):
        error = ImagegateError(
            f"Not allowed: {method} {path[:128]}. Use POST.",
            status=405,
            type="invalid_request_error",
            code="method_not_allowed",
            headers=[(b"allow", b"POST")],
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
