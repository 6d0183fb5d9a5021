"""Kept answers in the memory of one process; large bodies are files."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Collection
from typing import Final, NamedTuple

from imagegate.idempotency.base import Claim, Slot
from imagegate.idempotency.keys import KeptReply, KeyReused
from imagegate.idempotency.outcomes import no_longer_kept
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
    """

    inline_limit = 1024
    is_shared = False

    def __init__(self, blobs: Blobs, *, max_bytes: int) -> None:
        self._blobs = blobs
        self._room = max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._with_body: OrderedDict[str, int] = OrderedDict()
        self._unused: list[str] = []
        """Keys of blobs that are to be removed."""

    async def begin(self, claim: Claim) -> KeptReply | Slot:
        kept = self._kept.get(claim.slot)
        if kept is None or kept.expires < time.monotonic():
            return "mine"
        if kept.fingerprint != claim.fingerprint:
            raise KeyReused
        return kept.reply or no_longer_kept()

    async def mark_sent(self, claim: Claim) -> bool:
        return True

    async def finish(self, claim: Claim, reply: KeptReply) -> None:
        self._keep(claim, reply)
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
        """Those at the old end; one that stands behind others is looked at when it is asked for."""
        now = time.monotonic()
        while self._kept:
            slot = next(iter(self._kept))
            if self._kept[slot].expires >= now and len(self._kept) <= MAX_SLOTS:
                return
            self._forget_body(slot)
            self._kept.pop(slot, None)

    async def release(self, claim: Claim) -> None:
        """Do nothing: only the caller knows slots in flight."""

    async def renew(self, claims: Collection[Claim]) -> None:
        """Do nothing: there are no leases."""

    async def aclose(self) -> None:
        self._kept.clear()
        self._with_body.clear()
