"""Ends of tasks on their way to those who want to be called."""

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


class Telling:
    """Tells ends in the background; what it has not told when it is closed is another process's to tell.

    Args:
        store: holds a task until its end was told.
    """

    def __init__(self, store: TaskStore, webhooks: Webhooks) -> None:
        self._store = store
        self._webhooks = webhooks
        self._telling: dict[str, tuple[TaskRecord, asyncio.Task[None]]] = {}

    def tell(self, record: TaskRecord) -> None:
        """Begins, where somebody wants to know and was not told."""
        if record.callback_url and not record.told and record.number not in self._telling:
            self._telling[record.number] = record, asyncio.create_task(self._tell(record))

    async def _tell(self, record: TaskRecord) -> None:
        try:
            body = msgspec.json.encode({"type": f"task.{public_state(record)}", "data": document(record)})
            await self._webhooks.tell(record.callback_url, f"msg_{record.number}", body)
            with suppress(StoreUnavailable):  # then it is told once more
                await self._store.finish(msgspec.structs.replace(record, told=True))
            self._telling.pop(record.number, None)
        except Exception:  # then it is abandoned, and told once more
            self._telling.pop(record.number, None)
            get_logger().exception("a webhook could not be sent", task=record.number)

    def held(self) -> Mapping[str, TaskRecord]:
        """What is being told, by number."""
        return {number: record for number, (record, _) in self._telling.items()}

    async def aclose(self) -> None:
        for record, telling in tuple(self._telling.values()):
            await stop(telling)
            with suppress(StoreUnavailable):
                await self._store.release(record)
        self._telling.clear()
