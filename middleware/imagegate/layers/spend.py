"""Spend: limits of requests and images, and budgets, between the client's request and whatever is paid for."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi.background import Background
from imagegate.ingest.streaming_form import NeedsBufferedForm
from imagegate.layers.base import ExchangeLayer
from imagegate.protocol.messages import Exchange
from imagegate.spending.ledger import RESERVATION
from imagegate.spending.rates import rate_headers
from imagegate.spending.service import Spending
from imagegate.telemetry.progress import PROGRESS_KEY, Progress


class Spend(ExchangeLayer):
    """Refuses requests beyond the limits of their principal, its groups or the gateway, and reserves their money.

    Replayed and joined requests never get here, and what is only explained is not counted.

    Args:
        spending: counts and reserves.
        background: settles after the response, where the ledger is elsewhere.
    """

    def __init__(self, app: ASGIApp, *, spending: Spending, background: Background, prefix: str = "/v1") -> None:
        super().__init__(app, prefix=prefix)
        self._spending = spending
        self._background = background

    async def handle_exchange(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> None:
        if exchange.explain:
            await self.forward(scope, exchange, receive, send)
            return
        progress: Progress = scope[PROGRESS_KEY]
        spent = await self._spending.admit(exchange, progress, task=scope.get(RESERVATION))
        progress.limit_headers = rate_headers(spent.admission.uses)
        runs_again = False
        try:
            await self.forward(scope, exchange, receive, send)
        except NeedsBufferedForm:
            runs_again = True
            raise
        finally:
            # A task of its own: a cancelled request must still be settled.
            ending = self._background.start(self._spending.end(spent, progress))
            if runs_again:  # with the place and the money that this run has had
                await asyncio.wait({ending})
