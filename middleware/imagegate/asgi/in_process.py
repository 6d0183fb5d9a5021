"""Requests to an ASGI application in this process, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.types import ASGIApp, Message

from imagegate.asgi.captured_response import CapturedResponse
from imagegate.asgi.helpers import replay


async def ask(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    query: bytes = b"",
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: bytes = b"",
) -> CapturedResponse:
    """Send one request to `app` and return its response."""

    async def connected() -> Message:
        return await asyncio.Future()  # never disconnects

    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "query_string": query,
        "headers": list(headers),
    }
    response = CapturedResponse()
    await app(scope, replay(body, connected), response)
    return response
