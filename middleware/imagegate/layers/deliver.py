"""Deliver: pictures in the form that the client asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec import structs
from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi.helpers import before_shutdown, header, without_headers
from imagegate.config.loader import read_delivery
from imagegate.config.schema import DeliveryConfig
from imagegate.delivery.converter import ImageConverter
from imagegate.delivery.images_endpoint import PictureService
from imagegate.delivery.response_format import ResponseFormat, default_form
from imagegate.delivery.session import DeliverySession
from imagegate.delivery.stream_session import StreamSession
from imagegate.http import HTTPClient
from imagegate.layers.base import ExchangeLayer, Layer
from imagegate.moderation.inspector import Inspector
from imagegate.protocol.messages import REPLY, Exchange
from imagegate.telemetry.progress import PROGRESS_KEY
from imagegate.upstream.dispatch_hooks import SENDING

DEFAULT_STORE = "file://./images"
STREAM_HEARTBEAT = 15.0
# Extensions with which an application's bytes would pass by the layers above it.
_BYPASSES = ("http.response.pathsend", "http.response.zerocopysend")


class Deliver(ExchangeLayer):
    """Converts base64 to links and links to base64, whichever the application below returns.

    Large replies are streamed: base64 into the store or on to the client while the reply arrives, and streams event by
    event.

    Alone in front of an application it needs only a store, and serves that store's links itself:
    ``app.add_middleware(Deliver, store="s3://bucket", public_url="https://cdn.example.com")``.

    Args:
        delivery: stores and fetches images; None: built from `store`, and closed with the application's lifespan.
        store: address of a store, or its configuration.
        default: response format where a request names none; None: OpenAI's default for the model.
        public_url: URL of the store, or a function of a request's scope; default: the URL of the request.
        heartbeat: interval in seconds of white space before the JSON; None: none. The status is 200 from the first one
            on, even if an error follows.
        stream_heartbeat: interval in seconds of comments in streams, where errors are events.
        inspector: sees images before they are delivered; None: images are not inspected.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        delivery: ImageConverter | None = None,
        store: str | DeliveryConfig = DEFAULT_STORE,
        public_url: str | Callable[[Scope], str] = "",
        default: ResponseFormat | None = None,
        heartbeat: float | None = None,
        stream_heartbeat: float | None = STREAM_HEARTBEAT,
        inspector: Inspector | None = None,
        prefix: str = "/v1",
    ) -> None:
        super().__init__(app, prefix=prefix)
        self._own: PictureService | None = None
        self._client: HTTPClient | None = None
        if delivery is None:
            self._client = HTTPClient()
            self._own = PictureService(_config(store, public_url), client=self._client)
            delivery = self._own.delivery
        self._delivery = delivery
        self._public_url = self._address(public_url)
        self._default: ResponseFormat | None = default
        self._heartbeat = heartbeat
        self._stream_heartbeat = stream_heartbeat
        self._inspector = inspector

    def _address(self, public_url: str | Callable[[Scope], str]) -> Callable[[Scope], str]:
        if not isinstance(public_url, str):
            return public_url
        return self._own.public_url if self._own is not None else lambda scope: public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._own is not None and scope["type"] == "lifespan":
            send = before_shutdown(send, self.aclose)
        elif self._own is not None and scope["type"] == "http" and self._own.serves(scope):
            await self._own.serve(scope, receive, send)
            return
        await super().__call__(scope, receive, send)

    async def aclose(self) -> None:
        """Close the resources that the layer created."""
        if self._own is not None:
            await self._own.aclose()
        if self._client is not None:
            await self._client.aclose()

    async def handle_exchange(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> None:
        if exchange.explain:
            await self.forward(scope, exchange, receive, send)
            return
        fields = exchange.request.fields
        streamed = fields.get("stream") is True
        form = fields.get("response_format")
        if form not in ("url", "b64_json"):
            agent = None if "response_format" in fields else header(scope, b"user-agent")
            form = default_form(exchange.public_model, self._default, streamed=streamed, user_agent=agent)
        session = (StreamSession if streamed else DeliverySession)(
            self._delivery,
            send,
            exchange,
            form=form,
            progress=scope[PROGRESS_KEY],
            public_url=partial(self._public_url, scope),
            heartbeat=self._stream_heartbeat if streamed else self._heartbeat,
            inspector=self._inspector,
        )
        await session.run(partial(self.forward, self._below(scope, session), exchange, receive, session))

    def _below(self, scope: Scope, session: DeliverySession) -> Scope:
        """Return a scope that announces the typed reply, without compression and extensions that would bypass us."""
        extensions = {**(scope.get("extensions") or {}), REPLY: session.extension}
        # First of all: what has no room is not even noted as sent.
        scope = {**scope, "extensions": extensions, SENDING: (session.secure, *scope.get(SENDING, ()))}
        if not isinstance(self.app, Layer):
            for name in _BYPASSES:
                extensions.pop(name, None)
            scope["headers"] = without_headers(scope["headers"], b"accept-encoding")
        return scope


def _config(store: str | DeliveryConfig, public_url: str | Callable[[Scope], str]) -> DeliveryConfig:
    config = DeliveryConfig(store=store) if isinstance(store, str) else store
    if isinstance(public_url, str) and public_url:
        config = structs.replace(config, public_url=public_url)
    return read_delivery(config)
