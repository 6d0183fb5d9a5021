"""A reply from below, typed or as bytes, held until it is complete."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from starlette.types import Message

from imagegate.errors import UpstreamError
from imagegate.protocol.messages import REPLY, ImageReply
from imagegate.protocol.replies import read_document


class HeldReply:
    """Takes what the application below sends, typed or as bytes, and gives it back when it is complete."""

    def __init__(self) -> None:
        self._typed: tuple[ImageReply, str] | None = None
        self._messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == REPLY:
            self._typed = message["reply"], message.get("origin", "")
        else:
            self._messages.append(message)

    def typed(self) -> tuple[ImageReply, str] | None:
        """The reply and where links are trusted to lead; None where there are no pictures in it."""
        if self._typed is not None:
            return self._typed
        document = self._document()
        if document is None or "data" not in document:
            return None
        try:
            reply = read_document(document, now=int(time.time()))
        except UpstreamError:
            return None
        return (reply, "") if isinstance(reply, ImageReply) else None

    def _document(self) -> dict[str, Any] | None:
        start = self._messages[0] if self._messages else {}
        if start.get("type") != "http.response.start" or start["status"] != 200:
            return None
        kinds = [value for name, value in start.get("headers", ()) if name.lower() == b"content-type"]
        if not any(b"json" in kind for kind in kinds):
            return None
        body = b"".join(message.get("body", b"") for message in self._messages[1:])
        try:
            document = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return None
        return document if isinstance(document, dict) else None
