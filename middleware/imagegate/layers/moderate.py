"""Moderate: asks the application about a request before anything is sent; Deliver asks about the images."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.contracts.changes import Change
from imagegate.errors import ContentRefused
from imagegate.http.guarded_fetch import Fetcher
from imagegate.layers.base import ExchangeLayer
from imagegate.moderation.moderator import Moderator
from imagegate.moderation.subjects import ModerationRequest, images_of_request
from imagegate.moderation.verdicts import Refuse
from imagegate.protocol.messages import Exchange
from imagegate.telemetry.progress import PROGRESS_KEY, Progress


class Moderate(ExchangeLayer):
    """Refuses requests, or gives them another prompt, as the application's hook says.

    Args:
        moderator: has the hook.
        fetcher: reads links of requests for it.
    """

    def __init__(self, app: ASGIApp, *, moderator: Moderator, fetcher: Fetcher, prefix: str = "/v1") -> None:
        super().__init__(app, prefix=prefix)
        self._moderator = moderator
        self._fetcher = fetcher

    async def handle_exchange(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> None:
        progress: Progress = scope[PROGRESS_KEY]
        verdict = await self._moderator.before(self._shown(exchange), progress.principal)
        if isinstance(verdict, Refuse):
            raise ContentRefused(verdict.reason, param=verdict.field)
        if verdict is not None and verdict.prompt != exchange.request.fields.get("prompt"):
            request = exchange.request.with_fields({**exchange.request.fields, "prompt": verdict.prompt})
            exchange = exchange.replace(request=request, revised_prompt=verdict.prompt)
            progress.moderation_changes = (Change("prompt", "replaced"),)
        await self.forward(scope, exchange, receive, send)

    def _shown(self, exchange: Exchange) -> ModerationRequest:
        request = exchange.request
        prompt: Any = request.fields.get("prompt", "")
        return ModerationRequest(
            operation=exchange.operation,
            model=exchange.public_model,
            prompt=prompt if isinstance(prompt, str) else "",
            fields=request.fields,
            images=images_of_request(request, self._fetcher),
        )
