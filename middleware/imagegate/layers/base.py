"""Base class of the layers: an ASGI middleware that knows its paths and shares the parsed request."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final, Literal

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi.azure_paths import DEPLOYMENT
from imagegate.asgi.helpers import ClientDisconnected, replay, replay_chunks, route_path, send_json, without_headers
from imagegate.asgi.permits import PERMIT
from imagegate.contracts.contract import Operation
from imagegate.ingest.request_reader import read_exchange
from imagegate.layers.error_boundary import Answer, answer_errors
from imagegate.protocol.messages import REPLY, SCOPE_KEY, Exchange, ImageReply, ImageRequest
from imagegate.protocol.request_encoding import FormBody, form_parts, json_body, needs_form
from imagegate.spool.body_chunks import form_chunks
from imagegate.telemetry.progress import PROGRESS_KEY, Progress
from imagegate.upstream.dispatch_hooks import RESERVATION, SENDING, TASK, Sending

Work = Coroutine[Any, Any, None]
"""A coroutine that handles one request; must be awaited."""
Endpoint = Literal["generations", "edits", "variations", "models", "tasks"]

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
        self._layer_below = app.handle if isinstance(app, Layer) else None
        self.pass_exchange: Callable[[Scope, Receive, Send], Work] = self._layer_below or self._pass_exchange
        """Forward the request that is in the scope already, as `forward` does with another one."""
        self.down: Callable[[Scope, Receive, Send], Work] = self._layer_below or self._leave
        """Forward the request unchanged. An application that is not a layer sees no scope keys of the gateway."""

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
                await answer_errors(self.handle, {**scope, PROGRESS_KEY: progress}, receive, Answer(send, progress))

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Work:
        """Handle a request for one of the gateway's endpoints; a layer may return the next layer's coroutine."""
        raise NotImplementedError

    async def exchange(self, scope: Scope, receive: Receive) -> Exchange:
        """Return the parsed request; reads it where no layer above has done so."""
        exchange: Exchange | None = scope.get(SCOPE_KEY)
        return exchange or await read_exchange(scope, receive)

    async def _leave(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({name: value for name, value in scope.items() if name not in _OURS}, receive, send)

    def _pass_exchange(self, scope: Scope, receive: Receive, send: Send) -> Work:
        return self._forward_bytes(scope, scope[SCOPE_KEY], receive, send)

    def forward(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> Work:
        """Forward the request: typed to a layer, as a new body to any other application."""
        if self._layer_below is not None:
            scope[SCOPE_KEY] = exchange  # the scope is a copy that the outermost layer made
            return self._layer_below(scope, receive, send)
        return self._forward_bytes(scope, exchange, receive, send)

    async def _forward_bytes(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> None:
        if exchange.explain:
            await send_json(send, 200, _explanation(scope, exchange))
        else:
            for notify in scope.get(SENDING, ()):  # the application below does not report when it sends
                await notify(Sending())
            await self.down(*_as_bytes(scope, exchange.request, receive), send)


def _explanation(scope: Scope, exchange: Exchange) -> bytes:
    """Return the request that the application below would get, without sending it."""
    progress: Progress = scope[PROGRESS_KEY]
    shown = {
        "upstream": None,
        "method": scope["method"],
        "url": scope["path"],
        "headers": {},
        "body": exchange.request.fields,
        "changes": progress.changes,
    }
    return msgspec.json.encode(shown)


def _as_bytes(scope: Scope, request: ImageRequest, receive: Receive) -> tuple[Scope, Receive]:
    """Return the request for an application that is not a layer: a form where there are files, else JSON."""
    if needs_form(request):
        form = FormBody(form_parts(request), request.live)
        content_type, length = form.content_type, form.length
        receive = replay_chunks(form_chunks(form), receive)
    else:
        body = json_body(request)
        content_type, length = "application/json", len(body)
        receive = replay(body, receive)
    headers = without_headers(scope["headers"], b"content-length", b"content-type", b"transfer-encoding")
    headers.append((b"content-type", content_type.encode()))
    headers.append((b"content-length", str(length).encode()))
    return {**scope, "headers": headers}, receive


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
