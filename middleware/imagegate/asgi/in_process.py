"""Requests to an ASGI application in this process, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message

from imagegate.asgi.helpers import replay


class Answered(NamedTuple):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Taker:
    """A `send` that keeps the answer."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: Iterable[tuple[bytes, bytes]] = message.get("headers", ())
            self.status = message["status"]
            self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        else:
            self.pieces.append(message.get("body", b""))


async def ask(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    query: bytes = b"",
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: bytes = b"",
) -> Answered:
    """What `app` answers."""

    async def connected() -> Message:
        return await asyncio.Future()  # nobody leaves

    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "query_string": query,
        "headers": list(headers),
    }
    taker = _Taker()
    await app(scope, replay(body, connected), taker)
    return Answered(taker.status, taker.headers, b"".join(taker.pieces))
