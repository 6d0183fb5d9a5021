"""Images on demand: drawn in a worker thread when their bytes are needed, kept and linked for a while.

A link costs nothing until it is fetched: it remembers what to draw, not the bytes.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from imagegate.demo.pictures import draw_picture

_MOST_IMAGES: Final = 16
"""Of one request."""
CACHE_BYTES: Final = 64 * 1024 * 1024
"""Drawn pictures that are kept in memory, over all stand-ins of a process."""

KEPT_UPLOAD_BYTES: Final = 32 * 1024 * 1024
KEPT_LINKS: Final = 20_000
"""Uploads in bytes and links that one stand-in remembers; the oldest go first."""


@dataclass(frozen=True, slots=True)
class PictureOrder:
    """Everything that decides what a picture looks like, see `draw_picture`."""

    provider: str
    model: str
    prompt: str
    width: int
    height: int
    index: int = 0
    image_format: str = "png"
    transparent: bool = False
    note: str = ""


_VARIANTS: Final = 64
_numbers = itertools.count()


def first_index() -> int:
    """Return where the indexes of a request's pictures begin: models draw another picture each time they are asked."""
    return next(_numbers) % _VARIANTS * _MOST_IMAGES


class PictureCache:
    """Drawn pictures by order, the least recently used dropped first. Safe to share between event loops."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._pictures: OrderedDict[PictureOrder, bytes] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes in the cache."""
        return self._held

    def get(self, order: PictureOrder) -> bytes | None:
        """Return the picture, which thereby becomes the most recently used one, or None."""
        with self._lock:
            picture = self._pictures.get(order)
            if picture is not None:
                self._pictures.move_to_end(order)
            return picture

    def put(self, order: PictureOrder, picture: bytes) -> None:
        """Keep a picture, unless it alone is beyond the limit."""
        with self._lock:
            if order in self._pictures or len(picture) > self._limit:
                return
            self._pictures[order] = picture
            self._held += len(picture)
            while self._held > self._limit:
                _, dropped = self._pictures.popitem(last=False)
                self._held -= len(dropped)


CACHE: Final = PictureCache(CACHE_BYTES)


def _drawn(order: PictureOrder) -> bytes:
    picture = CACHE.get(order)
    if picture is None:
        picture = draw_picture(**asdict(order))
        CACHE.put(order, picture)
    return picture


def _drawn_base64(order: PictureOrder) -> str:
    return base64.b64encode(_drawn(order)).decode("ascii")


async def picture_base64(order: PictureOrder) -> str:
    """Return the picture as `b64_json` carries it."""
    return await asyncio.to_thread(_drawn_base64, order)


@dataclass(frozen=True, slots=True)
class _Upload:
    """A picture that a client uploaded, kept as it is."""

    data: bytes
    media_type: str


class Gallery:
    """The part of a stand-in that hands out picture links and serves them, like a provider's CDN.

    `folder` is the path below which links lie, `lifetime` the seconds until one expires, and `kept_upload_bytes` what
    clients' uploads may take; the oldest are forgotten first.
    """

    def __init__(self, folder: str, *, lifetime: float, kept_upload_bytes: int = KEPT_UPLOAD_BYTES) -> None:
        self.lifetime = lifetime
        self._kept_upload_bytes = kept_upload_bytes
        self.route = Route(f"{folder}/{{link:path}}", self._serve, methods=["GET"])
        self._folder = folder
        self._links: OrderedDict[str, tuple[PictureOrder | _Upload, float]] = OrderedDict()
        self._uploaded = 0

    def link(self, order: PictureOrder, *, kind: str = "generated") -> str:
        """Return a fresh path such as /cdn/images/generated/x7Qe.png; the picture is drawn once it is fetched."""
        extension = "jpg" if order.image_format == "jpeg" else order.image_format
        return self._remember(f"{kind}/{secrets.token_urlsafe(12)}.{extension}", order)

    def keep(self, data: bytes, media_type: str) -> str:
        """Return a fresh path for a picture that a client uploaded."""
        self._uploaded += len(data)
        path = self._remember(f"uploads/{secrets.token_urlsafe(12)}", _Upload(data, media_type))
        uploads = [path for path, (item, _) in self._links.items() if isinstance(item, _Upload)]
        while self._uploaded > self._kept_upload_bytes and len(uploads) > 1:
            self._forget(uploads.pop(0))
        return path

    def has(self, path: str) -> bool:
        """Return whether a link is known and has not expired."""
        return path in self._links and self._links[path][1] >= time.monotonic()

    def _remember(self, name: str, item: PictureOrder | _Upload) -> str:
        path = f"{self._folder}/{name}"
        self._links[path] = (item, time.monotonic() + self.lifetime)
        if len(self._links) > KEPT_LINKS:
            self._forget(next(iter(self._links)))
        return path

    def _forget(self, path: str) -> None:
        item, _ = self._links.pop(path)
        if isinstance(item, _Upload):
            self._uploaded -= len(item.data)

    async def _serve(self, request: Request) -> Response:
        path = request.url.path
        if not self.has(path):
            return PlainTextResponse("Not Found", 404)
        item, _ = self._links[path]
        if isinstance(item, _Upload):
            return Response(item.data, media_type=item.media_type)
        return Response(await asyncio.to_thread(_drawn, item), media_type=f"image/{item.image_format}")
