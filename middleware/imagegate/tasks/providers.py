"""Tasks of providers: asked for with an id that says where, cancelled where that is possible."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

import msgspec

from imagegate.delivery.converter import ImageConverter
from imagegate.delivery.disclosure import check_count
from imagegate.delivery.response_format import ResponseFormat
from imagegate.errors import UpstreamError
from imagegate.moderation.inspector import Inspector
from imagegate.protocol.messages import ImageReply, Picture
from imagegate.protocol.provider_errors import uncertain
from imagegate.protocol.reply_errors import NO_IMAGE
from imagegate.protocol.reply_tasks import PendingTask
from imagegate.spool.memory import Memory
from imagegate.streaming.image_sinks import PictureSink
from imagegate.tasks.ids import ProviderTicket, TaskIds
from imagegate.tasks.records import ProviderTask, TaskRecord
from imagegate.telemetry.progress import Progress
from imagegate.upstream.account import Account
from imagegate.upstream.polling import ask_task, cancel_task
from imagegate.upstream.results import load_results

_SLOWEST_POLL: Final = 10.0
_POLL_GROWTH: Final = 1.5
NO_KEYS: Final[Mapping[str, str]] = {}
ENDS: Final = frozenset({"fewer_images", "task_lost", NO_IMAGE})
"""Codes of errors after which another question would have the same answer."""
_MAY_PASS: Final = frozenset({408, 425, 429})


class ProviderTasks:
    """Asks providers.

    Args:
        accounts: of the providers, by name.
        delivery: puts pictures into the store.
        ids: names tasks.
        memory: what replies may hold.
        inspector: sees pictures before they are stored; None: images are not inspected.
    """

    def __init__(
        self,
        accounts: Mapping[str, Account],
        delivery: ImageConverter,
        ids: TaskIds,
        memory: Memory | None = None,
        *,
        inspector: Inspector | None = None,
    ) -> None:
        self._accounts = accounts
        self._delivery = delivery
        self._ids = ids
        self._memory = memory or Memory()
        self._inspector = inspector

    def id_of(self, upstream: str, task: PendingTask, record: TaskRecord, owner: bytes) -> str | None:
        """Return an id for a task that a provider has accepted; None: it cannot be asked for by an id alone."""
        account = self._accounts[upstream]
        try:
            path = _short(account, task.poll_url) if task.poll_url else ""
        except UpstreamError:
            return None
        return self._ids.provider(
            owner,
            upstream=upstream,
            model=record.model,
            task=task.id,
            poll_path=path,
            cancel_path=_cancel_path(account, task),
            images=record.images,
            now=record.created,
        )

    def can_ask(
        self, task: ProviderTask, authorization: str | None = None, own_keys: Mapping[str, str] = NO_KEYS
    ) -> bool:
        account = self._accounts.get(task.upstream)
        return account is not None and bool(account.with_key_of(own_keys).has_key or authorization)

    async def ask(
        self,
        task: ProviderTask,
        images: int,
        *,
        public_url: str,
        authorization: str | None,
        progress: Progress,
        identity: str | None = None,
        own_keys: Mapping[str, str] = NO_KEYS,
    ) -> ImageReply | PendingTask:
        """Ask once; pictures come as links to copies in the store.

        Args:
            identity: what the store keeps the client's images apart by.
            own_keys: upstream -> key of the client's own, in place of the configured one.

        Raises:
            UpstreamError: as `ask_task`; ``fewer_images`` where some are missing.
            FetchError: the provider's links could not be read.
            StorageError: the store did not take the pictures.
            ContentWithheld: the application's moderation keeps them back.
        """
        account = self._accounts[task.upstream].with_key_of(own_keys)
        progress.upstream = account.name
        progress.polls += 1
        received: ResponseFormat = "url" if self._inspector is None else "b64_json"
        sink = PictureSink(partial(self._delivery.receiver, received, identity))
        held = self._memory.reserve()
        made: list[Picture] = []
        try:
            answer = await ask_task(account, _pending(task), authorization=authorization, sink=lambda: sink, held=held)
            if isinstance(answer, PendingTask):
                return answer
            usage = answer.fields.get("usage")
            progress.task_made = len(answer.images), usage if isinstance(usage, Mapping) else None
            check_count(images, answer)
            if account.adapter.keyed_results:
                answer = await load_results(account, answer, authorization=authorization, sink=lambda: sink)
            if self._inspector is not None:
                await self._inspector.check(answer.images, progress, origin=account.origin)
            reply = await self._delivery.for_client(identity).deliver(
                answer,
                "url",
                public_url=public_url,
                sink=sink,
                trusted_origins=(account.origin,),
                copies_links=True,
            )
            made += [image.picture for image in answer.images if image.picture is not None]
            progress.stored_images += len(reply.images)
            return reply
        finally:
            progress.link_fetches += sink.links_read
            progress.fetch_refusals += sink.links_refused
            held.close()
            await sink.close(made)

    async def cancel(
        self, task: ProviderTask, *, authorization: str | None, own_keys: Mapping[str, str] = NO_KEYS
    ) -> UpstreamError | None:
        """Ask the provider to give the task up: the error that says that it was; None where it has no way to.

        Raises:
            UpstreamError: it did not.
        """
        account = self._accounts[task.upstream].with_key_of(own_keys)
        try:
            answer = await cancel_task(account, _pending(task), authorization=authorization)
        except UpstreamError as error:
            if error.ends_task:
                return error
            raise
        if answer is None:
            return None
        raise uncertain("The provider did not say whether it gave the task up.")

    async def wait(self, record: TaskRecord, progress: Progress, own_keys: Mapping[str, str] = NO_KEYS) -> ImageReply:
        """Ask until the task of a process that is dead has ended. Raises as `ask`.

        Where the question is refused for good, what became of the task is not known.
        """
        if record.provider is None:
            raise AssertionError("only tasks that a provider has accepted are waited for")
        account = self._accounts[record.provider.upstream]
        pause = account.poll_interval
        deadline = time.monotonic() + account.deadline
        while time.monotonic() < deadline:
            try:
                answer = await self.ask(
                    record.provider,
                    record.images,
                    public_url=record.public_url,
                    authorization=None,
                    own_keys=own_keys,
                    progress=progress,
                )
                if isinstance(answer, ImageReply):
                    return answer
            except UpstreamError as error:
                if error.ends_task or error.code in ENDS:
                    raise
                if not may_be_asked_again(error):
                    raise lost(error) from error
            await asyncio.sleep(pause)
            pause = min(pause * _POLL_GROWTH, max(_SLOWEST_POLL, account.poll_interval))
        raise uncertain(f"The provider's task was not ready after {account.deadline:g} s.", timed_out=True)


def may_be_asked_again(error: UpstreamError) -> bool:
    """Return whether a failed poll leaves the task's outcome unknown."""
    return error.outcome != "rejected" or error.status in _MAY_PASS or error.status >= 500


def provider_task(ticket: ProviderTicket) -> ProviderTask:
    return ProviderTask(
        upstream=ticket.upstream,
        id=ticket.task,
        poll_url=ticket.poll_path or None,
        cancel_url=ticket.cancel_path or None,
    )


def _pending(task: ProviderTask) -> PendingTask:
    return PendingTask(id=task.id, poll_url=task.poll_url, cancel_url=task.cancel_url)


def _short(account: Account, link: str) -> str:
    """Return a link as briefly as it leads to the same place. Raises `UpstreamError`: the key must not go there."""
    url = account.own_url(link)
    path = url.removeprefix(account.origin)
    return path if account.own_url(path) == url else url  # outside of the path of `base_url`


def _cancel_path(account: Account, task: PendingTask) -> str:
    """Return where a task is given up; empty: where the adapter finds it by itself, or nowhere."""
    if not task.cancel_url:
        return ""
    own = account.adapter.cancel(msgspec.structs.replace(task, cancel_url=None))
    try:
        if own is None or account.own_url(own.url) == account.own_url(task.cancel_url):
            return ""
        return _short(account, task.cancel_url)
    except UpstreamError:
        return ""


def lost(error: UpstreamError) -> UpstreamError:
    """Return the error for a task that its provider, which may have charged for it, does not know any more."""
    found = uncertain(f"The provider lost the task: {error.message}")
    found.code = "task_lost"
    return found


def with_progress(record: TaskRecord, task: PendingTask) -> TaskRecord:
    return msgspec.structs.replace(record, progress=task.progress)
