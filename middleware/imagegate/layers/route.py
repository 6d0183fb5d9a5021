"""Route: maps the public model to upstreams, with fallback and retry where nothing was made."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence, Set
from functools import partial

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagegate.errors import ImagegateError
from imagegate.ingest.streaming_form import NeedsBufferedForm
from imagegate.layers.base import ExchangeLayer, Work
from imagegate.layers.route_parts import PartsHandler
from imagegate.protocol.messages import Exchange, Target
from imagegate.routing.catalog import Catalog
from imagegate.routing.circuit_breaker import Breaker
from imagegate.routing.fan_out import image_shares
from imagegate.routing.limiter import UpstreamLimiter
from imagegate.routing.retry import Attempt, Attempts, RetryPolicy
from imagegate.telemetry.progress import PROGRESS_KEY, Progress

_OPEN = UpstreamLimiter(Breaker(failures=0, pause=0.0))
"""For upstreams without limits."""


class Route(ExchangeLayer):
    """Asks the candidates in order; falls back or retries only after an error that proves that nothing was made.

    A request for more images than a model makes at a time is split into parts, all of which must succeed.

    Args:
        catalog: maps models to upstreams.
        max_images: maximum `n` of a request, unless the contract allows more.
        parallel: maximum number of concurrent parts of a split request.
        policy: of fallback and retries.
        keyless: upstreams that are asked with the client's key. A request without one passes them over, as long as
            there is another candidate.
        limiters: limiter by upstream; an upstream without one is unlimited.
        deadline: seconds for all attempts together; None: each attempt has only its own timeouts.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        catalog: Catalog,
        prefix: str = "/v1",
        max_images: int = 10,
        parallel: int = 4,
        policy: RetryPolicy | None = None,
        keyless: Set[str] = frozenset(),
        limiters: Mapping[str, UpstreamLimiter] | None = None,
        deadline: float | None = None,
    ) -> None:
        super().__init__(app, prefix=prefix)
        self._catalog = catalog
        self._max_images = max_images
        self._policy = policy or RetryPolicy()
        self._parts = PartsHandler(self.forward, self._pass, parallel=parallel, policy=self._policy)
        self._keyless = keyless
        self._limiters = limiters or {}
        self._deadline = deadline

    async def handle_exchange(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> None:
        model, catalog = exchange.request.model, self._catalog
        targets = catalog.settled.get(model)
        if targets is None:
            targets = catalog.resolve(model) if exchange.explain else catalog.draw(model, random.random)
        if self._keyless and exchange.authorization is None:
            keyless = self._keyless - exchange.upstream_keys.keys()
            targets = [target for target in targets if target.upstream not in keyless] or targets
        until = asyncio.get_running_loop().time() + self._deadline if self._deadline else None
        await self._ask_in_order(scope, exchange, receive, _Answer(send), targets, until)

    async def _ask_in_order(
        self,
        scope: Scope,
        exchange: Exchange,
        receive: Receive,
        answer: _Answer,
        targets: Sequence[Target],
        until: float | None,
    ) -> None:
        progress: Progress = scope[PROGRESS_KEY]
        asked, now = progress.retries, asyncio.get_running_loop().time
        attempts: Attempts | None = None  # needed once a candidate has failed
        attempt = Attempt(until=until)
        last: int | None = None
        try:
            while True:
                if attempt.pause > 0:
                    await asyncio.sleep(attempt.pause)
                progress.fallbacks += last not in (None, attempt.place)
                progress.retries += attempt.is_retry
                if attempt.is_retry and exchange.request.live is not None:
                    raise NeedsBufferedForm  # its files are consumed; Read runs the request again with the whole form
                last, waited = attempt.place, progress.queue_seconds
                progress.addressed(targets[last], exchange.public_model)
                try:
                    await self._ask(scope, exchange.to(targets[last]), receive, answer, attempt)
                    return
                except ImagegateError as error:
                    waited = progress.queue_seconds - waited
                    attempts = attempts or Attempts(len(targets), self._policy, random.random, asked=asked, until=until)
                    if not attempts.failed(last, error, now(), waited=waited) or answer.has_begun:
                        raise
                if (following := attempts.next(now())) is None:
                    raise _most_informative(attempts, progress, exchange, targets, last)
                attempt = following
        finally:
            if attempts is not None:
                attempts.forget()

    async def _ask(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send, attempt: Attempt) -> None:
        n = exchange.request.n
        sizes = (1,) if n == 1 else image_shares(exchange, self._max_images)
        if len(sizes) > 1:
            await self._parts.ask(scope, exchange, sizes, receive, send, attempt)
        elif exchange.explain:
            await self.forward(scope, exchange, receive, send)
        else:
            await self._pass(scope, exchange, receive, send, attempt)

    def _pass(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send, attempt: Attempt) -> Work:
        """Forward a request within the limits of its upstream."""
        gate = self._limiters.get(exchange.target.upstream, _OPEN) if exchange.target else _OPEN
        live = exchange.request.live
        work = partial(self.forward, scope, exchange, receive, send)
        return gate.run(work, scope[PROGRESS_KEY], queue_timeout=attempt.queue_timeout, until=attempt.until, live=live)


class _Answer:
    """A `send` that records whether the response has started, after which no other candidate may be asked."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        self.has_begun = True
        await self._send(message)


def _most_informative(
    attempts: Attempts, progress: Progress, exchange: Exchange, targets: Sequence[Target], last: int
) -> ImagegateError:
    """Return the error that ends the exchange, whose candidate is recorded where it is not the `last` one."""
    place, failure = attempts.error
    if place != last:
        progress.addressed(targets[place], exchange.public_model)
        progress.upstream_request_id = failure.details.get("upstream_request_id", "")
    return failure
