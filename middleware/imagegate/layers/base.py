"""Base classes of the layers: ASGI middleware that recognizes the gateway's paths and shares the parsed request."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi.azure_paths import DEPLOYMENT
from imagegate.asgi.helpers import ClientDisconnected, route_path, send_json
from imagegate.asgi.permits import PERMIT
from imagegate.contracts.contract import Operation
from imagegate.ingest.request_reader import read_exchange
from imagegate.layers.error_boundary import ClientChannel, answer_errors
from imagegate.layers.wrapped_app import forward_bytes
from imagegate.protocol.messages import REPLY, SCOPE_KEY, Exchange, ImageReply
from imagegate.spending.ledger import RESERVATION
from imagegate.telemetry.progress import PROGRESS_KEY, Progress
from imagegate.upstream.dispatch_hooks import SENDING, TASK

Work = Coroutine[Any, Any, None]
"""A coroutine that handles one request; must be awaited."""
Endpoint = Literal["generations", "edits", "variations", "models", "tasks", "usage"]

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


class Layer:
    """Base of the layers.

    The outermost layer of a request turns errors into responses and writes the gateway's headers, whichever layer that
    is; the layers below it raise `ImagegateError`.

    Args:
        app: the next layer, or any ASGI application.
        prefix: path prefix of the Images API.
    """

    def __init__(self, app: ASGIApp, *, prefix: str = "/v1") -> None:
        self.app = app
        self.prefix = prefix
        below = app if isinstance(app, Layer) else None
        self.down: Callable[[Scope, Receive, Send], Work] = below.handle if below else self._leave
        """Forward an unparsed request. An application that is not a layer sees no scope keys of the gateway."""
        self.forward: Callable[[Scope, Exchange, Receive, Send], Work] = (
            below.handle_exchange if below else partial(forward_bytes, self._leave)
        )
        """Forward a parsed request: typed to a layer, as a new body to any other application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif PROGRESS_KEY in scope:
            await self.handle(scope, receive, send)
        elif (endpoint := endpoint_of(scope, self.prefix)) is None:
            await self.app(scope, receive, send)
        else:
            progress = Progress(endpoint)
            with suppress(ClientDisconnected):
                client = ClientChannel(receive, send, progress)
                await answer_errors(self.handle, {**scope, PROGRESS_KEY: progress}, client)

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Work:
        """Handle a request for one of the gateway's endpoints; a layer may return the next layer's coroutine."""
        raise NotImplementedError

    def handle_exchange(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> Work:
        """Handle a request that a layer above has parsed."""
        scope[SCOPE_KEY] = exchange  # for an `ExchangeLayer` further down; the outermost layer made the scope
        return self.handle(scope, receive, send)

    async def _leave(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({name: value for name, value in scope.items() if name not in _OURS}, receive, send)


class ExchangeLayer(Layer):
    """Base of the layers that handle the parsed request; the first of them in a stack parses it."""

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Work:
        exchange: Exchange | None = scope.get(SCOPE_KEY)
        if exchange is None:
            return self._parse_and_handle(scope, receive, send)
        return self.handle_exchange(scope, exchange, receive, send)

    async def _parse_and_handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.handle_exchange(scope, await read_exchange(scope, receive), receive, send)

    def handle_exchange(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> Work:
        raise NotImplementedError


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
