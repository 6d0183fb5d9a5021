"""Forwards a parsed request to an application that is not a layer."""

from __future__ import annotations

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi.helpers import replay, replay_chunks, send_json, without_headers
from imagegate.protocol.messages import Exchange, ImageRequest
from imagegate.protocol.request_encoding import FormBody, form_parts, json_body, needs_form
from imagegate.spool.body_chunks import form_chunks
from imagegate.telemetry.progress import PROGRESS_KEY, Progress
from imagegate.upstream.dispatch_hooks import SENDING, Sending


async def forward_bytes(app: ASGIApp, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> None:
    """Call an application with the request as a new body; with ``imagegate-explain``, show that request instead."""
    if exchange.explain:
        await send_json(send, 200, _explanation(scope, exchange))
        return
    for notify in scope.get(SENDING, ()):  # the application does not report when it sends
        await notify(Sending())
    await app(*_as_bytes(scope, exchange.request, receive), send)


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
