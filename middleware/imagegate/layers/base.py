"""Base classes of the layers: ASGI middleware that recognizes the gateway's paths and shares the parsed request.

The outermost layer adds the gateway's headers to the response and turns errors into responses, whichever layer that is.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal, NamedTuple, get_args

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagegate.asgi.azure_paths import DEPLOYMENT
from imagegate.asgi.helpers import ClientDisconnected, header, route_path, send_error, send_json
from imagegate.asgi.in_flight import PERMIT
from imagegate.contracts.changes import header_value
from imagegate.contracts.contract import Operation
from imagegate.errors import ImagegateError, forget_frames
from imagegate.ingest.request_reader import read_exchange
from imagegate.layers.wrapped_app import forward_bytes
from imagegate.protocol.messages import REPLY, SCOPE_KEY, Exchange, ImageReply
from imagegate.spending.ledger import RESERVATION
from imagegate.telemetry.progress import PROGRESS_KEY, Progress
from imagegate.upstream.dispatch_hooks import SENDING, TASK

Work = Coroutine[Any, Any, None]
"""A coroutine that handles one request; must be awaited."""
Endpoint = Literal["generations", "edits", "variations", "models", "tasks", "usage"]
ENDPOINTS: Final[frozenset[Endpoint]] = frozenset(get_args(Endpoint))
IMAGES: Final[frozenset[Endpoint]] = frozenset(get_args(Operation))
"""Endpoints whose requests have a body, which asks for images."""

_OURS: Final = (PERMIT, PROGRESS_KEY, SCOPE_KEY, SENDING, TASK, RESERVATION, DEPLOYMENT)
"""Scope keys that are removed for applications that are not layers."""
_OPERATIONS: Final[Mapping[str, Operation]] = {
    "/images/generations": "generations",
    "/images/edits": "edits",
    "/images/variations": "variations",
}


def endpoint_of(scope: Scope, prefix: str) -> Endpoint | None:
    """Return the endpoint of a request, with or without a trailing slash; None: not one of the gateway's."""
    path = route_path(scope)
    if not path.startswith(prefix):
        return None
    rest = path[len(prefix) :]
    rest = rest[:-1] if rest.endswith("/") else rest
    if scope["method"] == "POST":
        return _OPERATIONS.get(rest)
    if scope["method"] == "GET" and (rest == "/models" or (rest.startswith("/models/") and rest != "/models/")):
        return "models"
    return "tasks" if scope["method"] in ("GET", "DELETE") and task_id_of(scope, prefix) is not None else None


def task_id_of(scope: Scope, prefix: str) -> str | None:
    """Return the id in a path such as ``/v1/tasks/ID``; None: it is another path."""
    rest = route_path(scope)[len(prefix) :]
    text = rest.removeprefix("/tasks/").removesuffix("/")
    return text if rest.startswith("/tasks/") and text and "/" not in text else None


class Concern(NamedTuple):
    """The parsed requests that a layer is called with: those that have at least one of these."""

    members: frozenset[str] = frozenset()
    """Members of the body."""
    header: bytes = b""
    """Name of a header field, in lower case."""
    references: bool = False
    """Images to start from."""


class Layer:
    """Base of the layers.

    The layers below the outermost raise `ImagegateError`.

    Args:
        app: the next layer, or any ASGI application.
        prefix: path prefix of the Images API.
    """

    endpoints: frozenset[Endpoint] = ENDPOINTS
    """Those that the layer serves; requests for others pass it by."""
    concern: Concern | None = None
    """Which parsed requests of them the layer is called with; None: all. The rest passes it by."""

    def __init__(self, app: ASGIApp, *, prefix: str = "/v1") -> None:
        self.app = app
        self.prefix = prefix
        below = app if isinstance(app, Layer) else None
        self._handlers_below: Mapping[Endpoint, Callable[[Scope, Receive, Send], Work]]
        self.forward: Callable[[Scope, Exchange, Receive, Send], Work]
        """Forward a parsed request: typed to a layer, as a new body to any other application."""
        if below is None:
            self._handlers_below = dict.fromkeys(ENDPOINTS, self._leave)
            self.forward = partial(forward_bytes, self._leave)
        else:
            self._handlers_below = {**below._handlers_below, **dict.fromkeys(below.endpoints, below.handle)}
            self.forward = below.handle_exchange if below.concern is None else below._handle_or_forward

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif PROGRESS_KEY in scope:
            await self._handle_or_pass(scope, receive, send)
        elif (endpoint := endpoint_of(scope, self.prefix)) is None or endpoint not in self.endpoints:
            await self.app(scope, receive, send)
        else:
            progress = Progress(endpoint)
            with suppress(ClientDisconnected):
                await answer_errors(
                    self.handle, {**scope, PROGRESS_KEY: progress}, receive, OutermostSend(send, progress)
                )

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Work:
        """Handle a request for one of the layer's endpoints; a layer may return the next layer's coroutine."""
        raise NotImplementedError

    def handle_exchange(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> Work:
        """Handle a request that a layer above has parsed."""
        scope[SCOPE_KEY] = exchange  # for an `ExchangeLayer` further down; the outermost layer made the scope
        return self._handle_or_pass(scope, receive, send)

    def down(self, scope: Scope, receive: Receive, send: Send) -> Work:
        """Forward an unparsed request to the next layer that has its endpoint.

        An application that is not a layer sees no scope keys of the gateway.
        """
        return self._handlers_below[scope[PROGRESS_KEY].endpoint](scope, receive, send)

    def _handle_or_pass(self, scope: Scope, receive: Receive, send: Send) -> Work:
        """Handle a request for one of the layer's endpoints; forward any other."""
        is_ours = scope[PROGRESS_KEY].endpoint in self.endpoints
        return (self.handle if is_ours else self.down)(scope, receive, send)

    def _handle_or_forward(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> Work:
        """Handle a parsed request that concerns the layer; forward any other."""
        concern, request = self.concern, exchange.request
        is_ours = (
            concern is None
            or not concern.members.isdisjoint(request.fields)
            or (concern.references and bool(request.images or request.live))
            or (concern.header != b"" and header(scope, concern.header) is not None)
        )
        return (self.handle_exchange if is_ours else self.forward)(scope, exchange, receive, send)

    async def _leave(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({name: value for name, value in scope.items() if name not in _OURS}, receive, send)


class ExchangeLayer(Layer):
    """Base of the layers that handle the parsed request; the first of them in a stack parses it."""

    endpoints = IMAGES

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Work:
        exchange: Exchange | None = scope.get(SCOPE_KEY)
        if exchange is None:
            return self._parse_and_handle(scope, receive, send)
        return self._handle_or_forward(scope, exchange, receive, send)

    async def _parse_and_handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._handle_or_forward(scope, await read_exchange(scope, receive), receive, send)

    def handle_exchange(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> Work:
        raise NotImplementedError


class OutermostSend:
    """The `send` of the outermost layer, which adds the gateway's headers to the response."""

    def __init__(self, send: Send, progress: Progress) -> None:
        self._send = send
        self._progress = progress
        self.status: int | None = None
        """Of the response, once it has started."""

    async def __call__(self, message: Message) -> None:
        """Send a message of the response."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = _headers(self._progress)
            names = {name for name, _ in own}
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]
            message = {**message, "headers": kept + own}
        self._progress.is_client_awaited = True
        await self._send(message)
        self._progress.is_client_awaited = False


def _headers(progress: Progress) -> list[tuple[bytes, bytes]]:
    headers: list[tuple[bytes, bytes]] = []
    if progress.request_id:
        headers.append((b"x-request-id", progress.request_id.encode()))
    if progress.upstream:
        headers.append((b"imagegate-upstream", progress.upstream.encode()))
    if not progress.contract:
        headers.append((b"imagegate-contract", b"none"))
    if progress.provenance:
        headers.append((b"imagegate-provenance", progress.provenance.encode()))
    headers += progress.limit_headers
    if changes := progress.changes:
        progress.changes_header = header_value(changes)
        headers.append((b"imagegate-changes", progress.changes_header.encode()))
    return headers


async def answer_errors(handle: ASGIApp, scope: Scope, receive: Receive, send: OutermostSend) -> None:
    """Run a layer and send its error as the response; after the response has started, raise it to the server."""
    progress: Progress = scope[PROGRESS_KEY]
    try:
        await handle(scope, receive, send)
    except ImagegateError as error:
        progress.failed(error)
        if progress.upstream:
            error.details.setdefault("upstream", progress.upstream)
        if send.status is not None:
            raise
        await send_error(send, error)
        forget_frames(error)


async def send_reply(scope: Scope, send: Send, reply: ImageReply, *, origin: str = "") -> None:
    """Send a reply to the layer above: typed, where that announced the extension, else as JSON.

    Args:
        scope: of the request.
        send: of the layer above.
        reply: to be sent.
        origin: the upstream's; links to it are trusted.
    """
    if REPLY in (scope.get("extensions") or {}):
        await send({"type": REPLY, "reply": reply, "origin": origin})
    else:
        await send_json(send, 200, reply.encode())
