"""What the stack below answers to a task's request, taken apart once it is complete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.types import Message

from imagegate.protocol.provider_errors import uncertain

_LONGEST: Final = 4 * 1024**2
"""Bytes: the answer holds links, no pictures."""


class Captured:
    """A `send` that holds an answer."""

    def __init__(self) -> None:
        self.status = 0
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if len(self._body) > _LONGEST:
                raise uncertain("The answer is larger than a task can keep.")

    def document(self) -> Mapping[str, Any]:
        """Raises `UpstreamUncertain` where the answer is none that a task can have."""
        try:
            document = msgspec.json.decode(self._body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise uncertain("The answer is no JSON document.")
        if "error" not in document and not _are_links(document.get("data")):
            raise uncertain("The answer carries no links to images.")
        return document


def _are_links(data: Any) -> bool:
    return (
        isinstance(data, list)
        and bool(data)
        and all(isinstance(item, dict) and isinstance(item.get("url"), str) and "b64_json" not in item for item in data)
    )
