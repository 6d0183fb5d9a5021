"""Read: parses and validates the body once for all layers below."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.access.permissions import check_sizes
from imagegate.access.principal import Principal
from imagegate.asgi.azure_paths import DEPLOYMENT
from imagegate.asgi.helpers import ClientDisconnected, announced_length, header, is_form
from imagegate.errors import RequestError, UnsupportedMedia
from imagegate.idempotency.keys import HEADER
from imagegate.ingest.form_reader import FormReading
from imagegate.ingest.request_reader import (
    DEFAULT_LIMITS,
    ReadLimits,
    exchange_of,
    read_exchange,
    release,
    request_of_form,
    reserve_for_form,
    wants_explanation,
)
from imagegate.ingest.streaming_form import NeedsBufferedForm, StreamingForm
from imagegate.layers.base import Layer
from imagegate.protocol.messages import Exchange, HeldMemory, ImageRequest
from imagegate.protocol.requests import read_form_fields
from imagegate.spool.budget import Budget, default_budget
from imagegate.spool.memory import Memory
from imagegate.spool.upload import UploadClosed
from imagegate.telemetry.progress import PROGRESS_KEY

_WATCHED_AFTER: Final = 0.05
"""Seconds of work after which the client's connection is watched."""
_LONGEST_PAUSE: Final = 1.0
"""Seconds between two looks at a connection whose `receive` does not wait for the client to leave."""
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
        self._may_stream = may_stream
        self._find_model = find_model

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if encodings := [value for name, value in scope["headers"] if name == b"content-encoding"]:
            _check_encoding(b", ".join(encodings))
        if (deployment := scope.get(DEPLOYMENT)) and (principal := scope[PROGRESS_KEY].principal) is not None:
            self._check_model(principal, deployment)
        if self._may_stream is not None and _is_large_form(scope) and not _waits_for_whole_form(scope):
            await self._handle_form(scope, receive, send)
            return
        exchange = await read_exchange(scope, receive, limits=self._limits, budget=self._budget, memory=self._memory)
        try:
            self._permit(scope, exchange.request.fields)
            if isinstance(self.app, Layer):
                await while_connected(self.forward(scope, exchange, receive, send), receive)
            else:
                await self.forward(scope, exchange, receive, send)  # the application reads `receive` itself
        finally:
            release(exchange.request)

    async def _handle_form(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the form in a background task; its files may be streamed upstream meanwhile."""
        held = reserve_for_form(self._memory, announced_length(scope))
        try:
            await self._read_form(scope, receive, send, held)
        finally:
            if held is not None:
                held.close()

    async def _read_form(self, scope: Scope, receive: Receive, send: Send, held: HeldMemory | None) -> None:
        content_type = header(scope, b"content-type") or b""
        reading = FormReading(content_type, limits=self._limits.form, budget=self._budget, held=held)
        reader = asyncio.create_task(reading.run(receive))
        try:
            while not reading.files and not reading.is_over:
                await reading.progress()
            live = None if reading.is_over else await self._live_exchange(scope, reading, held)
            if live is not None and await self._stay_live(scope, live, reader, receive, send):
                return
            form = await reader
            request = request_of_form(
                form,
                scope[PROGRESS_KEY].endpoint,
                max_prompt=self._limits.prompt,
                deployment=scope.get(DEPLOYMENT, ""),
            )
            self._permit(scope, request.fields)
            exchange = exchange_of(scope, request, held)
            await while_connected(self.forward(scope, exchange, receive, send), receive)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            reading.close()

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

    async def _live_exchange(self, scope: Scope, reading: FormReading, held: HeldMemory | None) -> Exchange | None:
        """Return the exchange with a streaming form; None where the whole form is needed."""
        operation = scope[PROGRESS_KEY].endpoint
        try:
            fields = read_form_fields(
                reading.fields, operation, max_prompt=self._limits.prompt, deployment=scope.get(DEPLOYMENT, "")
            )
        except RequestError:
            return None  # a field may still arrive; if not, the whole form is rejected
        self._permit(scope, fields)  # before the files are read
        files = StreamingForm(reading, announced_length(scope) or 0)
        request = ImageRequest(operation=operation, fields=fields, from_form=True, live=files)
        if fields.get("stream") or "async" in fields or self._may_stream is None or not self._may_stream(request):
            return None
        if not await files.has_known_length():
            return None
        return exchange_of(scope, request, held)

    async def _stay_live(
        self, scope: Scope, exchange: Exchange, reader: asyncio.Task[object], receive: Receive, send: Send
    ) -> bool:
        """Run the layers below while the form arrives; return False where they must run again with the whole form."""
        work = asyncio.create_task(self.forward(scope, exchange, receive, send))
        try:
            await asyncio.wait({work, reader}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await reader  # raises where the form is invalid
                await while_connected(asyncio.shield(work), receive)
            await work
        except (NeedsBufferedForm, UploadClosed):
            return False  # awaiting the form raises where it broke off
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        return True


def _check_encoding(encoding: bytes) -> None:
    """Raise `UnsupportedMedia` for a compressed body: its size is not known before it has grown."""
    shown = encoding.decode("latin-1").strip()
    if shown.lower() not in ("", "identity"):
        raise UnsupportedMedia(f"Content-Encoding '{shown[:64]}' is not supported. Send the body uncompressed.")


def _waits_for_whole_form(scope: Scope) -> bool:
    return wants_explanation(scope) or header(scope, HEADER) is not None


def _is_large_form(scope: Scope) -> bool:
    return is_form(scope) and (announced_length(scope) or 0) >= SMALLEST_LIVE_FORM


async def while_connected(work: Awaitable[None], receive: Receive, *, watched_after: float = _WATCHED_AFTER) -> None:
    """Await `work`, and cancel it when the client disconnects.

    Servers do not cancel handlers: after the body, the only ASGI message left is ``http.disconnect``.

    Args:
        work: to be awaited.
        receive: of the server.
        watched_after: seconds of work before the connection is watched; a watcher task is costly for short work.

            Raises:
        ClientDisconnected: the client disconnected before `work` was done.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task(loop)
    left = False
    watcher: asyncio.Task[None] | None = None

    async def watch() -> None:
        nonlocal left
        pause = _WATCHED_AFTER
        while (await receive())["type"] != "http.disconnect":
            await asyncio.sleep(pause)  # a `receive` that answers at once must not keep the loop
            pause = min(pause * 2, _LONGEST_PAUSE)
        left = True
        if task is not None:
            task.cancel()

    def start() -> None:
        nonlocal watcher
        watcher = asyncio.create_task(watch())

    timer = loop.call_later(watched_after, start)
    try:
        await work
    except asyncio.CancelledError:
        if left and task is not None:
            left = False
            if task.uncancel() == 0:  # no other cancellation is pending
                raise ClientDisconnected from None
        raise
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()
        if left and task is not None:  # `work` swallowed the cancellation, which must not hit what follows
            task.uncancel()
