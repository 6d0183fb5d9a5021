"""Reports the state of tasks and cancels them."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import msgspec
from starlette.types import Scope

from imagegate.errors import ContentWithheld, UpstreamError
from imagegate.protocol.messages import ImageReply, identity_of, tenant_identity
from imagegate.stores.unavailable import StoreUnavailable
from imagegate.tasks.base import TaskNotCancellable, TaskNotFound
from imagegate.tasks.context import TaskContext
from imagegate.tasks.ids import OwnTicket, ProviderTicket, Ticket
from imagegate.tasks.outcomes import cancelled
from imagegate.tasks.providers import ENDS, NO_KEYS, lost, may_be_asked_again, provider_task, with_progress
from imagegate.tasks.records import TaskRecord, poll_url
from imagegate.telemetry.progress import PROGRESS_KEY, Progress

_MAX_REMEMBERED: Final = 10_000


class Found(msgspec.Struct, frozen=True):
    """A task that the client's id names."""

    ticket: Ticket
    task_id: str
    authorization: str | None
    store_identity: str | None
    """What the store keeps the client's images apart by."""
    own_keys: Mapping[str, str]
    """Upstream -> key of the client's own."""


class TaskQueries:
    """Report and cancel tasks: the gateway's own from the store, those of providers by asking the provider.

    A provider is asked once for concurrent requests, at most every `retry_after` seconds, and not again once the task
    is over: the result is kept in the store, so that its images are fetched and stored once.

    Args:
        context: shared with `TaskCreation`.
    """

    def __init__(
        self,
        context: TaskContext,
    ) -> None:
        self._context = context
        self._asked: OrderedDict[str, _Asked] = OrderedDict()

    async def prepare(self) -> None:
        """Load in a thread the secret that `find` needs."""
        await self._context.ids.prepare()

    def find(self, text: str, authorization: str | None, progress: Progress, *, now: float) -> Found | None:
        """Return the task that an id names; None where it is not one of this client's.

        Args:
            progress: knows whose request it is.
        """
        ids, identity = self._context.ids, identity_of(progress.owner, authorization)
        ticket = ids.read(text, ids.owner(identity), now=now)
        if ticket is None:
            return None
        principal = progress.principal
        own_keys = NO_KEYS if principal is None else principal.upstream_keys
        if principal is not None and progress.owner:
            authorization = None  # a credential of the gateway or of its host goes nowhere else
        return Found(ticket, text, authorization, tenant_identity(progress.tenant) or identity, own_keys)

    async def ask(self, found: Found, scope: Scope) -> TaskRecord:
        """Return the current record of a task.

        Raises:
            TaskNotFound: there is no such task.
            StoreUnavailable: the store cannot be reached.
            UpstreamError: a provider's error that says nothing about the task.
        """
        if isinstance(found.ticket, OwnTicket):
            return await self._own(found)
        return await self._of_provider(found, found.ticket, scope)

    async def _own(self, found: Found) -> TaskRecord:
        number = self._context.ids.number(found.ticket)
        record = self._context.runner.own(number) or await self._context.store.get(number)
        if record is None:
            raise TaskNotFound
        return record

    async def _of_provider(self, found: Found, ticket: ProviderTicket, scope: Scope) -> TaskRecord:
        if not self._context.providers.can_ask(provider_task(ticket), found.authorization, found.own_keys):
            raise TaskNotFound  # the upstream is not configured any more
        number = self._context.ids.number(ticket)
        asked = self._remember(number, self._record(found, ticket, number, scope))
        async with asked.lock:  # concurrent requests share one to the provider
            if not asked.record.is_over and time.monotonic() >= asked.next_at:
                asked.record = await self._answer(found, ticket, asked, scope)
            return asked.record

    async def _answer(self, found: Found, ticket: ProviderTicket, asked: _Asked, scope: Scope) -> TaskRecord:
        with suppress(StoreUnavailable):  # the provider can still be asked
            if kept := await self._context.store.get(asked.record.number):
                return msgspec.structs.replace(kept, task_id=asked.record.task_id, poll_url=asked.record.poll_url)
        asked.next_at = time.monotonic() + self._context.retry_after
        try:
            answer = await self._context.providers.ask(
                provider_task(ticket),
                ticket.images,
                public_url=asked.record.public_url,
                authorization=found.authorization,
                identity=found.store_identity,
                own_keys=found.own_keys,
                progress=scope[PROGRESS_KEY],
            )
        except UpstreamError as error:
            return await self._failed(asked, error)
        except ContentWithheld as error:
            if error.status >= 500:
                raise  # it may be checked the next time
            return await self._keep(asked.record.failed(error))
        if not isinstance(answer, ImageReply):
            return with_progress(asked.record, answer)
        return await self._keep(asked.record.completed(answer.images, answer.fields))

    async def _failed(self, asked: _Asked, error: UpstreamError) -> TaskRecord:
        if error.ends_task or error.code in ENDS:
            return await self._keep(asked.record.failed(error))
        if error.status == 404:
            return await self._keep(asked.record.failed(lost(error)))
        if not may_be_asked_again(error):
            raise error
        asked.next_at = time.monotonic() + max(self._context.retry_after, error.retry_after or 0.0)
        return asked.record

    async def _keep(self, record: TaskRecord) -> TaskRecord:
        with suppress(StoreUnavailable):  # this process remembers it
            await self._context.store.finish(record)
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
            poll_url=poll_url(scope, self._context.prefix, found.task_id),
            public_url=self._context.public_url(scope),
        )

    def _remember(self, number: str, record: TaskRecord) -> _Asked:
        asked = self._asked.pop(number, None) or _Asked(record)
        self._asked[number] = asked
        while len(self._asked) > _MAX_REMEMBERED:
            self._asked.popitem(last=False)
        return asked

    async def cancel(self, found: Found, scope: Scope) -> TaskRecord:
        """Cancel a task that has not been sent, or that its provider cancels.

        Raises:
            TaskNotCancellable: it is over, or its provider does not cancel it.
            TaskNotFound: there is no such task.
        """
        record = await self.ask(found, scope) if isinstance(found.ticket, ProviderTicket) else await self._own(found)
        if record.cancelled:
            return record
        if record.is_over:
            raise TaskNotCancellable("The task is over.", param="task_id")
        if isinstance(found.ticket, OwnTicket):
            ended = record.failed(cancelled())
            if await self._context.store.cancel(ended):
                await self._context.runner.cancelled_by_client(ended)
                return ended
            record = await self._own(found)
        return await self._cancel_at_provider(found, record)

    async def _cancel_at_provider(self, found: Found, record: TaskRecord) -> TaskRecord:
        ticket = found.ticket
        provider = provider_task(ticket) if isinstance(ticket, ProviderTicket) else record.provider
        if provider is None or not self._context.providers.can_ask(provider, found.authorization, found.own_keys):
            raise TaskNotCancellable("The provider is at work on it, and would bill it all the same.", param="task_id")
        try:
            error = await self._context.providers.cancel(
                provider, authorization=found.authorization, own_keys=found.own_keys
            )
        except UpstreamError as failure:
            raise TaskNotCancellable(
                f"The provider did not give the task up: {failure.message}", param="task_id"
            ) from failure
        if error is None:
            raise TaskNotCancellable("The provider cannot give tasks up.", param="task_id")
        if isinstance(ticket, OwnTicket):
            return record.failed(error)  # the run that polls it gets the same
        ended = await self._keep(record.failed(error))
        if asked := self._asked.get(ended.number):
            asked.record = ended
        return ended


class _Asked:
    """The last known state of a provider's task."""

    def __init__(self, record: TaskRecord) -> None:
        self.record = record
        self.next_at = 0.0
        """Earliest time of the next request, by the monotonic clock."""
        self.lock = asyncio.Lock()
