"""A response of an application in this process, held until it is complete."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from starlette.types import Message

from imagegate.protocol.messages import REPLY, ImageReply
from imagegate.protocol.parsers.lenient_json import read_object
from imagegate.protocol.provider_errors import uncertain
from imagegate.protocol.replies import images_of


class CapturedResponse:
    """A `send` that collects the response, typed or as bytes.

    Args:
        limit: maximum bytes of the body; None: unlimited.
    """

    def __init__(self, *, limit: int | None = None) -> None:
        self.status = 500
        self.headers: dict[str, str] = {}
        """Names as the application wrote them."""
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._typed: tuple[ImageReply, str] | None = None

    async def __call__(self, message: Message) -> None:
        """Collect a message.

        Raises:
            UpstreamUncertain: the body is larger than `limit`.
        """
        if message["type"] == REPLY:
            self._typed = message["reply"], message.get("origin", "")
        elif message["type"] == "http.response.start":
            headers: Iterable[tuple[bytes, bytes]] = message.get("headers", ())
            self.status = message["status"]
            self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        elif message["type"] == "http.response.body":
            piece = message.get("body", b"")
            self._pieces.append(piece)
            self._size += len(piece)
            if self._limit is not None and self._size > self._limit:
                raise uncertain(f"The response is larger than {self._limit:,} bytes.")

    @property
    def body(self) -> bytes:
        return b"".join(self._pieces)

    def document(self) -> dict[str, Any] | None:
        """Return the body as a JSON object; None: it is not one."""
        return read_object(self.body)

    def reply(self) -> tuple[ImageReply, str] | None:
        """Return the reply and the origin whose links are trusted; None: the response carries no images."""
        if self._typed is not None:
            return self._typed
        is_json = any(name.lower() == "content-type" and "json" in value for name, value in self.headers.items())
        document = self.document() if self.status == 200 and is_json else None
        reply = images_of(document, now=int(time.time()))
        return None if reply is None else (reply, "")
