"""The tasks of a gateway: created, run, taken over, asked for and cancelled."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope, Send

from imagegate.asgi.background import Background
from imagegate.protocol.messages import Exchange
from imagegate.spool.budget import Budget
from imagegate.stores.blobs import Blobs
from imagegate.tasks.base import TaskStore
from imagegate.tasks.creation import TaskCreation
from imagegate.tasks.ids import TaskIds
from imagegate.tasks.providers import ProviderTasks
from imagegate.tasks.records import TaskRecord
from imagegate.tasks.runner import Forward, TaskRunner
from imagegate.tasks.take_over import TakeOver
from imagegate.tasks.webhook_queue import Telling
from imagegate.tasks.webhooks import Webhooks
from imagegate.telemetry.hooks import Hooks


class TaskManager:
    """Create tasks, run them and take over those of other processes.

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
        needs_client_key: whether every candidate for a model is asked with the client's own key, which is never kept,
            so that no other process can take over what was not sent.
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
        needs_client_key: Callable[[str], bool],
        public_url: Callable[[Scope], str],
        prefix: str = "/v1",
    ) -> None:
        self.store = store
        self.ids = ids
        self.providers = providers
        self._telling = Telling(store, webhooks)
        self.runner = TaskRunner(
            store=store, providers=providers, telling=self._telling, background=background, hooks=hooks
        )
        self._creation = TaskCreation(
            self.runner,
            store=store,
            ids=ids,
            providers=providers,
            webhooks=webhooks,
            blobs=blobs,
            hooks=hooks,
            in_flight=in_flight,
            retry_after=retry_after,
            needs_client_key=needs_client_key,
            public_url=public_url,
            prefix=prefix,
        )
        self.take_over = TakeOver(
            self.runner,
            store=store,
            providers=providers,
            telling=self._telling,
            blobs=blobs,
            budget=budget,
            lease=lease,
        )

    @property
    def forward(self) -> Forward:
        """The stack below; set by the layer that makes tasks."""
        return self.runner.forward

    @forward.setter
    def forward(self, forward: Forward) -> None:
        self.runner.forward = forward

    async def create(self, scope: Scope, exchange: Exchange, send: Send) -> None:
        """Answer 202 with the id of a task that does `exchange`, or with the error that shows before it is sent."""
        await self._creation.create(scope, exchange, send)

    def poll_url(self, scope: Scope, task_id: str) -> str:
        """The path where a task is asked for."""
        return self._creation.poll_url(scope, task_id)

    def own(self, number: str) -> TaskRecord | None:
        """A task that has ended here, and of which the store does not know yet."""
        return self.runner.own(number)

    def cancelled_by_client(self, record: TaskRecord) -> None:
        """The store has ended a task; what this process does for it stops."""
        self.runner.cancelled_by_client(record)

    def start(self) -> None:
        """Begin to look after tasks; to be called where an event loop runs."""
        self.take_over.start()

    async def aclose(self) -> None:
        """To be called when nothing runs in the background any more. What is left is another process's to take."""
        await self.take_over.aclose()
        await self._telling.aclose()
        await self.store.aclose()
