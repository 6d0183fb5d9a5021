"""Deliver: pictures in the form that the client asked for."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi import send_json, without_headers
from imagegate.delivery import Delivery, Form, check_count, wanted_form
from imagegate.errors import UpstreamError
from imagegate.events import PROGRESS_KEY, Progress
from imagegate.exchange import REPLY, ImageReply
from imagegate.held import HeldReply
from imagegate.layers.base import Layer

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
        progress: Progress = scope[PROGRESS_KEY]
        form = wanted_form(exchange.request.fields.get("response_format"), exchange.public_model, self._default)
        self._delivery.prepare(form)
        held = HeldReply()
        try:
            await self.forward(_with_extension(scope), exchange, receive, held)
            reply, origin = held.typed() or (None, "")
            if reply is None:
                await held.send_unchanged(send)
                return
            progress.reply_changes = check_count(exchange.request.n, reply)
            reply = await self._deliver(reply, form, origin, scope)
        except UpstreamError as error:
            if error.made:
                await self._delivery.list_made(error, public_url=self._public_url(scope))
            raise
        progress.form, progress.images_delivered = form, len(reply.images)
        await send_json(send, 200, reply.encode(), held.headers())

    async def _deliver(self, reply: ImageReply, form: Form, origin: str, scope: Scope) -> ImageReply:
        progress: Progress = scope[PROGRESS_KEY]
        started = time.perf_counter()
        try:
            return await self._delivery.deliver(
                reply, form, public_url=self._public_url(scope), trusted_origins=(origin,) if origin else ()
            )
        finally:
            progress.delivery_seconds = time.perf_counter() - started


def _with_extension(scope: Scope) -> Scope:
    """Announces that replies are taken typed; what comes as bytes must come plain, and not past us."""
    extensions = {name: value for name, value in (scope.get("extensions") or {}).items() if name not in _BYPASSES}
    headers = without_headers(scope["headers"], b"accept-encoding")
    return {**scope, "headers": headers, "extensions": {**extensions, REPLY: {}}}
