"""Read: the body, parsed and checked once for all layers below."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi import ClientDisconnected
from imagegate.exchange import Exchange
from imagegate.layers.base import Layer
from imagegate.reading import DEFAULT_LIMITS, ReadLimits, close_uploads, default_budget, read_exchange
from imagegate.spool import Budget


class Read(Layer):
    """Puts the typed request into the scope, and stops the work below when the client leaves.

    Args:
        limits: of bodies.
        budget: room for uploads, shared by all requests.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        prefix: str = "/v1",
        limits: ReadLimits = DEFAULT_LIMITS,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(app, prefix=prefix)
        self._limits = limits
        self._budget = budget or default_budget()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = await read_exchange(scope, receive, limits=self._limits, budget=self._budget)
        try:
            await self._hand_on(scope, exchange, receive, send)
        finally:
            close_uploads(exchange.request)

    async def _hand_on(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> None:
        if isinstance(self.app, Layer):
            async with _StopWhenClientLeaves(receive):
                await self.forward(scope, exchange, receive, send)
        else:
            await self.forward(scope, exchange, receive, send)  # the application reads `receive` itself


class _StopWhenClientLeaves:
    """Servers do not cancel handlers: after the body, the only thing left to receive is that the client is gone."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = False

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        if self._task is not None:
            self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        self._watcher.cancel()
        if not self._left or self._task is None or kind is not asyncio.CancelledError:
            return
        if self._task.uncancel() == 0:  # nobody else wants it cancelled
            raise ClientDisconnected from None
