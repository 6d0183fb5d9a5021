"""Deliver: pictures in the form that the client asked for."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.answering import ClientAnswer
from imagegate.asgi import without_headers
from imagegate.delivering import Delivering
from imagegate.delivery import Delivery, Form, wanted_form
from imagegate.exchange import REPLY
from imagegate.layers.base import Layer

STREAM_HEARTBEAT = 15.0
# Extensions with which an application's bytes would pass by the layers above it.
_BYPASSES = ("http.response.pathsend", "http.response.zerocopysend")


class Deliver(Layer):
    """Turns base64 into links and links into base64, whichever the application below answers with.

    What is large passes through piece by piece: base64 into the store while the reply arrives, base64 that is wanted as
    such to the client as it comes, and streams event by event.

    Args:
        delivery: stores pictures and fetches them.
        default: the form where a request names none; None: what OpenAI would do for the model.
        public_url: of the store, from the scope of a request.
        heartbeat: seconds after which a waiting client is sent white space before its JSON; None: never. It costs the
            status: an error that comes later has status 200.
        stream_heartbeat: the same for streams, where it is a comment, and an error an event.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        delivery: Delivery,
        public_url: Callable[[Scope], str],
        default: Form | None = None,
        heartbeat: float | None = None,
        stream_heartbeat: float | None = STREAM_HEARTBEAT,
        prefix: str = "/v1",
    ) -> None:
        super().__init__(app, prefix=prefix)
        self._delivery = delivery
        self._public_url = public_url
        self._default: Form | None = default
        self._heartbeat = heartbeat
        self._stream_heartbeat = stream_heartbeat

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = await self.exchange(scope, receive)
        if exchange.explain:
            await self.forward(scope, exchange, receive, send)
            return
        fields = exchange.request.fields
        streamed = fields.get("stream") is True
        answer = ClientAnswer(
            send, streamed=streamed, heartbeat=self._stream_heartbeat if streamed else self._heartbeat
        )
        work = Delivering(
            self._delivery,
            answer,
            exchange,
            form=wanted_form(fields.get("response_format"), exchange.public_model, self._default),
            scope=scope,
            public_url=self._public_url(scope),
        )
        await work.run(lambda extension, below: self.forward(_announcing(scope, extension), exchange, receive, below))


def _announcing(scope: Scope, extension: dict[str, object]) -> Scope:
    """Announces that replies are taken typed; what comes as bytes must come plain, and not past us."""
    extensions = {name: value for name, value in (scope.get("extensions") or {}).items() if name not in _BYPASSES}
    headers = without_headers(scope["headers"], b"accept-encoding")
    return {**scope, "headers": headers, "extensions": {**extensions, REPLY: extension}}
