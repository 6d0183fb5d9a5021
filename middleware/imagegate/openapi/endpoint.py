"""``/openapi.json`` and ``/docs`` of a standalone gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi.helpers import route_path

PATH: Final = "/openapi.json"
PAGE_PATH: Final = "/docs"
_HEADERS: Final = (
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    (b"x-content-type-options", b"nosniff"),
)


class ServeDocument:
    """Answers ``GET /openapi.json`` and ``GET /docs`` in front of an application, which gets everything else.

    Args:
        document: returns the document; called with the first request for it.
    """

    def __init__(self, app: ASGIApp, document: Callable[[], dict[str, Any]]) -> None:
        self.app = app
        self._document = document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_ours = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        path = route_path(scope) if is_ours else ""
        if path not in (PATH, PAGE_PATH):
            await self.app(scope, receive, send)
            return
        shown = {**self._document(), "servers": [{"url": scope.get("root_path", "") or "/"}]}
        if path == PATH:
            kind, body = b"application/json", msgspec.json.encode(shown)
        else:
            from imagegate.openapi.page import page

            kind, body = b"text/html; charset=utf-8", page(shown, source=PATH.lstrip("/")).encode()
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *_HEADERS]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
