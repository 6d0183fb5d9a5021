"""The parts of a gateway that create tasks, run them, take them over and report their state."""

from __future__ import annotations

from dataclasses import dataclass

from imagegate.tasks.base import TaskStore
from imagegate.tasks.creation import TaskCreation
from imagegate.tasks.queries import TaskQueries
from imagegate.tasks.runner import TaskRunner
from imagegate.tasks.take_over import TakeOver
from imagegate.tasks.webhook_queue import WebhookQueue


@dataclass(frozen=True, kw_only=True)
class TaskManager:
    """The task services of one gateway, in one event loop."""

    store: TaskStore
    runner: TaskRunner
    creation: TaskCreation
    queries: TaskQueries
    take_over: TakeOver
    webhooks: WebhookQueue

    def start(self) -> None:
        """Start renewing leases and looking for abandoned tasks. Requires a running event loop."""
        self.take_over.start()

    async def aclose(self) -> None:
        """Stop, after the background tasks have ended, and release what is unfinished to other processes."""
        await self.take_over.aclose()
        await self.webhooks.aclose()
        await self.store.aclose()
