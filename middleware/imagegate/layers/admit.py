"""Admit: who may come in, and how much; decided on headers, before the body is asked for.

Refusals do not hang up: a client that is still sending would lose the answer. The server discards what it sends.
Only a gateway that is about to end hangs up, on clients whose body is in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi.api_keys import APIKeys
from imagegate.asgi.helpers import announced_length, header, is_form, read_body, too_large
from imagegate.errors import ImagegateError, Overloaded, ShuttingDown
from imagegate.ingest.request_reader import DEFAULT_LIMITS
from imagegate.layers.base import Layer
from imagegate.protocol.provider_errors import uncertain
from imagegate.telemetry.progress import PROGRESS_KEY, Progress

_DISCARDED: Final = 256 * 1024
"""Bytes of a body that are read only in order to hang up politely."""


class Admit(Layer):
    """Refuses strangers, bodies that are too large, and more requests than the gateway may hold.

    Args:
        keys: that clients must send as ``Authorization: Bearer``, by name or without; empty: anybody may come in.
        json_limit: bytes of a JSON body, by ``Content-Length``.
        form_limit: bytes of a form.
        in_flight: requests at a time.
        is_draining: whether the gateway is about to end and takes no new work.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        prefix: str = "/v1",
        keys: Mapping[str, str] | Collection[str] = (),
        json_limit: int = DEFAULT_LIMITS.json_body,
        form_limit: int = DEFAULT_LIMITS.form.form,
        in_flight: int = 2000,
        is_draining: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(app, prefix=prefix)
        self._keys = APIKeys(keys)
        self._json_limit = json_limit
        self._form_limit = form_limit
        self._places = in_flight
        self._is_draining = is_draining

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        progress: Progress = scope[PROGRESS_KEY]
        progress.key_name = self._keys.name_of(header(scope, b"authorization"))
        limit = self._form_limit if is_form(scope) else self._json_limit
        if scope["method"] == "GET":  # has no body and sends nothing upstream
            await self.down(scope, receive, send)
            return
        length = announced_length(scope)
        if self._is_draining():
            if length is not None and length <= _DISCARDED:
                await read_body(receive, limit=_DISCARDED)
                raise ShuttingDown([(b"connection", b"close")])
            raise ShuttingDown()
        if length is not None and length > limit:
            raise too_large(limit, endless=False)
        if self._places <= 0:
            raise Overloaded(
                "The gateway holds as many requests as it may. Try again in a moment.",
                headers=[(b"retry-after", b"1")],
            )
        self._places -= 1
        try:
            await self.down(scope, receive, send)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._is_draining() or task is None:
                raise
            task.uncancel()  # the server's grace has run out; there is time for a word, lest the client pays again
            raise _cut_short(scope[PROGRESS_KEY]) from None
        finally:
            self._places += 1


def _cut_short(progress: Progress) -> ImagegateError:
    if progress.attempts:
        return uncertain("The gateway ended before the provider had answered.")
    return ShuttingDown()
