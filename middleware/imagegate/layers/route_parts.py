"""Handles requests for more images than a model makes at a time: asked for in parts, and answered with one reply."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from starlette.types import Receive, Scope, Send

from imagegate.asgi.captured_response import CapturedResponse
from imagegate.contracts.changes import Change
from imagegate.layers.base import Work, send_reply
from imagegate.protocol.messages import REPLY, Exchange, ImageReply
from imagegate.protocol.provider_errors import uncertain
from imagegate.routing.fan_out import merge, part_of, seeds_of, without_stream
from imagegate.routing.parts import FanOut
from imagegate.routing.retry import Attempt, RetryPolicy
from imagegate.telemetry.progress import PROGRESS_KEY, Progress
from imagegate.tracing import operation


class PartsHandler:
    """Asks for the parts of a request, all of which must succeed.

    Args:
        forward: calls the layers below.
        forward_within_limits: calls them within the limits of the upstream.
        parallel: maximum number of concurrent parts.
        policy: of their retries.
    """

    def __init__(
        self,
        forward: Callable[[Scope, Exchange, Receive, Send], Work],
        forward_within_limits: Callable[[Scope, Exchange, Receive, Send, Attempt], Work],
        *,
        parallel: int,
        policy: RetryPolicy,
    ) -> None:
        self._forward = forward
        self._forward_within_limits = forward_within_limits
        self._parallel = parallel
        self._policy = policy

    async def ask(
        self,
        scope: Scope,
        exchange: Exchange,
        sizes: Sequence[int],
        receive: Receive,
        send: Send,
        attempt: Attempt,
    ) -> None:
        """Send the merged reply, or show the first part of a request that is only to be explained.

        Args:
            sizes: images of each part.
            attempt: of the candidate.
        """
        progress: Progress = scope[PROGRESS_KEY]
        progress.route_changes += (Change("n", "mapped", exchange.request.n, "+".join(map(str, sizes))),)
        if seeds := seeds_of(exchange, sizes):
            progress.route_changes += (Change("seed", "mapped", seeds[0], "+".join(map(str, seeds))),)
        exchange, dropped = without_stream(exchange)
        progress.route_changes += dropped
        if exchange.explain:
            await self._forward(scope, part_of(exchange, sizes, 0), receive, send)
        else:
            reply, origin = await self._merged(scope, exchange, sizes, receive, attempt)
            await send_reply(scope, send, reply, origin=origin)

    async def _merged(
        self, scope: Scope, exchange: Exchange, sizes: Sequence[int], receive: Receive, attempt: Attempt
    ) -> tuple[ImageReply, str]:
        extensions = scope.get("extensions") or {}
        sink = extensions.get(REPLY, {}).get("sink")  # parts are merged here, so nothing may be relayed
        scope = {**scope, "extensions": {**extensions, REPLY: {"sink": sink}}}
        origins: list[str] = []

        async def ask(place: int, _: int, attempt: Attempt) -> ImageReply:
            held = CapturedResponse()
            with operation("part", number=place + 1, images=sizes[place]):
                part = part_of(exchange, sizes, place)
                await self._forward_within_limits({**scope}, part, receive, held, attempt)
                reply, origin = held.reply() or (None, "")
                if reply is None:
                    raise uncertain("The application's reply contains no image.")
            origins.append(origin)
            return reply

        progress: Progress = scope[PROGRESS_KEY]
        parts = FanOut(
            sizes, ask, parallel=self._parallel, policy=self._policy, random=random.random, progress=progress
        )
        return merge(await parts.run(attempt)), origins[0]
