"""The least that a proxy in Python can do: bytes in, bytes out, nothing read; on aiohttp and on httpx."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import httpx
from starlette.types import Receive, Scope, Send

HOP_BY_HOP = {b"connection", b"host", b"keep-alive", b"transfer-encoding", b"content-encoding"}


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        yield message.get("body", b"")
        more = message.get("more_body", False)


class OnAiohttp:
    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0)
            timeout = aiohttp.ClientTimeout(total=300)
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, timeout=timeout
            )
        headers = [(n.decode(), v.decode()) for n, v in scope["headers"] if n not in HOP_BY_HOP]
        url = self._upstream + scope["path"]
        async with self._session.request(scope["method"], url, headers=headers, data=_pieces(receive)) as reply:
            kept = [(n.lower(), v) for n, v in reply.raw_headers if n.lower() not in HOP_BY_HOP]
            await send({"type": "http.response.start", "status": reply.status, "headers": kept})
            async for piece in reply.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class OnHttpx:
    def __init__(self, upstream: str) -> None:
        limits = httpx.Limits(max_connections=None)
        self._client = httpx.AsyncClient(base_url=upstream, limits=limits, timeout=300)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = [(n, v) for n, v in scope["headers"] if n not in HOP_BY_HOP]
        request = self._client.build_request(scope["method"], scope["path"], headers=headers, content=_pieces(receive))
        reply = await self._client.send(request, stream=True)
        try:
            kept = [(n.lower(), v) for n, v in reply.headers.raw if n.lower() not in HOP_BY_HOP]
            await send({"type": "http.response.start", "status": reply.status_code, "headers": kept})
            async for piece in reply.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await reply.aclose()
