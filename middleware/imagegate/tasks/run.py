"""One task at work in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any, Final

import msgspec
from starlette.types import Scope

from imagegate.errors import ImagegateError
from imagegate.protocol.messages import Exchange
from imagegate.protocol.reply_tasks import PendingTask
from imagegate.stores.unavailable import StoreUnavailable
from imagegate.tasks.base import TaskStore
from imagegate.tasks.records import ProviderTask, TaskRecord
from imagegate.telemetry.progress import Progress
from imagegate.upstream.dispatch_hooks import Sending

_SHORT: Final = 64
_PRIVATE: Final = ("prompt", "negative_prompt", "user", "safety_identifier")


class Run:
    """What is known of a task while it is at work."""

    def __init__(self, record: TaskRecord, store: TaskStore, progress: Progress) -> None:
        self.record = record
        self.progress = progress
        self.started = perf_counter()
        self.task: asyncio.Task[Any] | None = None
        self.ended_by = ""
        """Why it was cancelled: ``client``, ``cancelled`` or ``lost``; empty: the gateway is about to end."""
        self.is_public = True
        """Whether the client knows the task's id; as long as it does not, errors are its answer."""
        self.early: ImagegateError | None = None
        self.provider_id: str | None = None
        """The id under which the client will ask for the provider's task itself."""
        self.hand_over: Callable[[str, PendingTask], str | None] | None = None
        """Makes the id of a provider's task; None: the task stays the gateway's own."""
        self.unknown_keys: frozenset[str] = frozenset()
        """Upstreams that are asked with a key that no other process knows, so that none can ask for its task."""
        self._store = store
        self._answerable = asyncio.Event()

    def end(self, why: str) -> None:
        """Cancel the task that does the work."""
        if not self.ended_by and self.task is not None:
            self.ended_by = why
            self.task.cancel()

    async def answerable(self, within: float) -> None:
        """Return when the client can be answered: the work is on its way, or has ended before it began.

        Args:
            within: seconds, after which an answer is due anyway. A provider that has not named its task by then works
                on one of the gateway's own.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._answerable.wait()
        if self.early is None and self.provider_id is None:
            self.is_public = True

    def be_answerable(self) -> None:
        self._answerable.set()

    async def sending(self, sending: Sending) -> None:
        """Before a POST goes out: from now on no other process may send it.

        Raises:
            StoreUnavailable: it cannot be kept that it was sent, so it is not.
            TaskTaken: it is another process's, or was cancelled.
        """
        if not await self._store.mark_sent(self.record):
            raise TaskTaken
        self.record = self.record.with_state("sent")
        if self.is_public or not sending.expects_task:
            self.is_public = True
            self.be_answerable()

    async def accepted(self, upstream: str, images: int, task: PendingTask, *, keep: bool = False) -> bool:
        """Take note of the provider's task, for which the client may then ask through any process.

        Args:
            keep: the client asks for the gateway's own task all the same, because its images are converted here.
        """
        if not keep and not self.is_public and self.hand_over is not None and images == self.record.images:
            self.provider_id = self.hand_over(upstream, task)
            if self.provider_id is not None:
                self.be_answerable()
                return True
        provider = ProviderTask(
            upstream=upstream,
            id=task.id,
            poll_url=task.poll_url,
            cancel_url=task.cancel_url,
            model=self.progress.upstream_model,
            is_own_key=self.progress.principal is not None and upstream in self.progress.principal.upstream_keys,
            fields=price_fields(self.progress.sent_fields),
            references=self.progress.all_references(),
        )
        self.is_public = True
        self.be_answerable()
        if images == self.record.images and upstream not in self.unknown_keys:  # one of several is not the task
            self.record = msgspec.structs.replace(self.record, provider=provider)
            with suppress(StoreUnavailable):  # then no process can take it over
                await self._store.note(self.record)
        return False


def price_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a request that a price may depend on: short ones, such as ``quality``; never the prompt."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            if inner := price_fields(value):
                found[name] = inner
        elif isinstance(value, int) or (isinstance(value, str) and len(value) <= _SHORT and name not in _PRIVATE):
            found[name] = value
    return found


class TaskTaken(ImagegateError):
    """Another process has taken the task over, or it was cancelled. Nothing was sent from here."""

    status = 409
    code = "task_taken"

    def __init__(self) -> None:
        super().__init__("The task is not this process's any more.")


class Work(msgspec.Struct, frozen=True):
    """What is to be done for a task."""

    scope: Scope
    exchange: Exchange
