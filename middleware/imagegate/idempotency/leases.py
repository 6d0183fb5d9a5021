"""Renews the leases of the calls of this process, as long as it lives."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from imagegate.asgi.background import repeat, stop
from imagegate.idempotency.base import Claim, ReplayStore, ReplaysUnavailable
from imagegate.logger import get_logger

_MOST_RELEASES: Final = 10_000
_LOOK: Final = 1.0
"""Seconds between two looks whether the store has forgotten something."""


class Leases:
    """Renews leases, and releases those that could not be released when their calls ended.

    Args:
        store: of the leases.
        lease: seconds; renewed three times as often, and as soon as the store has forgotten something.
    """

    def __init__(self, store: ReplayStore, *, lease: float) -> None:
        self._store = store
        self._lease = lease
        self._held: dict[str, Claim] = {}
        self._releases: dict[str, tuple[Claim, float]] = {}
        """By holder, with the time after which the store has forgotten them by itself."""
        self._due = 0.0
        """When the leases are to be renewed again, by the monotonic clock."""
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start renewing, where the store is shared. Requires a running event loop."""
        if self._store.is_shared and (self._loop is None or self._loop.done()):
            self._loop = asyncio.create_task(repeat(self._beat, pause=min(self._lease / 3, _LOOK), on_error=_log))

    def hold(self, claim: Claim) -> None:
        """Renew a claim's lease from now on."""
        self._held[claim.holder] = claim
        self.start()

    def give_up(self, claim: Claim) -> None:
        """Renew a claim's lease no more."""
        self._held.pop(claim.holder, None)

    def release_later(self, claim: Claim) -> None:
        """Release a claim when the store can be reached again: it may think that something was sent."""
        if len(self._releases) < _MOST_RELEASES:
            self._releases[claim.holder] = claim, time.monotonic() + max(claim.ttl, self._lease)

    async def _beat(self) -> None:
        try:
            if time.monotonic() < self._due and not await self._store.has_forgotten():
                return
            self._due = 0.0
            await self._store.renew(tuple(self._held.values()))
            self._due = time.monotonic() + self._lease / 3
            for holder, (claim, expires) in tuple(self._releases.items()):
                if time.monotonic() < expires:
                    await self._store.release(claim)
                del self._releases[holder]
        except ReplaysUnavailable:
            return  # it may come back

    async def aclose(self) -> None:
        """Stop renewing."""
        if self._loop is not None:
            await stop(self._loop)
            self._loop = None


def _log(error: Exception) -> None:
    get_logger().error("idempotency: leases could not be renewed", exc_info=error)
