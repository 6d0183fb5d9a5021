"""Interface of a store of recorded responses."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Literal, Protocol

import msgspec

from imagegate.idempotency.keys import KeptReply, KeyReused
from imagegate.stores.unavailable import StoreUnavailable

__all__ = ["Claim", "KeyReused", "ReplayStore", "ReplaysUnavailable", "Slot"]

Slot = Literal["mine", "elsewhere", "unsure"]


class ReplaysUnavailable(StoreUnavailable):
    """The store cannot be reached, so it is unknown whether the request was sent before."""

    code = "idempotency_store_unavailable"

    def __init__(self) -> None:
        super().__init__(
            "The store of idempotency keys cannot be reached, so the request was not sent. Retry in a moment."
        )


class Claim(msgspec.Struct):
    """One call's claim to a slot: all that a lease says, so that it can be made anew where the store has lost it."""

    slot: str
    fingerprint: str
    """Of the request."""
    ttl: float
    """Seconds that the answer is kept."""
    holder: str = msgspec.field(default_factory=lambda: secrets.token_hex(8))
    """Of this call alone: a later call with the same key, in this process or another, has another one."""
    sent: bool = False
    """Whether a POST may have gone out."""


class ReplayStore(Protocol):
    """Keeps one answer a slot, and knows which call is at work on it.

    Every method raises `ReplaysUnavailable` where the store cannot be reached; it may be called again.
    """

    inline_limit: int
    """Bytes of a body that the store takes itself; larger ones, and all base64, go to the blobs."""
    is_shared: bool
    """Whether leases are to be renewed, also while there are none, because other processes look at them."""

    async def begin(self, claim: Claim) -> KeptReply | Slot:
        """Return the kept answer; ``mine``: there is none, and this call is to make it; ``elsewhere``: another one is;
        ``unsure``: the store may have forgotten another one, so ask again in a moment.

        What a dead process had sent is answered as uncertain; what it had not sent is free.

        Raises:
            KeyReused: the slot is another request's.
        """
        ...

    async def mark_sent(self, claim: Claim) -> bool:
        """Call before a POST is sent; False: the slot is another call's, so nothing may be sent."""
        ...

    async def finish(self, claim: Claim, reply: KeptReply) -> None:
        """Keep the answer."""
        ...

    async def release(self, claim: Claim) -> None:
        """Release the slot."""
        ...

    async def renew(self, claims: Collection[Claim]) -> None:
        """Renew these leases with all that they say."""
        ...

    async def has_forgotten(self) -> bool:
        """Return whether the store may have forgotten leases since they were renewed last."""
        ...

    async def aclose(self) -> None: ...
