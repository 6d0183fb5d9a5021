"""Admit: API keys, size limits and the concurrency limit, checked on headers before the body is read.

A rejection leaves the connection open: a client that is still sending would lose the response, and the server discards
the rest of the body. Only a gateway that is shutting down closes it, after a small body has been read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.access.authenticator import Authenticator, named
from imagegate.access.permissions import check_operation
from imagegate.asgi.browser_guard import BrowserGuard
from imagegate.asgi.helpers import announced_length, is_form, read_body, too_large
from imagegate.asgi.in_flight import DEFAULT_PACE, PERMIT, Pace, PacedClient, PacedClients, Permits
from imagegate.errors import Overloaded, ShuttingDown
from imagegate.ingest.request_reader import DEFAULT_LIMITS
from imagegate.layers.base import Layer
from imagegate.protocol.provider_errors import uncertain
from imagegate.telemetry.progress import PROGRESS_KEY, Progress

_DISCARDED: Final = 256 * 1024
"""Maximum bytes of a body that is read and discarded before the connection is closed."""


OwnerOf = Callable[[Scope], str | Awaitable[str | None] | None]
"""Returns the name of the user whom a host application knows a request to be of, or awaits it; None: it knows none."""
_LONGEST_NAME: Final = 128
"""Characters of it that records and log lines have."""


class Admit(Layer):
    """Rejects requests without a valid key, with too large a body, or beyond the concurrency limit.

    Args:
        keys: accepted in ``Authorization: Bearer``, with or without names; empty: no authentication.
        access: finds out who requests are from, in place of `keys`.
        json_limit: maximum ``Content-Length`` of a JSON body, in bytes.
        form_limit: maximum ``Content-Length`` of a form, in bytes.
        in_flight: maximum number of concurrent requests, and of calls with an ``Idempotency-Key`` whose clients have
            left.
        guard: rejects requests of web pages from elsewhere; None: none are.
        owner: returns the host application's name for the user of a request; None: it has none.
        pace: at which a client has to send and to read while its request is counted.
        permits: of concurrent requests, where they are shared with another stack; None: `in_flight` of its own. While
            they say `is_draining`, no new requests are accepted.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        prefix: str = "/v1",
        keys: Mapping[str, str] | Collection[str] = (),
        access: Authenticator | None = None,
        json_limit: int = DEFAULT_LIMITS.json_body,
        form_limit: int = DEFAULT_LIMITS.form.form,
        in_flight: int = 2000,
        guard: BrowserGuard | None = None,
        owner: OwnerOf | None = None,
        pace: Pace = DEFAULT_PACE,
        permits: Permits | None = None,
    ) -> None:
        super().__init__(app, prefix=prefix)
        self._access = access or (Authenticator(named(keys)) if keys else None)
        self._json_limit = json_limit
        self._form_limit = form_limit
        self._least_limit = min(json_limit, form_limit)
        self._permits = permits or Permits(in_flight)
        self._clients = PacedClients(pace.stall)
        self._guard = guard
        self._owner = owner
        self._pace = pace

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        progress: Progress = scope[PROGRESS_KEY]
        if self._guard is not None:
            self._guard.check(scope)
        if self._access is not None:
            identity = self._access.known(scope) or await self._access.find(scope)
            progress.identified(identity)
            if identity.principal.operations and scope["method"] == "POST":
                check_operation(identity.principal, progress.endpoint)
        if self._owner is not None:
            await self._name_owner(self._owner, scope, progress)
        if scope["method"] == "GET":  # has no body and sends nothing upstream
            await self.down(scope, receive, send)
            return
        length = announced_length(scope)
        if self._permits.is_draining:
            if length is not None and length <= _DISCARDED:
                await read_body(receive, limit=_DISCARDED)
                raise ShuttingDown([(b"connection", b"close")])
            raise ShuttingDown()
        if length is not None and length > self._least_limit:
            limit = self._form_limit if is_form(scope) else self._json_limit
            if length > limit:
                raise too_large(limit, endless=False)
        permit = self._permits.take()
        if permit is None:
            self._clients.make_room()  # for the next request
            raise Overloaded(
                "Too many requests in flight. Retry in a moment.",
                headers=[(b"retry-after", b"1")],
            )
        client = PacedClient(receive, send, self._pace)
        self._clients.add(client)
        scope[PERMIT] = permit
        try:
            await self.down(scope, client.receive, client.send)
        except asyncio.CancelledError:
            self._answer_shutdown(progress)
            raise
        finally:
            self._clients.discard(client)
            permit.release()

    def _answer_shutdown(self, progress: Progress) -> None:
        """Raise the error for a request that the server has cancelled at the end of its grace period.

        Without a response the client would retry, and perhaps pay again.
        """
        task = asyncio.current_task()
        if task is None or not (self._permits.is_draining or progress.attempts):
            return
        task.uncancel()
        if progress.attempts:
            raise uncertain("The gateway shut down before the provider answered.") from None
        raise ShuttingDown() from None

    async def _name_owner(self, owner: OwnerOf, scope: Scope, progress: Progress) -> None:
        named = owner(scope)
        name = await named if isinstance(named, Awaitable) else named
        if name is not None:
            progress.owner = name
            progress.user = name[:_LONGEST_NAME]
