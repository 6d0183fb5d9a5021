"""Task ids: signed, bound to the client's key, and of an age.

An id is ``task_`` and the base64url of a MessagePack document with 16 bytes of HMAC-SHA256 behind it. It names either a
task of the gateway's own, which a store keeps, or a provider's task, which any process can ask the provider for. What
is malformed, forged, expired or another client's reads as None, so that clients cannot distinguish these cases.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from functools import cache
from typing import Final

import msgspec

_ID: Final = re.compile(r"task_[A-Za-z0-9_-]{40,1400}", re.ASCII)
_SIGNATURE: Final = 16
_OWNER: Final = 12
_LONGEST: Final = 512
"""Characters of a provider's id or poll path that go into an id."""


class _Ticket(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    owner: bytes
    """Tag of the client that made the task."""
    created: int
    """Unix time in seconds."""
    expires: int


class OwnTicket(_Ticket, frozen=True, kw_only=True, array_like=True, tag=0):
    """A task that the gateway keeps."""

    number: bytes


class ProviderTicket(_Ticket, frozen=True, kw_only=True, array_like=True, tag=1):
    """A task of a provider's."""

    upstream: str
    model: str
    """As the client asked for it."""
    task: str
    """The provider's id."""
    poll_path: str
    """Where to ask, without the origin; empty: where the adapter asks."""
    images: int
    """Asked for."""
    cancel_path: str = ""
    """Where to give it up, likewise."""


Ticket = OwnTicket | ProviderTicket

_DECODER: Final = msgspec.msgpack.Decoder(Ticket)


class TaskIds:
    """Makes ids and reads them.

    Args:
        secret: signs them; asked once, when the first id is made or read.
        ttl: seconds that an id is good for.
    """

    def __init__(self, secret: Callable[[], bytes], *, ttl: float) -> None:
        self._secret = cache(secret)
        self._is_ready = False
        self._ttl = ttl

    async def prepare(self) -> None:
        """Ask for the secret, in a thread: it may have to be read from a disk. Raises what that raises."""
        if not self._is_ready:
            await asyncio.to_thread(self._secret)
            self._is_ready = True

    def owner(self, identity: str | None) -> bytes:
        """Return the tag of what a client is known by; all anonymous clients share theirs."""
        return self._mac(b"owner", (identity or "").strip(" \t").encode("utf-8", "surrogatepass"))[:_OWNER]

    def own(self, owner: bytes, *, now: float) -> tuple[str, str]:
        """Return an id for a new task of the gateway's own, and the number under which the task is kept."""
        number = secrets.token_bytes(16)
        ticket = OwnTicket(owner=owner, created=int(now), expires=int(now + self._ttl), number=number)
        return self._id(ticket), number.hex()

    def provider(
        self,
        owner: bytes,
        *,
        upstream: str,
        model: str,
        task: str,
        poll_path: str,
        images: int,
        now: float,
        cancel_path: str = "",
    ) -> str | None:
        """Return an id for a provider's task; None: its own id or address is too long to be carried."""
        carried = (task, poll_path, cancel_path, model)
        if max(map(len, carried)) > _LONGEST or len("".join(carried)) > _LONGEST * 3 // 2:
            return None
        ticket = ProviderTicket(
            owner=owner,
            created=int(now),
            expires=int(now + self._ttl),
            upstream=upstream,
            model=model,
            task=task,
            poll_path=poll_path,
            images=images,
            cancel_path=cancel_path,
        )
        text = self._id(ticket)
        return text if _ID.fullmatch(text) else None

    def read(self, text: str, owner: bytes, *, now: float) -> Ticket | None:
        """Return what an id names; None for an unknown id, another client's, or one that has expired."""
        if not _ID.fullmatch(text):
            return None
        try:
            signed = base64.urlsafe_b64decode(text[5:] + "=" * (-len(text[5:]) % 4))
        except (binascii.Error, ValueError):
            return None
        payload, signature = signed[:-_SIGNATURE], signed[-_SIGNATURE:]
        genuine = hmac.compare_digest(self._mac(b"id", payload)[:_SIGNATURE], signature)
        if not genuine or _text(signed) != text:
            return None
        try:
            ticket = _DECODER.decode(payload)
        except msgspec.DecodeError:
            return None  # signed by another version of the gateway
        is_owners = hmac.compare_digest(ticket.owner, owner)
        return ticket if is_owners and ticket.expires >= now else None

    def number(self, ticket: Ticket) -> str:
        """Under which the task is kept; of a provider's task, once its pictures are there."""
        if isinstance(ticket, OwnTicket):
            return ticket.number.hex()
        return self._mac(b"number", f"{ticket.upstream}\n{ticket.task}".encode())[:16].hex()

    def _id(self, ticket: Ticket) -> str:
        payload = msgspec.msgpack.encode(ticket)
        return _text(payload + self._mac(b"id", payload)[:_SIGNATURE])

    def _mac(self, purpose: bytes, content: bytes) -> bytes:
        """Return a MAC for a purpose, so that no tag can pass for a signature."""
        return hmac.digest(self._secret(), b"imagegate task " + purpose + b"\0" + content, hashlib.sha256)


def _text(signed: bytes) -> str:
    return "task_" + base64.urlsafe_b64encode(signed).rstrip(b"=").decode()
