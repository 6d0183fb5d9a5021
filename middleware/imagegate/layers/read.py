"""Read: parses and validates the body once for all layers below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.access.permissions import check_sizes
from imagegate.access.principal import Principal
from imagegate.asgi.azure_paths import DEPLOYMENT
from imagegate.asgi.helpers import header
from imagegate.asgi.in_flight import while_connected
from imagegate.errors import UnsupportedMedia
from imagegate.idempotency.keys import HEADER
from imagegate.ingest.request_reader import (
    DEFAULT_LIMITS,
    ReadLimits,
    RequestHead,
    head_of,
    read_exchange,
    release,
)
from imagegate.layers.base import IMAGES, Layer
from imagegate.layers.read_form import FormHandler
from imagegate.protocol.messages import ImageRequest
from imagegate.spool.budget import Budget, default_budget
from imagegate.spool.memory import Memory
from imagegate.telemetry.progress import PROGRESS_KEY

SMALLEST_LIVE_FORM = 8 * 1024 * 1024
"""Bytes. A smaller form, or one of unknown length, is read and validated whole before anything is sent."""


class Read(Layer):
    """Puts the typed request into the scope, and cancels the layers below when the client disconnects.

    Args:
        limits: of bodies.
        budget: room for uploads, shared by all requests.
        memory: what all requests may hold in memory.
        may_stream: returns whether the files of a request may be streamed upstream; None: never.
        find_model: raises `ModelNotFound` for a public model that a principal may not ask for; None: all may be.
    """

    endpoints = IMAGES

    def __init__(
        self,
        app: ASGIApp,
        *,
        prefix: str = "/v1",
        limits: ReadLimits = DEFAULT_LIMITS,
        budget: Budget | None = None,
        memory: Memory | None = None,
        may_stream: Callable[[ImageRequest], bool] | None = None,
        find_model: Callable[[Principal, str], object] | None = None,
    ) -> None:
        super().__init__(app, prefix=prefix)
        self._limits = limits
        self._budget = budget or default_budget()
        self._memory = memory or Memory()
        self._find_model = find_model
        self._forms: FormHandler | None = None
        if may_stream is not None:
            self._forms = FormHandler(
                self.forward,
                limits=limits,
                budget=self._budget,
                memory=self._memory,
                permit=self._permit,
                may_stream=may_stream,
            )

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = head_of(scope)
        if head.encodings:
            _check_encoding(b", ".join(head.encodings))
        principal: Principal | None = scope[PROGRESS_KEY].principal
        if principal is not None and (deployment := scope.get(DEPLOYMENT)):
            self._check_model(principal, deployment)
        if self._forms is not None and (head.length or 0) >= SMALLEST_LIVE_FORM and _is_live_form(scope, head):
            await self._forms(scope, receive, send)
            return
        exchange = await read_exchange(
            scope, receive, head, limits=self._limits, budget=self._budget, memory=self._memory
        )
        try:
            if principal is not None and (principal.models or principal.sizes):
                self._permit(scope, exchange.request.fields)
            if isinstance(self.app, Layer):
                await while_connected(self.forward(scope, exchange, receive, send), receive)
            else:
                await self.forward(scope, exchange, receive, send)  # the application reads `receive` itself
        finally:
            release(exchange.request)

    def _permit(self, scope: Scope, fields: Mapping[str, Any]) -> None:
        """Raise `ModelNotFound` or `NotPermitted` for what the principal may not ask for."""
        principal: Principal | None = scope[PROGRESS_KEY].principal
        if principal is not None and (principal.models or principal.sizes):
            scope[PROGRESS_KEY].model = str(fields["model"])
            self._check_model(principal, fields["model"])
            check_sizes(principal, fields)

    def _check_model(self, principal: Principal, model: Any) -> None:
        if principal.models and self._find_model is not None:
            self._find_model(principal, model if isinstance(model, str) else "")


def _check_encoding(encoding: bytes) -> None:
    """Raise `UnsupportedMedia` for a compressed body: its size is not known before it has grown."""
    shown = encoding.decode("latin-1").strip()
    if shown.lower() not in ("", "identity"):
        raise UnsupportedMedia(f"Content-Encoding '{shown[:64]}' is not supported. Send the body uncompressed.")


def _is_live_form(scope: Scope, head: RequestHead) -> bool:
    """Return whether a body is a form that need not be known whole before anything is sent."""
    return head.is_form and not head.explain and header(scope, HEADER) is None
