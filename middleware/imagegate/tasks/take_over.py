"""Tasks whose process has died: another one, which shares the store, takes them over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import msgspec

from imagegate.access.principal import Principal
from imagegate.asgi.background import repeat, stop
from imagegate.errors import Overloaded
from imagegate.logger import get_logger
from imagegate.spool.budget import Budget
from imagegate.stores.blobs import Blobs
from imagegate.stores.unavailable import StoreUnavailable
from imagegate.tasks.base import TaskStore
from imagegate.tasks.outcomes import files_gone, interrupted, not_begun
from imagegate.tasks.providers import NO_KEYS, ProviderTasks
from imagegate.tasks.records import TaskRecord
from imagegate.tasks.requests import exchange_of, scope_of
from imagegate.tasks.run import Run, Work
from imagegate.tasks.runner import TaskRunner
from imagegate.tasks.webhook_queue import WebhookQueue
from imagegate.telemetry.progress import Progress

_LOOK: Final = 1.0
"""Seconds between two looks whether the store has forgotten something."""
_MAX_TAKES: Final = 3
"""Processes that may take a task over: one that ends its process each time is not tried for ever."""


class TakeOver:
    """Renew the leases of this process, and continue tasks that other processes have abandoned.

    Args:
        runner: does them.
        store: knows which are abandoned.
        providers: can be asked for tasks that were sent.
        webhooks: delivers webhooks that are still due.
        blobs: keep the requests.
        budget: room for the files of requests that are taken over.
        lease: seconds, within which leases are renewed three times.
        known: returns the principal of that id as this process's configuration has it; None: it has none.
    """

    def __init__(
        self,
        runner: TaskRunner,
        *,
        store: TaskStore,
        providers: ProviderTasks,
        webhooks: WebhookQueue,
        blobs: Blobs,
        budget: Budget,
        lease: float,
        known: Callable[[str], Principal | None],
    ) -> None:
        self._runner = runner
        self._store = store
        self._providers = providers
        self._webhooks = webhooks
        self._blobs = blobs
        self._budget = budget
        self._lease = lease
        self._known = known
        self._due = 0.0
        """When the leases are to be renewed again, by the monotonic clock."""
        self._loops: tuple[asyncio.Task[None], ...] = ()

    def start(self) -> None:
        """Begin to look after tasks; to be called where an event loop runs."""
        if self._store.is_shared and all(loop.done() for loop in self._loops):
            # Apart, so that a slow take-over does not make this process seem dead.
            self._loops = tuple(
                asyncio.create_task(repeat(work, pause=pause, on_error=_log))
                for work, pause in (
                    (self._renew, min(self._lease / 3, _LOOK)),
                    (self._look_for_abandoned, self._lease / 3),
                )
            )

    async def _look_for_abandoned(self) -> None:
        with suppress(StoreUnavailable):  # it may come back
            for record in await self._store.abandoned():
                await self._try_to_take_over(record)

    async def _try_to_take_over(self, record: TaskRecord) -> None:
        """One that cannot be must not keep the others back."""
        try:
            await self._take_over(record)
        except StoreUnavailable:
            pass  # then it is abandoned once more
        except Exception:
            get_logger().exception("a task could not be taken over", task=record.number)

    async def _renew(self) -> None:
        held = {number: run.record for number, run in self._runner.runs.items()}
        held |= self._webhooks.pending()
        with suppress(StoreUnavailable):  # it may come back
            if time.monotonic() < self._due and not await self._store.has_forgotten():
                return
            self._due = 0.0
            for number in await self._store.renew(list(held.values())):
                if number in self._runner.runs:
                    self._runner.runs[number].end("lost")
            self._due = time.monotonic() + self._lease / 3

    async def _take_over(self, record: TaskRecord) -> None:
        if record.number in self._runner.runs or record.number in self._runner.given_up:
            return  # this process seemed dead, to itself
        if record.is_over:
            self._webhooks.add(record)
            return
        own_keys = self._own_keys_of(record)
        run = Run(record, self._store, self._progress_of(record, own_keys or NO_KEYS))
        if record.state == "sent":
            if (
                record.provider is not None
                and own_keys is not None
                and self._providers.can_ask(record.provider, own_keys=own_keys)
            ):
                self._runner.start_to_follow(run, own_keys)
            else:
                await self._runner.end_other(run, record.failed(interrupted()))
        elif record.request is None or own_keys is None or record.takes > _MAX_TAKES:
            await self._runner.end_other(run, record.failed(not_begun()))
        else:
            kept = record.request
            try:
                exchange = await exchange_of(kept, record.model, self._blobs, self._budget)
            except OSError:
                await self._runner.end_other(run, record.failed(files_gone()))
                return
            except Overloaded:
                await self._store.release(record)
                return
            self._runner.start(run, Work(scope_of(kept), exchange.replace(upstream_keys=own_keys)))

    def _progress_of(self, record: TaskRecord, own_keys: Mapping[str, str]) -> Progress:
        endpoint = record.request.operation if record.request is not None else "generations"
        progress = Progress(endpoint, model=record.model, traceparent=record.traceparent, in_background=True)
        if record.request is not None:
            record.request.client.tell(progress)
        if progress.principal is not None:  # what it may do now, where that is known
            principal = self._known(progress.principal.id) or progress.principal
            progress.principal = msgspec.structs.replace(principal, upstream_keys=own_keys)
        return progress

    def _own_keys_of(self, record: TaskRecord) -> Mapping[str, str] | None:
        """Return the principal's own keys for upstreams; None: it had some that this process does not know."""
        client = record.request.client if record.request is not None else None
        if client is None or client.principal is None or not client.own_keys:
            return NO_KEYS
        known = self._known(client.principal.id)
        keys = {} if known is None else known.upstream_keys
        return {name: keys[name] for name in client.own_keys} if keys.keys() >= set(client.own_keys) else None

    async def aclose(self) -> None:
        """Stop the maintenance of tasks."""
        await stop(*self._loops)
        self._loops = ()


def _log(error: Exception) -> None:
    get_logger().error("maintenance of tasks failed", exc_info=error)
