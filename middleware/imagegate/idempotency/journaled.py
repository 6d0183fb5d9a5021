"""Recorded answers in a store that may forget, with marks on disk of what was sent.

A process that dies right after Redis has lost its memory, or is suspended meanwhile, cannot renew what it holds there,
so that Redis alone would give its key to another process, which pays again. Where processes share an image directory,
the marks in it (`imagegate.idempotency.journal`) tell what Redis does not. The disk decides nothing else: where it
cannot be read or written, Redis is relied on alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import ParamSpec, TypeVar

from imagegate.asgi.background import in_thread
from imagegate.idempotency.base import Claim, ReplayStore, Slot
from imagegate.idempotency.journal import Journal, Mark
from imagegate.idempotency.keys import KeptReply, KeyReused
from imagegate.idempotency.outcomes import interrupted
from imagegate.logger import get_logger

P = ParamSpec("P")
T = TypeVar("T")


class JournaledReplays:
    """A store whose free slots are looked up in a journal too.

    Args:
        store: closed with this one.
        journal: of the processes that share a directory.
    """

    def __init__(self, store: ReplayStore, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        self.inline_limit = store.inline_limit
        self.is_shared = store.is_shared

    async def begin(self, claim: Claim) -> KeptReply | Slot:
        found = await self._store.begin(claim)
        if found != "mine":
            return found
        mark = await self._try(self._journal.look, claim.slot)
        if not isinstance(mark, Mark):
            return mark or "mine"
        if mark.fingerprint not in ("", claim.fingerprint):
            await self._store.release(claim)
            raise KeyReused
        reply = mark.reply or interrupted()
        await self._store.finish(claim, reply)  # it has forgotten this
        return reply

    async def mark_sent(self, claim: Claim) -> bool:
        if not await self._store.mark_sent(claim):
            return False
        return claim.sent or await self._try(self._journal.mark, claim) is not False

    async def finish(self, claim: Claim, reply: KeptReply) -> None:
        if claim.sent:
            await self._try(self._journal.finish, claim, reply)
        await self._store.finish(claim, reply)

    async def release(self, claim: Claim) -> None:
        await self._try(self._journal.release, claim)
        await self._store.release(claim)

    async def renew(self, claims: Collection[Claim]) -> None:
        await self._store.renew(claims)

    async def has_forgotten(self) -> bool:
        return await self._store.has_forgotten()

    async def aclose(self) -> None:
        self._journal.close()
        await self._store.aclose()

    @staticmethod
    async def _try(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Run a function in a thread. Return None where the disk fails."""
        try:
            return await in_thread(function, *args, **kwargs)
        except OSError as error:
            get_logger().warning("idempotency: marks on disk cannot be used", error=type(error).__name__)
            return None
