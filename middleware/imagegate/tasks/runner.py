"""The desk where tasks are made, done, taken over, asked for and cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send

from imagegate.asgi.background import Background, is_cancelled, stop
from imagegate.asgi.captured_response import CapturedResponse
from imagegate.asgi.helpers import receive_nothing, send_json
from imagegate.contracts.changes import Change
from imagegate.errors import ImagegateError, Overloaded, RequestError, StorageError
from imagegate.ingest.request_reader import close_uploads
from imagegate.protocol.messages import Exchange
from imagegate.protocol.provider_errors import uncertain
from imagegate.spool.upload import Budget, Upload
from imagegate.stores.blobs import Blobs
from imagegate.stores.unavailable import StoreUnavailable
from imagegate.tasks.base import TaskStore
from imagegate.tasks.ids import TaskIds
from imagegate.tasks.outcomes import files_gone, internal, interrupted, not_begun, task_document
from imagegate.tasks.providers import ProviderTasks
from imagegate.tasks.records import TaskRecord, created_document, public_state
from imagegate.tasks.requests import exchange_of, keep_request, scope_of, without_body
from imagegate.tasks.run import Run, TaskTaken, Work
from imagegate.tasks.webhook_queue import Telling
from imagegate.tasks.webhooks import Webhooks
from imagegate.telemetry.hooks import Hooks
from imagegate.telemetry.logger import get_logger
from imagegate.telemetry.progress import PROGRESS_KEY, Progress
from imagegate.upstream.dispatch_hooks import SENDING, TASK, Sending

Forward = Callable[[Scope, Exchange, Receive, Send], Awaitable[None]]

_LONGEST_RESPONSE: Final = 4 * 1024**2
"""Bytes: the response holds links, no pictures."""
_SECONDS_TO_ANSWER: Final = 1.0
"""How long a client waits at most before it gets the id of a task that has not begun."""
_SECONDS_TO_SAVE: Final = 300.0
"""How long the end of a task is offered to a store that cannot be reached."""
_PAUSE_TO_SAVE: Final = 0.5
_MAX_TAKES: Final = 3
"""Processes that may take a task over: one that ends its process each time is not tried for ever."""


class TaskDesk:
    """Runs requests behind their answers.

    Args:
        store: keeps tasks.
        ids: names them.
        providers: asks providers for theirs.
        webhooks: tells their ends.
        blobs: keep requests for other processes.
        budget: room for the files of requests that are taken over.
        background: runs the tasks.
        hooks: hear of their ends.
        in_flight: tasks at a time in this process.
        lease: seconds; the store is told three times as often that this process lives.
        retry_after: seconds that clients are told to wait between two questions.
        needs_client_key: whether an upstream is asked with the client's own key, which is never kept, so that no other
            process can take over what was not sent.
        public_url: of the picture store, from the scope of a request.
    """

    def __init__(
        self,
        *,
        store: TaskStore,
        ids: TaskIds,
        providers: ProviderTasks,
        webhooks: Webhooks,
        blobs: Blobs,
        budget: Budget,
        background: Background,
        hooks: Hooks,
        in_flight: int,
        lease: float,
        retry_after: float,
        needs_client_key: bool,
        public_url: Callable[[Scope], str],
        prefix: str = "/v1",
    ) -> None:
        self.store = store
        self.ids = ids
        self.providers = providers
        self.retry_after = retry_after
        self._webhooks = webhooks
        self._telling = Telling(store, webhooks)
        self._blobs = blobs
        self._budget = budget
        self._background = background
        self._hooks = hooks
        self._in_flight = in_flight
        self._lease = lease
        self._needs_client_key = needs_client_key
        self._public_url = public_url
        self._prefix = prefix
        self._runs: dict[str, Run] = {}
        self._watch: asyncio.Task[None] | None = None
        self.forward: Forward = _nothing_below
        """The stack below; set by the layer that makes tasks."""

    # Making

    async def create(self, scope: Scope, exchange: Exchange, send: Send) -> None:
        """Answers 202 with the id of a task that does `exchange`, or with the error that shows before it is sent."""
        self.start()
        if len(self._runs) >= self._in_flight:
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
            await run.answerable(_SECONDS_TO_ANSWER)
        except BaseException:
            run.end("client")
            raise
        progress: Progress = scope[PROGRESS_KEY]
        _tell_facts(run.progress, progress)
        if run.early is not None or run.provider_id is not None:  # nobody else tells of what was sent
            progress.attempts, progress.calls = run.progress.attempts, run.progress.calls
        if run.early is not None:
            raise run.early
        progress.task_state = "pending"
        if run.provider_id is None:
            self._hooks.task_changed("pending", 0.0)
        await self._answer(scope, send, run)

    async def _begin(self, scope: Scope, exchange: Exchange, callback_url: str) -> Run:
        now = time.time()
        owner = self.ids.owner(exchange.authorization)
        task_id, number = self.ids.own(owner, now=now)
        record = TaskRecord(
            number=number,
            owner=owner.hex(),
            created=now,
            model=exchange.public_model,
            images=exchange.request.n,
            task_id=task_id,
            poll_url=self.poll_url(scope, task_id),
            public_url=self._public_url(scope),
            callback_url=callback_url,
        )
        if self.store.is_shared and not self._needs_client_key:
            try:
                kept = await keep_request(scope, exchange, self._blobs)
            except OSError as error:
                raise StorageError("The request of the task could not be kept; nothing was sent.") from error
            record = msgspec.structs.replace(record, request=kept)
        for tell in scope.get(SENDING, ()):  # once another process can take it over, it counts as sent
            await tell(Sending())
        await self.store.add(record)
        outer: Progress = scope[PROGRESS_KEY]
        run = Run(record, self.store, _progress_like(outer))
        run.is_public = False
        if not callback_url:
            run.hand_over = lambda upstream, task: self.providers.id_of(upstream, task, record, owner)
        for reference in exchange.request.references:
            if isinstance(reference, Upload):
                reference.retain()
        self._start(run, self._do(run, Work(without_body(scope), exchange)))
        return run

    def poll_url(self, scope: Scope, task_id: str) -> str:
        return f"{scope.get('root_path', '').rstrip('/')}{self._prefix}/tasks/{task_id}"

    async def _answer(self, scope: Scope, send: Send, run: Run) -> None:
        record = run.record
        if run.provider_id is not None:
            record = msgspec.structs.replace(
                record, task_id=run.provider_id, poll_url=self.poll_url(scope, run.provider_id)
            )
        headers = [
            (b"location", record.poll_url.encode()),
            (b"retry-after", str(max(1, round(self.retry_after))).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send_json(send, 202, msgspec.json.encode(created_document(record)), headers)

    # Doing

    def _start(self, run: Run, work: Any) -> None:
        self._runs[run.record.number] = run
        run.task = self._background.start(work)

    async def _do(self, run: Run, work: Work) -> None:
        """The whole life of a task in this process."""
        try:
            ended = await self._outcome(run, self._made(run, work))
        finally:
            close_uploads(work.exchange.request)
        await self._end(run, ended)

    async def _follow(self, run: Run) -> None:
        """The same for a task that another process had sent and the provider had accepted."""
        await self._end(run, await self._outcome(run, self._followed(run)))

    async def _made(self, run: Run, work: Work) -> TaskRecord | None:
        captured = CapturedResponse(limit=_LONGEST_RESPONSE)
        scope = {**work.scope, PROGRESS_KEY: run.progress, SENDING: (run.sending,), TASK: run.accepted}
        await self.forward(scope, work.exchange, receive_nothing, captured)
        if run.provider_id is not None:
            return None
        answer = task_document(captured)
        if "error" in answer:  # the answer had begun when it failed
            error = {**answer["error"], "imagegate": {"outcome": run.progress.outcome or "uncertain"}}
            return msgspec.structs.replace(run.record, state="failed", error=error, request=None)
        facts = {name: value for name, value in answer.items() if name not in ("data", "created")}
        return msgspec.structs.replace(
            run.record, state="completed", data=tuple(answer["data"]), facts=facts, request=None, progress=None
        )

    async def _followed(self, run: Run) -> TaskRecord:
        reply = await self.providers.wait(run.record, run.progress)
        return run.record.completed(reply.images, reply.fields)

    async def _outcome(self, run: Run, work: Awaitable[TaskRecord | None]) -> TaskRecord | None:
        """The task as it ended; None: there is nothing to keep."""
        try:
            return await work
        except TaskTaken:
            return None
        except ImagegateError as error:
            if not run.is_public:
                run.early = error
                return None
            return _failed(run, error)
        except asyncio.CancelledError:
            if run.ended_by or (run.record.request is not None and run.record.state == "queued"):
                return None  # nobody wants it, or another process does it
            if run.record.provider is not None and self.store.is_shared:
                return None
            return _failed(run, interrupted() if run.record.state == "sent" else not_begun())
        except Exception:
            get_logger().exception("unexpected error", task=run.record.number)
            return _failed(run, internal(sent=run.record.state == "sent"))

    async def _end(self, run: Run, ended: TaskRecord | None) -> None:
        try:
            if ended is None:
                await self._leave(run)
                return
            run.record = ended
            run.be_answerable()  # it may be over before its client has been answered
            if await self._save(ended):
                self._report(run)
                self._telling.tell(ended)
        finally:
            self._runs.pop(ended.number if ended is not None else run.record.number, None)
            run.be_answerable()

    async def _leave(self, run: Run) -> None:
        with suppress(StoreUnavailable):  # the lease then does the same
            if run.early is not None or run.provider_id is not None or run.ended_by == "client":
                await self.store.discard(run.record)
            elif not run.ended_by:
                await self.store.release(run.record)

    async def _save(self, record: TaskRecord) -> bool:
        """As long as the store cannot be reached, those who ask this process are still told of the end."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _SECONDS_TO_SAVE
        while True:
            try:
                return await self.store.finish(record)
            except StoreUnavailable:
                if loop.time() > until or is_cancelled():
                    get_logger().error("the end of a task could not be kept", task=record.number)
                    return False
                await asyncio.sleep(_PAUSE_TO_SAVE)

    def _report(self, run: Run) -> None:
        seconds = perf_counter() - run.started
        state = public_state(run.record)
        run.progress.task_state = state
        run.progress.fit_changes = _without_own(run.progress.fit_changes)
        self._hooks.task_changed(state, time.time() - run.record.created)
        status = 200 if state == "completed" else int((run.record.error or {}).get("imagegate", {}).get("status", 500))
        self._hooks.exchange_ended(run.progress, status=status, seconds=seconds)

    # Asking and cancelling

    def own(self, number: str) -> TaskRecord | None:
        """A task that has ended here, and of which the store does not know yet."""
        run = self._runs.get(number)
        return run.record if run is not None and run.record.is_over else None

    def cancelled_by_client(self, record: TaskRecord) -> None:
        """The store has ended a task; what this process does for it stops."""
        if run := self._runs.get(record.number):
            run.end("cancelled")
        self._hooks.task_changed("failed", time.time() - record.created)
        if not self.store.is_shared:
            self._telling.tell(record)

    # Life signs, and tasks of the dead

    def start(self) -> None:
        """Begins to look after tasks; to be called where an event loop runs."""
        if self.store.is_shared and (self._watch is None or self._watch.done()):
            self._watch = asyncio.create_task(self._look_after())

    async def _look_after(self) -> None:
        while True:
            with suppress(StoreUnavailable):  # it may come back
                await self._renew()
                for record in await self.store.abandoned():
                    await self._try_to_take_over(record)
            await asyncio.sleep(self._lease / 3)

    async def _try_to_take_over(self, record: TaskRecord) -> None:
        """One that cannot be must not keep the others back."""
        try:
            await self._take_over(record)
        except StoreUnavailable:
            raise
        except Exception:
            get_logger().exception("a task could not be taken over", task=record.number)

    async def _renew(self) -> None:
        held = {number: run.record for number, run in self._runs.items()}
        held |= self._telling.held()
        for number in await self.store.renew(list(held.values())):
            if number in self._runs:
                self._runs[number].end("lost")

    async def _take_over(self, record: TaskRecord) -> None:
        if record.number in self._runs:
            return  # this process seemed dead, to itself
        if record.is_over:
            self._telling.tell(record)
            return
        run = Run(record, self.store, Progress("generations", model=record.model))
        if record.state == "sent":
            if record.provider is not None and self.providers.can_ask(record.provider):
                self._start(run, self._follow(run))
            else:
                await self._end(run, record.failed(interrupted()))
        elif record.request is None or record.takes > _MAX_TAKES:
            await self._end(run, record.failed(not_begun()))
        else:
            kept = record.request
            run.progress.endpoint = kept.operation
            try:
                exchange = await exchange_of(kept, record.model, self._blobs, self._budget)
            except OSError:
                await self._end(run, record.failed(files_gone()))
                return
            except Overloaded:
                await self.store.release(record)
                return
            self._start(run, self._do(run, Work(scope_of(kept), exchange.replace(copies_links=True))))

    async def aclose(self) -> None:
        """To be called when nothing runs in the background any more. What is left is another process's to take."""
        if self._watch is not None:
            await stop(self._watch)
            self._watch = None
        await self._telling.aclose()
        await self.store.aclose()


def _failed(run: Run, error: ImagegateError) -> TaskRecord:
    run.progress.failed(error)
    if run.progress.upstream:
        error.details.setdefault("upstream", run.progress.upstream)
    return run.record.failed(error)


def _as_task(exchange: Exchange, fields: Mapping[str, Any]) -> Exchange:
    """The request as the layers below get it: it answers with links, to pictures in the store."""
    request = exchange.request.with_fields({**fields, "response_format": "url"})
    return exchange.replace(request=request, copies_links=True)


def _progress_like(outer: Progress) -> Progress:
    return Progress(
        outer.endpoint,
        request_id=outer.request_id,
        traceparent=outer.traceparent,
        key_name=outer.key_name,
        model=outer.model,
        images_asked=outer.images_asked,
        size_asked=outer.size_asked,
        in_background=True,
        capture=outer.capture,
    )


def _tell_facts(inner: Progress, outer: Progress) -> None:
    """What is known when the client is answered."""
    outer.upstream, outer.upstream_model, outer.contract = inner.upstream, inner.upstream_model, inner.contract
    outer.route_changes, outer.reference_changes = inner.route_changes, inner.reference_changes
    outer.fit_changes = _without_own(inner.fit_changes)


def _without_own(changes: Sequence[Change]) -> tuple[Change, ...]:
    """What the gateway itself makes true is no change to the client's request."""
    return tuple(change for change in changes if change.field not in ("async", "response_format"))


async def _nothing_below(scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> None:
    raise uncertain("There is no layer that makes tasks.")
