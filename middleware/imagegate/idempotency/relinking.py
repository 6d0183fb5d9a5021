"""Links of a recorded answer, as the client that reads it asked for them."""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.types import Message, Send

from imagegate.protocol.headers import read_length
from imagegate.telemetry.progress import Progress

_LARGEST: Final = 1024 * 1024
"""Bytes of a body with a length that is searched: more is base64."""


class Relinking:
    """A `send` that lets links to the gateway's store begin with the address that this client uses.

    An answer that several clients share was made for the first one, at the address that its ``Host`` named.

    Args:
        send: of the client.
        progress: of its request; says what the links of the answer begin with, once that has begun.
        base: what the client's own links begin with; empty: links take nothing from the request.
    """

    def __init__(self, send: Send, progress: Progress, base: str) -> None:
        self._send = send
        self._progress = progress
        self._base = base
        self._old = self._new = b""
        self._start: Message | None = None
        """Held until the length of the body is known."""
        self._held = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = self._begun(message)
            if self._start is None:
                await self._send(message)
        elif message["type"] == "http.response.body" and self._old:
            await self._send_body(message)
        else:
            await self._send(message)

    def _begun(self, start: Message) -> Message:
        recorded = self._progress.link_base
        if not self._base or not recorded or recorded == self._base:
            return start
        lengths = [read_length(value) for name, value in start["headers"] if name.lower() == b"content-length"]
        if not lengths or (lengths[0] is not None and lengths[0] <= _LARGEST):
            self._old, self._new = _in_json(recorded), _in_json(self._base)
            self._start = start if lengths else None
        return start

    async def _send_body(self, message: Message) -> None:
        body: bytes = self._held + message.get("body", b"")
        more: bool = message.get("more_body", False)
        if self._start is not None and more:
            self._held = body
            return
        body = body.replace(self._old, self._new)
        if self._start is not None:
            headers = [(name, value) for name, value in self._start["headers"] if name.lower() != b"content-length"]
            headers.append((b"content-length", str(len(body)).encode()))
            await self._send({**self._start, "headers": headers})
        keep = _begun_at_end(body, self._old) if more else 0
        self._held = body[len(body) - keep :]
        await self._send({**message, "body": body[: len(body) - keep]})


def _in_json(text: str) -> bytes:
    return msgspec.json.encode(text.rstrip("/") + "/")[1:-1]


def _begun_at_end(body: bytes, text: bytes) -> int:
    """Return how many bytes at the end of `body` may be the beginning of `text`."""
    return next((count for count in range(min(len(text) - 1, len(body)), 0, -1) if body.endswith(text[:count])), 0)
