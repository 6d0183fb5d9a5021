"""Usage: ``GET /v1/usage``, what a key has spent and may spend."""

from __future__ import annotations

import asyncio
import time

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi.helpers import send_json
from imagegate.layers.base import Layer
from imagegate.spending.accounts import GATEWAY, key_account
from imagegate.spending.ledger import Balances, day_of
from imagegate.spending.report import usage_document
from imagegate.spending.service import Spending
from imagegate.telemetry.progress import PROGRESS_KEY, Progress


class Usage(Layer):
    """Answers ``GET /v1/usage`` with the principal's own figures; an open gateway answers with its own.

    Args:
        spending: knows them.
        currency: of the prices.
    """

    endpoints = frozenset(("usage",))

    def __init__(self, app: ASGIApp, *, spending: Spending, currency: str, prefix: str = "/v1") -> None:
        super().__init__(app, prefix=prefix)
        self._spending = spending
        self._currency = currency
        self._asked: dict[str, asyncio.Task[Balances]] = {}
        """Questions to the ledger that are not answered yet, by account."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        progress: Progress = scope[PROGRESS_KEY]
        principal = progress.principal
        account = GATEWAY if principal is None else key_account(principal.id)
        limits = self._spending.gateway if principal is None else principal.limits
        day = day_of(time.time())
        periods = day, day[:7]
        balances = await self._balances(periods, account)
        name = principal.name if principal is not None else GATEWAY
        document = usage_document(name, account, limits, balances, periods, self._currency)
        await send_json(send, 200, msgspec.json.encode(document), [(b"cache-control", b"no-store")])

    async def _balances(self, periods: tuple[str, str], account: str) -> Balances:
        """Ask the ledger once for all who wait, so that a key that asks all the time delays no reservation."""
        asked = self._asked.get(account)
        if asked is None:
            asked = self._asked[account] = asyncio.create_task(self._spending.ledger.balances(periods, [account]))
            asked.add_done_callback(lambda _: self._asked.pop(account, None))
        return await asyncio.shield(asked)
