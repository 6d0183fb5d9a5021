"""Creates tasks: checks a request, keeps it for other processes, starts it, and answers 202."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.types import Scope, Send

from imagegate.access.principal import Principal
from imagegate.asgi.helpers import send_json
from imagegate.errors import Overloaded, RequestError, StorageError
from imagegate.ingest.request_reader import retain
from imagegate.protocol.messages import Exchange
from imagegate.stores.blobs import Blobs
from imagegate.tasks.context import TaskContext
from imagegate.tasks.records import TaskRecord, created_document, poll_url
from imagegate.tasks.requests import keep_request, without_body
from imagegate.tasks.run import Run, Work
from imagegate.tasks.runner import without_own
from imagegate.tasks.webhooks import Webhooks
from imagegate.telemetry.hooks import Hooks
from imagegate.telemetry.progress import PROGRESS_KEY, Progress
from imagegate.upstream.dispatch_hooks import SENDING, Sending


class TaskCreation:
    """Create tasks for requests with ``async: true``.

    Args:
        context: shared with `TaskQueries`.
        webhooks: checks callback URLs.
        blobs: keeps requests for other processes.
        hooks: are notified of new tasks.
        in_flight: most tasks at a time in this process.
        needs_client_key: returns whether every candidate for a model needs the client's own key, which is never kept:
            no other process can then take over a task that was not sent.
        has_budget: returns whether money is limited for a principal. Its tasks stay the gateway's own, which settles
            them.
        knows_keys: returns whether every process knows a principal's own keys for upstreams, which are never kept.
    """

    answer_within: float = 1.0
    """Seconds that a client waits at most before it gets the id of a task that has not begun."""

    def __init__(
        self,
        context: TaskContext,
        *,
        webhooks: Webhooks,
        blobs: Blobs,
        hooks: Hooks,
        in_flight: int,
        needs_client_key: Callable[[str], bool],
        has_budget: Callable[[Principal | None], bool],
        knows_keys: Callable[[Principal | None], bool],
    ) -> None:
        self._context = context
        self._webhooks = webhooks
        self._blobs = blobs
        self._hooks = hooks
        self._in_flight = in_flight
        self._needs_client_key = needs_client_key
        self._has_budget = has_budget
        self._knows_keys = knows_keys

    async def create(self, scope: Scope, exchange: Exchange, send: Send) -> None:
        """Answer 202 with the id of a task that does `exchange`, or with the error that shows before it is sent."""
        if len(self._context.runner.runs) >= self._in_flight:
            raise Overloaded(
                "The gateway has as many tasks at work as it may. Try again in a moment.",
                headers=[(b"retry-after", b"5")],
            )
        fields = dict(exchange.request.fields)
        callback_url = fields.pop("callback_url", None)
        if callback_url is not None:
            callback_url = await self._webhooks.check(callback_url)
        if fields.get("stream"):
            raise RequestError("A task cannot be streamed.", param="stream", code="unsupported_parameter")
        exchange = _as_task(exchange, fields)
        run = await self._begin(scope, exchange, callback_url or "")
        try:
            await run.answerable(self.answer_within)
        except BaseException:
            run.end("client")
            raise
        progress: Progress = scope[PROGRESS_KEY]
        _copy_facts(run.progress, progress)
        if run.early is not None or run.provider_id is not None:  # no other record has what was sent
            progress.attempts, progress.calls = run.progress.attempts, run.progress.calls
        if run.early is not None:
            raise run.early
        progress.task_state = "pending"
        if run.provider_id is None:
            self._hooks.task_changed("pending", 0.0)
        await self._answer(scope, send, run)

    async def _begin(self, scope: Scope, exchange: Exchange, callback_url: str) -> Run:
        await self._context.ids.prepare()
        now = time.time()
        owner = self._context.ids.owner(exchange.identity)
        task_id, number = self._context.ids.own(owner, now=now)
        record = TaskRecord(
            number=number,
            owner=owner.hex(),
            created=now,
            model=exchange.public_model,
            images=exchange.request.n,
            task_id=task_id,
            poll_url=poll_url(scope, self._context.prefix, task_id),
            public_url=self._context.public_url(scope),
            callback_url=callback_url,
            traceparent=scope[PROGRESS_KEY].traceparent,
        )
        outer: Progress = scope[PROGRESS_KEY]
        unknown_keys = frozenset() if self._knows_keys(outer.principal) else frozenset(exchange.upstream_keys)
        needs_client = bool(unknown_keys) or self._needs_client_key(exchange.public_model)
        if self._context.store.is_shared and not needs_client:
            try:
                kept = await keep_request(scope, exchange, self._blobs)
            except OSError as error:
                raise StorageError("The request of the task could not be kept; nothing was sent.") from error
            record = msgspec.structs.replace(record, request=kept)
        for notify in scope.get(SENDING, ()):  # once another process can take it over, it counts as sent
            await notify(Sending())
        try:
            await self._context.store.add(record)
        except BaseException:
            self._context.runner.give_up(record)
            raise
        run = Run(record, self._context.store, _progress_like(outer))
        run.is_public = False
        run.unknown_keys = unknown_keys
        if not callback_url and not self._has_budget(outer.principal):
            run.hand_over = lambda upstream, task: self._context.providers.id_of(upstream, task, record, owner)
        retain(exchange.request)
        self._context.runner.start(run, Work(without_body(scope), exchange))
        return run

    async def _answer(self, scope: Scope, send: Send, run: Run) -> None:
        record = run.record
        if run.provider_id is not None:
            record = msgspec.structs.replace(
                record, task_id=run.provider_id, poll_url=poll_url(scope, self._context.prefix, run.provider_id)
            )
        headers = [
            (b"location", record.poll_url.encode()),
            (b"retry-after", str(max(1, round(self._context.retry_after))).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send_json(send, 202, msgspec.json.encode(created_document(record)), headers)


def _as_task(exchange: Exchange, fields: Mapping[str, Any]) -> Exchange:
    """Return the request as the layers below get it: it answers with links, to pictures in the store."""
    request = exchange.request.with_fields({**fields, "response_format": "url"})
    return exchange.replace(request=request, copies_links=True)


def _progress_like(outer: Progress) -> Progress:
    return Progress(
        outer.endpoint,
        request_id=outer.request_id,
        traceparent=outer.traceparent,
        tracestate=outer.tracestate,
        key_name=outer.key_name,
        user=outer.user,
        owner=outer.owner,
        principal=outer.principal,
        principal_id=outer.principal_id,
        tenant=outer.tenant,
        metadata=outer.metadata,
        model=outer.model,
        images_asked=outer.images_asked,
        size_asked=outer.size_asked,
        in_background=True,
        capture=outer.capture,
    )


def _copy_facts(inner: Progress, outer: Progress) -> None:
    """Copy what is known when the client is answered."""
    outer.upstream, outer.upstream_model, outer.contract = inner.upstream, inner.upstream_model, inner.contract
    outer.route_changes, outer.reference_changes = inner.route_changes, inner.reference_changes
    outer.fit_changes = without_own(inner.fit_changes)
