"""Kept answers in the memory of one process; large bodies are files, and so are marks of what was sent."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Collection
from contextlib import suppress
from typing import Final, NamedTuple

from imagegate.asgi.background import in_thread
from imagegate.idempotency.base import Claim, ReplaysUnavailable, Slot
from imagegate.idempotency.journal import Journal
from imagegate.idempotency.keys import KeptReply, KeyReused
from imagegate.idempotency.outcomes import interrupted, no_longer_kept
from imagegate.logger import get_logger
from imagegate.stores.blobs import Blobs

MAX_SLOTS: Final = 100_000


class _Kept(NamedTuple):
    fingerprint: str
    reply: KeptReply | None
    """None: it had to make room for newer ones."""
    expires: float


class MemoryReplays:
    """Keeps answers until they expire, and of their bodies the newest `max_bytes`.

    Of evicted bodies the slot remains: a request for one is a 410, and nothing is billed again. What is kept changes
    in one step, without waiting for a file in between, so that no two answers meet half-way.

    Args:
        blobs: for large bodies.
        max_bytes: of all bodies.
        journal: outlives the process, so that what it sent is not sent again; None: a restart forgets everything.
    """

    inline_limit = 1024
    is_shared = False

    def __init__(self, blobs: Blobs, *, max_bytes: int, journal: Journal | None = None) -> None:
        self._blobs = blobs
        self._journal = journal
        self._room = max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._with_body: OrderedDict[str, int] = OrderedDict()
        self._unused: list[str] = []
        """Keys of blobs that are to be removed."""

    async def begin(self, claim: Claim) -> KeptReply | Slot:
        kept = self._kept.get(claim.slot)
        if kept is None or kept.expires < time.monotonic():
            return await self._written(claim)
        if kept.fingerprint != claim.fingerprint:
            raise KeyReused
        return kept.reply or no_longer_kept()

    async def _written(self, claim: Claim) -> KeptReply | Slot:
        """Return what another process has left behind, or is at work on."""
        if self._journal is None:
            return "mine"
        try:
            mark = await asyncio.to_thread(self._journal.look, claim.slot)
        except OSError as error:
            raise ReplaysUnavailable from error
        if mark is None:
            return "mine"
        if mark == "elsewhere":
            return "elsewhere"
        if mark.fingerprint not in ("", claim.fingerprint):
            raise KeyReused
        return mark.reply or interrupted()

    async def mark_sent(self, claim: Claim) -> bool:
        if self._journal is None or claim.sent:
            return True
        try:
            return await in_thread(self._journal.mark, claim)
        except OSError as error:
            get_logger().error("idempotency: what is sent cannot be marked on disk", error=type(error).__name__)
            raise ReplaysUnavailable from error

    async def finish(self, claim: Claim, reply: KeptReply) -> None:
        self._keep(claim, reply)
        if self._journal is not None and claim.sent:
            try:
                await in_thread(self._journal.finish, claim, reply)
            except OSError as error:  # after a restart it is uncertain
                get_logger().warning("idempotency: a response is not on disk", error=type(error).__name__)
        unused, self._unused = self._unused, []
        for key in unused:
            await self._blobs.remove(key)

    def _keep(self, claim: Claim, reply: KeptReply) -> None:
        slot = claim.slot
        self._forget_body(slot)
        self._kept.pop(slot, None)
        self._kept[slot] = _Kept(claim.fingerprint, reply, time.monotonic() + claim.ttl)
        self._with_body[slot] = reply.size
        self._room -= reply.size
        while self._room < 0:
            oldest = next(iter(self._with_body))
            self._forget_body(oldest)
            self._kept[oldest] = self._kept[oldest]._replace(reply=None)
        self._expire()

    def _forget_body(self, slot: str) -> None:
        size = self._with_body.pop(slot, None)
        if size is not None:
            self._room += size
            reply = self._kept[slot].reply
            if reply is not None and reply.blob:
                self._unused.append(reply.blob)

    def _expire(self) -> None:
        """Those at the old end; one behind others is examined when it is asked for."""
        now = time.monotonic()
        while self._kept:
            slot = next(iter(self._kept))
            if self._kept[slot].expires >= now and len(self._kept) <= MAX_SLOTS:
                return
            self._forget_body(slot)
            self._kept.pop(slot, None)

    async def release(self, claim: Claim) -> None:
        """Remove the mark; of slots in flight only the caller knows."""
        if self._journal is not None:
            with suppress(OSError):  # then it says that something may have been sent
                await in_thread(self._journal.release, claim)

    async def renew(self, claims: Collection[Claim]) -> None:
        """Do nothing: there are no leases."""

    async def has_forgotten(self) -> bool:
        return False

    async def aclose(self) -> None:
        self._kept.clear()
        self._with_body.clear()
        if self._journal is not None:
            self._journal.close()
