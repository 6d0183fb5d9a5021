"""Tasks: ``async: true`` for every provider, and ``/v1/tasks/{id}``."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi.helpers import header, send_json
from imagegate.errors import RequestError
from imagegate.layers.base import Concern, ExchangeLayer, Layer, task_id_of
from imagegate.protocol.messages import Exchange
from imagegate.tasks.base import TaskNotFound
from imagegate.tasks.creation import TaskCreation
from imagegate.tasks.queries import TaskQueries
from imagegate.tasks.records import TaskRecord, document, public_state
from imagegate.tasks.runner import TaskRunner
from imagegate.telemetry.progress import PROGRESS_KEY, Progress


class Tasks(ExchangeLayer):
    """Answers requests with ``async: true`` with a task, and runs the layers below in the background.

    Args:
        creation: creates tasks.
        runner: runs them through the layers below.
    """

    concern = Concern(members=frozenset(("async", "callback_url")))

    def __init__(self, app: ASGIApp, *, creation: TaskCreation, runner: TaskRunner, prefix: str = "/v1") -> None:
        super().__init__(app, prefix=prefix)
        self._creation = creation
        runner.forward = self.forward

    async def handle_exchange(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> None:
        fields = exchange.request.fields
        wants_task = fields.get("async")
        if "callback_url" in fields and not wants_task:
            raise RequestError(
                "'callback_url' requires 'async': true.",
                param="callback_url",
                code="unsupported_parameter",
            )
        if not wants_task:
            await self.forward(scope, exchange, receive, send)
        elif exchange.explain:
            request = exchange.request.without("callback_url") if "callback_url" in fields else exchange.request
            await self.forward(scope, exchange.replace(request=request), receive, send)
        else:
            await self._creation.create(scope, exchange, send)


class TaskEndpoints(Layer):
    """Serves ``GET`` and ``DELETE /v1/tasks/{id}``.

    Args:
        queries: reads and cancels tasks.
        retry_after: value of ``Retry-After`` for unfinished tasks, in seconds.
    """

    endpoints = frozenset(("tasks",))

    def __init__(self, app: ASGIApp, *, queries: TaskQueries, retry_after: float, prefix: str = "/v1") -> None:
        super().__init__(app, prefix=prefix)
        self._queries = queries
        self._retry_after = str(max(1, round(retry_after))).encode()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        progress: Progress = scope[PROGRESS_KEY]
        text = task_id_of(scope, self.prefix) or ""
        authorization = (header(scope, b"authorization") or b"").decode("latin-1") or None
        await self._queries.prepare()
        found = self._queries.find(text, authorization, progress, now=time.time())
        if found is None:
            raise TaskNotFound
        if scope["method"] == "DELETE":
            record = await self._queries.cancel(found, scope)
        else:
            record = await self._queries.ask(found, scope)
        progress.task_state, progress.model = public_state(record), record.model
        await self._send(record, send)

    async def _send(self, record: TaskRecord, send: Send) -> None:
        headers: list[Any] = [(b"cache-control", b"no-store")]
        if not record.is_over:
            headers.append((b"retry-after", self._retry_after))
        await send_json(send, 200, msgspec.json.encode(document(record)), headers)
