"""Runs one task in this process, from its start to its result, which is stored and reported."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any, Final, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from imagegate.asgi.background import Background, is_cancelled
from imagegate.asgi.captured_response import CapturedResponse
from imagegate.asgi.helpers import receive_nothing
from imagegate.contracts.changes import Change
from imagegate.errors import ImagegateError
from imagegate.ingest.request_reader import release
from imagegate.logger import get_logger
from imagegate.protocol.messages import Exchange
from imagegate.protocol.provider_errors import uncertain
from imagegate.spending.ledger import RESERVATION, TaskReservation
from imagegate.stores.unavailable import StoreUnavailable
from imagegate.tasks.base import TaskStore
from imagegate.tasks.outcomes import internal, interrupted, not_begun, task_document
from imagegate.tasks.providers import ProviderTasks
from imagegate.tasks.records import TaskRecord, public_state
from imagegate.tasks.run import Run, TaskTaken, Work
from imagegate.tasks.webhook_queue import WebhookQueue
from imagegate.telemetry.hooks import Hooks
from imagegate.telemetry.progress import PROGRESS_KEY, Progress
from imagegate.upstream.dispatch_hooks import SENDING, TASK

Forward = Callable[[Scope, Exchange, Receive, Send], Awaitable[None]]

_LONGEST_RESPONSE: Final = 4 * 1024**2
"""Bytes: the response holds links, no pictures."""
_Answer = TypeVar("_Answer")
_PAUSE_TO_SAVE: Final = 0.5


class TaskRunner:
    """Run tasks behind the answers to their clients.

    Args:
        store: keeps tasks.
        providers: asks providers for theirs.
        webhooks: delivers their webhooks.
        background: runs the tasks.
        hooks: hear of their ends.
        settle: settles what a task has cost whose end this process knows, and another one may have begun; None: nothing
            is settled.
        runs: tasks at work, shared with a runner of the configuration before; None: none are.
    """

    def __init__(
        self,
        *,
        store: TaskStore,
        providers: ProviderTasks,
        webhooks: WebhookQueue,
        background: Background,
        hooks: Hooks,
        settle: Callable[[TaskRecord, Progress], Awaitable[None]] | None = None,
        runs: dict[str, Run] | None = None,
    ) -> None:
        self._store = store
        self._providers = providers
        self._webhooks = webhooks
        self._background = background
        self._hooks = hooks
        self._settle = settle
        self.runs: dict[str, Run] = {} if runs is None else runs
        """Tasks at work here, by number."""
        self.given_up: set[str] = set()
        """Numbers of tasks that are being discarded."""
        self.forward: Forward = _nothing_below
        """The stack below; set by the layer that makes tasks."""

    def start(self, run: Run, work: Work) -> None:
        """Begin to do a task."""
        self._start(run, self._do(run, work))

    def start_to_follow(self, run: Run, own_keys: Mapping[str, str]) -> None:
        """Begin to wait for a task that another process had sent and the provider had accepted.

        Args:
            own_keys: of the client, by upstream.
        """
        self._start(run, self._follow(run, own_keys))

    def give_up(self, record: TaskRecord) -> None:
        """Discard a task of which it is not known whether the store has kept it; its client has been told of none."""
        self._background.start(self._give_up(record))

    async def _give_up(self, record: TaskRecord) -> None:
        self.given_up.add(record.number)
        try:
            await self._discard(record)
            await asyncio.sleep(_PAUSE_TO_SAVE)
            await self._discard(record)  # on another connection, the first may have overtaken what was to be kept
        finally:
            self.given_up.discard(record.number)

    def _start(self, run: Run, work: Any) -> None:
        self.runs[run.record.number] = run
        run.task = self._background.start(work)

    async def _do(self, run: Run, work: Work) -> None:
        """Do the whole work of a task."""
        self._hooks.work_started(run.progress)
        try:
            try:
                ended = await self._outcome(run, self._made(run, work))
            finally:
                release(work.exchange.request)
            if ended is not None:
                await self._release_earlier(run)
            await self.end(run, ended)
        finally:
            self._hooks.work_left(run.progress)

    async def _release_earlier(self, run: Run) -> None:
        """Release what an earlier process had reserved for a task that was refused here before it was sent."""
        if run.record.takes and run.record.state == "queued" and self._settle is not None:
            await self._settle(run.record, run.progress)

    async def _follow(self, run: Run, own_keys: Mapping[str, str]) -> None:
        """Follow a task that another process had sent until it ends."""
        self._hooks.work_started(run.progress)
        try:
            ended = await self._outcome(run, self._followed(run, own_keys))
            if ended is None:
                await self.end(run, None)
            else:
                await self.end_other(run, ended)
        finally:
            self._hooks.work_left(run.progress)

    async def end_other(self, run: Run, ended: TaskRecord) -> None:
        """Store, report and settle the result of a task that another process had begun."""
        if self._settle is not None:
            await self._settle(ended, run.progress)
        await self.end(run, ended)

    async def _made(self, run: Run, work: Work) -> TaskRecord | None:
        captured = CapturedResponse(limit=_LONGEST_RESPONSE)
        scope = {**work.scope, PROGRESS_KEY: run.progress, SENDING: (run.sending,), TASK: run.accepted}
        scope[RESERVATION] = TaskReservation(run.record.number, is_again=run.record.takes > 0)
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

    async def _followed(self, run: Run, own_keys: Mapping[str, str]) -> TaskRecord:
        reply = await self._providers.wait(run.record, run.progress, own_keys)
        return run.record.completed(reply.images, reply.fields)

    async def _outcome(self, run: Run, work: Awaitable[TaskRecord | None]) -> TaskRecord | None:
        """Return the task as it ended; None: there is nothing to keep."""
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
                return None  # it was cancelled, or another process runs it
            if run.record.provider is not None and self._store.is_shared:
                return None
            return _failed(run, interrupted() if run.record.state == "sent" else not_begun())
        except Exception:
            get_logger().exception("unexpected error", task=run.record.number)
            return _failed(run, internal(sent=run.record.state == "sent"))

    async def end(self, run: Run, ended: TaskRecord | None) -> None:
        """Store and report the result of a task; None: there is none to store."""
        try:
            if ended is None:
                await self._leave(run)
                return
            run.record = ended
            run.be_answerable()  # it may be over before its client has been answered
            if await self._save(ended):
                self._report(run)
                self._webhooks.add(ended)
        finally:
            self.runs.pop(ended.number if ended is not None else run.record.number, None)
            run.be_answerable()

    async def _leave(self, run: Run) -> None:
        if run.early is not None or run.provider_id is not None or run.ended_by == "client":
            run.be_answerable()  # whatever the store takes
            await self._discard(run.record)
        elif not run.ended_by:
            with suppress(StoreUnavailable):  # the lease then does the same
                await self._store.release(run.record)

    async def _discard(self, record: TaskRecord) -> None:
        """Discard a task that nobody is to do, as often as it takes: what is kept would be done after its lease."""
        await _until_heard(partial(self._store.discard, record))

    async def _save(self, record: TaskRecord) -> bool:
        """Store the result; while the store is unavailable, retry, and answer clients of this process from memory."""
        kept = await _until_heard(partial(self._store.finish, record))
        if kept is None:
            get_logger().error("the end of a task could not be kept", task=record.number)
        return bool(kept)

    def _report(self, run: Run) -> None:
        seconds = perf_counter() - run.started
        state = public_state(run.record)
        run.progress.task_state = state
        run.progress.fit_changes = without_own(run.progress.fit_changes)
        self._hooks.task_changed(state, time.time() - run.record.created)
        status = 200 if state == "completed" else int((run.record.error or {}).get("imagegate", {}).get("status", 500))
        self._hooks.exchange_ended(run.progress, status=status, seconds=seconds)

    def own(self, number: str) -> TaskRecord | None:
        """Return a task that has ended here, and of which the store does not know yet."""
        run = self.runs.get(number)
        return run.record if run is not None and run.record.is_over else None

    async def cancelled_by_client(self, record: TaskRecord) -> None:
        """Stop what this process does for a task that the store has ended."""
        run = self.runs.get(record.number)
        if run is not None:
            run.end("cancelled")
        if (run is None or run.record.takes) and self._settle is not None:  # who has reserved for it may be dead
            await self._settle(record, Progress("tasks"))
        self._hooks.task_changed("failed", time.time() - record.created)
        if not self._store.is_shared:
            self._webhooks.add(record)


async def _until_heard(tell: Callable[[], Awaitable[_Answer]]) -> _Answer | None:
    """Repeat a call while the store is unavailable, and return its answer; None: the calling task was cancelled."""
    while True:
        try:
            return await tell()
        except StoreUnavailable:
            if is_cancelled():
                return None
            await asyncio.sleep(_PAUSE_TO_SAVE)


def _failed(run: Run, error: ImagegateError) -> TaskRecord:
    run.progress.failed(error)
    if run.progress.upstream:
        error.details.setdefault("upstream", run.progress.upstream)
    return run.record.failed(error)


def without_own(changes: Sequence[Change]) -> tuple[Change, ...]:
    """Leave out what the gateway itself makes true: that is no change to the client's request."""
    return tuple(change for change in changes if change.field not in ("async", "response_format"))


async def _nothing_below(scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> None:
    raise uncertain("There is no layer that makes tasks.")
