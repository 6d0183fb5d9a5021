"""Delivers task-completion webhooks in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from imagegate.asgi.background import stop
from imagegate.logger import get_logger
from imagegate.stores.unavailable import StoreUnavailable
from imagegate.tasks.base import TaskStore
from imagegate.tasks.records import TaskRecord, document, public_state
from imagegate.tasks.webhooks import Webhooks
from imagegate.telemetry.hooks import Hooks


class WebhookQueue:
    """Send webhooks in the background; release those that are undelivered at shutdown to other processes.

    Args:
        store: keeps a finished task until its webhook has been delivered.
        webhooks: sends them.
        hooks: trace the deliveries.
    """

    def __init__(self, store: TaskStore, webhooks: Webhooks, hooks: Hooks) -> None:
        self._store = store
        self._webhooks = webhooks
        self._hooks = hooks
        self._pending: dict[str, tuple[TaskRecord, asyncio.Task[None]]] = {}

    def add(self, record: TaskRecord) -> None:
        """Start delivery for a finished task, unless it has no callback or its webhook is delivered or under way."""
        if record.callback_url and not record.told and record.number not in self._pending:
            self._pending[record.number] = record, asyncio.create_task(self._deliver(record))

    async def _deliver(self, record: TaskRecord) -> None:
        try:
            body = msgspec.json.encode({"type": f"task.{public_state(record)}", "data": document(record)})
            await self._send(record, body)
            with suppress(StoreUnavailable):  # it is delivered once more, then
                await self._store.finish(msgspec.structs.replace(record, told=True))
            self._pending.pop(record.number, None)
        except Exception:  # the task counts as abandoned, and its webhook is sent once more
            self._pending.pop(record.number, None)
            get_logger().exception("a webhook could not be sent", task=record.number)

    async def _send(self, record: TaskRecord, body: bytes) -> None:
        traced = self._hooks.webhook_started(record.traceparent)
        error: BaseException | None = None
        is_delivered = False
        try:
            # An end that turned out otherwise is another message.
            name = f"msg_{record.number}_{'unknown' if record.is_unknown else 'end'}"
            is_delivered = await self._webhooks.send(record.callback_url, name, body)
        except BaseException as failure:
            error = failure
            raise
        finally:
            if traced is not None:
                traced.ended(error, {"is_delivered": is_delivered})

    def pending(self) -> Mapping[str, TaskRecord]:
        """Return the tasks whose webhook is being delivered, by number."""
        return {number: record for number, (record, _) in self._pending.items()}

    async def aclose(self) -> None:
        """Stop every delivery and release its task."""
        for record, delivery in tuple(self._pending.values()):
            await stop(delivery)
            with suppress(StoreUnavailable):
                await self._store.release(record)
        self._pending.clear()
