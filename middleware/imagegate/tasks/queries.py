"""Questions about tasks, and wishes that they end."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec
from starlette.types import Scope

from imagegate.errors import UpstreamError
from imagegate.protocol.messages import ImageReply, identity_of
from imagegate.stores.unavailable import StoreUnavailable
from imagegate.tasks.base import TaskNotCancellable, TaskNotFound
from imagegate.tasks.ids import OwnTicket, ProviderTicket, Ticket
from imagegate.tasks.manager import TaskManager
from imagegate.tasks.outcomes import cancelled
from imagegate.tasks.providers import lost, may_be_asked_again, provider_task, with_progress
from imagegate.tasks.records import TaskRecord
from imagegate.telemetry.progress import PROGRESS_KEY

_MAX_REMEMBERED: Final = 10_000


class Found(msgspec.Struct, frozen=True):
    """A task that an id of the client's names."""

    ticket: Ticket
    task_id: str
    authorization: str | None
    identity: str | None
    """What the client is known by."""


class TaskQueries:
    """Answers for tasks of the gateway's own from the store, and for those of providers by asking them.

    A provider is asked once for each question, but not more often than it wants, and not any more once the task is
    over: that is kept in the store, so that its pictures are fetched and stored once.

    Args:
        desk: where tasks are at work.
        retry_after: seconds between two questions to a provider.
        public_url: of the picture store, from the scope of a request.
    """

    def __init__(self, desk: TaskManager, *, retry_after: float, public_url: Callable[[Scope], str]) -> None:
        self._desk = desk
        self._retry_after = retry_after
        self._public_url = public_url
        self._asked: OrderedDict[str, _Asked] = OrderedDict()

    async def prepare(self) -> None:
        """Read from a disk, in a thread, what `find` needs."""
        await self._desk.ids.prepare()

    def find(self, text: str, authorization: str | None, *, owner: str = "", now: float) -> Found | None:
        """Return what an id names; None where it is none of this client's.

        Args:
            owner: the host application's name for the client.
        """
        ids, identity = self._desk.ids, identity_of(owner, authorization)
        ticket = ids.read(text, ids.owner(identity), now=now)
        return None if ticket is None else Found(ticket, text, authorization, identity)

    async def ask(self, found: Found, scope: Scope) -> TaskRecord:
        """Raises `TaskNotFound`, `StoreUnavailable`, or what a provider answers that is not about the task."""
        if isinstance(found.ticket, OwnTicket):
            return await self._own(found)
        return await self._of_provider(found, found.ticket, scope)

    async def _own(self, found: Found) -> TaskRecord:
        number = self._desk.ids.number(found.ticket)
        record = self._desk.own(number) or await self._desk.store.get(number)
        if record is None:
            raise TaskNotFound
        return record

    async def _of_provider(self, found: Found, ticket: ProviderTicket, scope: Scope) -> TaskRecord:
        if not self._desk.providers.can_ask(provider_task(ticket), found.authorization):
            raise TaskNotFound  # the upstream is not configured any more
        number = self._desk.ids.number(ticket)
        asked = self._remember(number, self._record(found, ticket, number, scope))
        async with asked.turn:  # several questions at a time are one
            if not asked.record.is_over and time.monotonic() >= asked.next_at:
                asked.record = await self._answer(found, ticket, asked, scope)
            return asked.record

    async def _answer(self, found: Found, ticket: ProviderTicket, asked: _Asked, scope: Scope) -> TaskRecord:
        with suppress(StoreUnavailable):  # it only saves the question
            if kept := await self._desk.store.get(asked.record.number):
                return msgspec.structs.replace(kept, task_id=asked.record.task_id, poll_url=asked.record.poll_url)
        asked.next_at = time.monotonic() + self._retry_after
        try:
            answer = await self._desk.providers.ask(
                provider_task(ticket),
                ticket.images,
                public_url=asked.record.public_url,
                authorization=found.authorization,
                identity=found.identity,
                progress=scope[PROGRESS_KEY],
            )
        except UpstreamError as error:
            return await self._failed(asked, error)
        if not isinstance(answer, ImageReply):
            return with_progress(asked.record, answer)
        return await self._keep(asked.record.completed(answer.images, answer.fields))

    async def _failed(self, asked: _Asked, error: UpstreamError) -> TaskRecord:
        if error.ends_task or error.code == "fewer_images":
            return await self._keep(asked.record.failed(error))
        if error.status == 404:
            return await self._keep(asked.record.failed(lost(error)))
        if not may_be_asked_again(error):
            raise error
        asked.next_at = time.monotonic() + max(self._retry_after, error.retry_after or 0.0)
        return asked.record

    async def _keep(self, record: TaskRecord) -> TaskRecord:
        with suppress(StoreUnavailable):  # this process remembers it
            await self._desk.store.finish(record)
        return record

    def _record(self, found: Found, ticket: ProviderTicket, number: str, scope: Scope) -> TaskRecord:
        return TaskRecord(
            number=number,
            state="sent",
            owner=ticket.owner.hex(),
            created=ticket.created,
            model=ticket.model,
            images=ticket.images,
            task_id=found.task_id,
            poll_url=self._desk.poll_url(scope, found.task_id),
            public_url=self._public_url(scope),
        )

    def _remember(self, number: str, record: TaskRecord) -> _Asked:
        asked = self._asked.pop(number, None) or _Asked(record)
        self._asked[number] = asked
        while len(self._asked) > _MAX_REMEMBERED:
            self._asked.popitem(last=False)
        return asked

    async def cancel(self, found: Found, scope: Scope) -> TaskRecord:
        """Ends a task that has not been sent, or that its provider gives up.

        Raises:
            TaskNotCancellable: it is at the provider, which does not give it up, or over.
            TaskNotFound: there is no such task.
        """
        record = await self.ask(found, scope) if isinstance(found.ticket, ProviderTicket) else await self._own(found)
        if record.cancelled:
            return record
        if record.is_over:
            raise TaskNotCancellable("The task is over.", param="task_id")
        if isinstance(found.ticket, OwnTicket):
            ended = record.failed(cancelled())
            if await self._desk.store.cancel(ended):
                self._desk.cancelled_by_client(ended)
                return ended
            record = await self._own(found)
        return await self._cancel_at_provider(found, record)

    async def _cancel_at_provider(self, found: Found, record: TaskRecord) -> TaskRecord:
        ticket = found.ticket
        provider = provider_task(ticket) if isinstance(ticket, ProviderTicket) else record.provider
        if provider is None or not self._desk.providers.can_ask(provider, found.authorization):
            raise TaskNotCancellable("The provider is at work on it, and would bill it all the same.", param="task_id")
        try:
            error = await self._desk.providers.cancel(provider, authorization=found.authorization)
        except UpstreamError as failure:
            raise TaskNotCancellable(
                f"The provider did not give the task up: {failure.message}", param="task_id"
            ) from failure
        if error is None:
            raise TaskNotCancellable("The provider cannot give tasks up.", param="task_id")
        if isinstance(ticket, OwnTicket):
            return record.failed(error)  # whoever waits for it will hear the same
        ended = await self._keep(record.failed(error))
        if asked := self._asked.get(ended.number):
            asked.record = ended
        return ended


class _Asked:
    """What a provider said last about a task."""

    def __init__(self, record: TaskRecord) -> None:
        self.record = record
        self.next_at = 0.0
        """When it may be asked again, by the monotonic clock."""
        self.turn = asyncio.Lock()
