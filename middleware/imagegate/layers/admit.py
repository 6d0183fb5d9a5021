"""Admit: who may come in, and how much; decided on headers, before the body is asked for.

Refusals do not hang up: a client that is still sending would lose the answer. The server discards what it sends.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi import header, too_large
from imagegate.errors import Overloaded
from imagegate.events import PROGRESS_KEY, Progress
from imagegate.keys import Keys
from imagegate.layers.base import Layer
from imagegate.reading import DEFAULT_LIMITS


class Admit(Layer):
    """Refuses strangers, bodies that are too large, and more requests than the gateway may hold.

    Args:
        keys: that clients must send as ``Authorization: Bearer``, by name or without; empty: anybody may come in.
        json_limit: bytes of a JSON body, by ``Content-Length``.
        form_limit: bytes of a form.
        in_flight: requests at a time.
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
    ) -> None:
        super().__init__(app, prefix=prefix)
        self._keys = Keys(keys)
        self._json_limit = json_limit
        self._form_limit = form_limit
        self._places = in_flight

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        progress: Progress = scope[PROGRESS_KEY]
        progress.key_name = self._keys.name_of(header(scope, b"authorization"))
        is_form = (header(scope, b"content-type") or b"").lower().startswith(b"multipart/form-data")
        limit = self._form_limit if is_form else self._json_limit
        if scope["method"] == "GET":  # has no body and sends nothing upstream
            await self.down(scope, receive, send)
            return
        length = header(scope, b"content-length")
        if length is not None and length.isdigit() and int(length[:20]) > limit:
            raise too_large(limit, endless=False)
        if self._places <= 0:
            raise Overloaded(
                "The gateway holds as many requests as it may. Try again in a moment.",
                headers=[(b"retry-after", b"1")],
            )
        self._places -= 1
        try:
            await self.down(scope, receive, send)
        finally:
            self._places += 1
