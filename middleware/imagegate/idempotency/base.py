"""Interface of a store of recorded responses."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, Protocol

from imagegate.idempotency.keys import KeptReply, KeyReused
from imagegate.stores.unavailable import StoreUnavailable

__all__ = ["KeyReused", "ReplayStore", "ReplaysUnavailable", "Slot"]

Slot = Literal["mine", "elsewhere"]


class ReplaysUnavailable(StoreUnavailable):
    """The store cannot be reached, so it is unknown whether the request was sent before."""

    code = "idempotency_store_unavailable"

    def __init__(self) -> None:
        super().__init__(
            "The store of idempotency keys cannot be reached, so the request was not sent. Retry in a moment."
        )


class ReplayStore(Protocol):
    """Keeps one answer a slot, and knows which process is at work on it.

    Every method raises `ReplaysUnavailable` where the store cannot be reached; it may be called again.
    """

    inline_limit: int
    """Bytes of a body that the store takes itself; larger ones, and all base64, go to the blobs."""

    async def begin(self, slot: str, fingerprint: str, *, ttl: float) -> KeptReply | Slot:
        """The kept answer; ``mine``: there is none, and this process is to make it; ``elsewhere``: another one is.

        What a dead process had sent is answered as uncertain; what it had not sent is free.

        Args:
            ttl: seconds that such an answer is kept.

        Raises:
            KeyReused: the slot is another request's.
        """
        ...

    async def mark_sent(self, slot: str, fingerprint: str, *, ttl: float) -> bool:
        """Call before a POST is sent; False: the slot belongs to another process, so nothing may be sent."""
        ...

    async def finish(self, slot: str, fingerprint: str, reply: KeptReply, *, ttl: float) -> None:
        """Keep the answer."""
        ...

    async def release(self, slot: str) -> None:
        """Release the slot."""
        ...

    async def renew(self, slots: Collection[str]) -> None:
        """Renew the leases of these slots."""
        ...

    async def aclose(self) -> None: ...
