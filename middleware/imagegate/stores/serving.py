"""Serving stored pictures under ``/images/``."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from imagegate.asgi.helpers import route_path, send_error
from imagegate.errors import ImagegateError, StorageError
from imagegate.logger import get_logger
from imagegate.stores.base import ServedStore
from imagegate.stores.conditional import is_unchanged
from imagegate.stores.keys import is_key

IMAGES_PATH = "/images/"
_OF_304: Final = (
    "cache-control",
    "content-security-policy",
    "cross-origin-resource-policy",
    "etag",
    "last-modified",
    "x-content-type-options",
)


def picture_headers(key: str, ttl: float) -> dict[str, str]:
    """Return headers that prevent MIME sniffing and scripts (SVG can contain scripts).

    A key is never another picture's, so that it is the entity tag too.
    """
    return {
        "etag": f'"{key}"',
        "cache-control": f"private, max-age={int(min(ttl, 86400))}, immutable",
        "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "cross-origin-resource-policy": "cross-origin",
        "x-content-type-options": "nosniff",
    }


def is_signed_link(scope: Scope) -> bool:
    """Return whether a path has the shape of the gateway's links; other paths are the application's."""
    path = route_path(scope)
    return (
        scope["method"] in ("GET", "HEAD")
        and path.startswith(IMAGES_PATH)
        and is_key(path[len(IMAGES_PATH) :])
        and b"signature=" in scope.get("query_string", b"")
    )


class ServeImages:
    """Answers ``GET /images/KEY`` for links that the gateway has signed."""

    def __init__(self, store: ServedStore) -> None:
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._response(route_path(scope)[len(IMAGES_PATH) :], scope.get("query_string", b""))
        except ImagegateError as error:
            await send_error(send, error)
        else:
            known = response.headers
            if is_unchanged(Headers(scope=scope), etag=known["etag"], last_modified=known["last-modified"]):
                kept = {name: known[name] for name in _OF_304 if name in known}
                response = Response(status_code=304, headers=kept)
            await response(scope, receive, send)

    async def _response(self, key: str, query_string: bytes) -> Response:
        try:
            await self._store.prepare()
            if not self._store.holds(key, query_string):
                raise LinkRefused("The link is invalid or has expired.")
            response = await self._store.response(key)
        except OSError as error:
            get_logger().warning("store failed", reason=str(error))
            raise StorageError("The store cannot be used.") from error
        if response is None:
            raise NotStored("There is no such image.")
        return response


class LinkRefused(ImagegateError):
    """The link is not one that the gateway has signed, or has expired."""

    status = 403
    type = "invalid_request_error"
    code = "link_invalid"


class NotStored(ImagegateError):
    """The link was good, but the store does not have the image any more."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"
