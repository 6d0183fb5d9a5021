"""Handles large forms, whose files may be streamed upstream while they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from imagegate.asgi.azure_paths import DEPLOYMENT
from imagegate.asgi.helpers import announced_length, header
from imagegate.asgi.in_flight import while_connected
from imagegate.errors import RequestError
from imagegate.ingest.form_reader import FormReading
from imagegate.ingest.request_reader import ReadLimits, exchange_of, request_of_form, reserve_for_form
from imagegate.ingest.streaming_form import NeedsBufferedForm, StreamingForm
from imagegate.layers.base import Work
from imagegate.protocol.messages import Exchange, HeldMemory, ImageRequest
from imagegate.protocol.requests import read_form_fields
from imagegate.spool.budget import Budget
from imagegate.spool.memory import Memory
from imagegate.spool.upload import UploadClosed
from imagegate.telemetry.progress import PROGRESS_KEY


class FormHandler:
    """Reads a form and forwards it.

    Args:
        forward: calls the layers below with the parsed request.
        limits: of the body.
        budget: room for uploads, shared by all requests.
        memory: limits what all requests hold in memory.
        permit: raises an error for fields that the principal of a request may not ask for.
        may_stream: returns whether the files of a request may be streamed upstream.
    """

    def __init__(
        self,
        forward: Callable[[Scope, Exchange, Receive, Send], Work],
        *,
        limits: ReadLimits,
        budget: Budget,
        memory: Memory,
        permit: Callable[[Scope, Mapping[str, Any]], None],
        may_stream: Callable[[ImageRequest], bool],
    ) -> None:
        self._forward = forward
        self._limits = limits
        self._budget = budget
        self._memory = memory
        self._permit = permit
        self._may_stream = may_stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the form in a background task, and handle the request: with its files, or while they arrive."""
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
            await while_connected(self._forward(scope, exchange, receive, send), receive)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            reading.close()

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
        if fields.get("stream") or "async" in fields or not self._may_stream(request):
            return None
        if not await files.has_known_length():
            return None
        return exchange_of(scope, request, held)

    async def _stay_live(
        self, scope: Scope, exchange: Exchange, reader: asyncio.Task[object], receive: Receive, send: Send
    ) -> bool:
        """Run the layers below while the form arrives; return False where they must run again with the whole form."""
        work = asyncio.create_task(self._forward(scope, exchange, receive, send))
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
