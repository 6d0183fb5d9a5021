"""Deliver: pictures in the form that the client asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagegate.asgi import send_json, without_headers
from imagegate.delivery import Delivery, Form, count_change, wanted_form
from imagegate.errors import UpstreamError
from imagegate.events import PROGRESS_KEY, Progress
from imagegate.exchange import REPLY, ImageReply
from imagegate.layers.base import Layer
from imagegate.replies import read_document

# Extensions with which an application's bytes would pass by the layers above it.
_BYPASSES = ("http.response.pathsend", "http.response.zerocopysend")


class Deliver(Layer):
    """Turns base64 into links and links into base64, whichever the application below answers with.

    Args:
        delivery: stores pictures and fetches them.
        default: the form where a request names none; None: what OpenAI would do for the model.
        public_url: of the store, from the scope of a request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        delivery: Delivery,
        public_url: Callable[[Scope], str],
        default: Form | None = None,
        prefix: str = "/v1",
    ) -> None:
        super().__init__(app, prefix=prefix)
        self._delivery = delivery
        self._public_url = public_url
        self._default: Form | None = default

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = await self.exchange(scope, receive)
        if exchange.explain:
            await self.forward(scope, exchange, receive, send)
            return
        extensions = {name: value for name, value in (scope.get("extensions") or {}).items() if name not in _BYPASSES}
        held = _HeldReply()
        await self.forward({**scope, "extensions": {**extensions, REPLY: {}}}, exchange, receive, held)
        reply, origin = held.typed() or (None, "")
        if reply is None:
            await held.send_unchanged(send)
            return
        progress: Progress = scope[PROGRESS_KEY]
        form = wanted_form(exchange.request.fields.get("response_format"), exchange.public_model, self._default)
        started = time.perf_counter()
        try:
            reply = await self._delivery.deliver(
                reply, form, public_url=self._public_url(scope), trusted_origins=(origin,) if origin else ()
            )
        finally:
            progress.delivery_seconds = time.perf_counter() - started
        progress.form, progress.images_delivered = form, len(reply.images)
        progress.reply_changes = count_change(exchange.request.n, reply)
        await send_json(send, 200, reply.encode(), held.headers())


class _HeldReply:
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

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The application's own headers, but for those that described its bytes."""
        start = self._messages[0] if self._messages else {}
        return without_headers(
            start.get("headers", ()),
            b"content-length",
            b"content-type",
            b"content-encoding",
            b"etag",
            b"digest",
            b"content-md5",
            b"transfer-encoding",
        )

    async def send_unchanged(self, send: Send) -> None:
        for message in self._messages:
            await send(message)
