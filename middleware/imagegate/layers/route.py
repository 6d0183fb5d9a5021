"""Route: from the public model to the upstreams that may answer, and on to the next where that costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.catalog import Catalog
from imagegate.changes import Change
from imagegate.errors import AuthenticationError, ImagegateError, RequestError, UpstreamError
from imagegate.events import PROGRESS_KEY, Progress
from imagegate.exchange import REPLY, Exchange, ImageReply, Target
from imagegate.failures import uncertain
from imagegate.fanout import gravest, incomplete, merge, shares
from imagegate.held import HeldReply
from imagegate.layers.base import Layer, send_reply


class Route(Layer):
    """Asks the candidates in order; the next one only after an error that shows that nothing was made.

    A request for more images than a model makes at a time is split into several, all of which must succeed.

    Args:
        catalog: who answers for which model.
        max_images: most images in one request, whatever the provider's own maximum.
        parallel: parts of a split request that are sent at a time.
    """

    def __init__(
        self, app: ASGIApp, *, catalog: Catalog, prefix: str = "/v1", max_images: int = 10, parallel: int = 4
    ) -> None:
        super().__init__(app, prefix=prefix)
        self._catalog = catalog
        self._max_images = max_images
        self._parallel = parallel

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = await self.exchange(scope, receive)
        progress: Progress = scope[PROGRESS_KEY]
        failures: list[tuple[Target, ImagegateError]] = []
        for target in self._catalog.resolve(exchange.request.model):
            try:
                await self._ask(scope, _addressed(exchange, target), target, receive, send)
                return
            except (RequestError, AuthenticationError) as error:  # nothing was sent; the next one may take it
                failures.append((target, error))
            except UpstreamError as error:
                if not error.may_go_elsewhere:
                    raise
                failures.append((target, error))
        target, first = failures[0]
        progress.upstream, progress.upstream_model = target.upstream, target.model
        raise first

    async def _ask(self, scope: Scope, exchange: Exchange, target: Target, receive: Receive, send: Send) -> None:
        progress: Progress = scope[PROGRESS_KEY]
        progress.upstream, progress.upstream_model = target.upstream, target.model
        progress.upstream_request_id = ""
        progress.route_changes = _model_change(exchange.public_model, target)
        parts = self._shares(exchange, target)
        if len(parts) == 1:
            await self.forward(scope, exchange, receive, send)
            return
        progress.route_changes += (Change("n", "mapped", exchange.request.n, "+".join(map(str, parts))),)
        if exchange.request.fields.get("stream") is True:  # each part answers whole; the stream is the gateway's own
            dropped = [name for name in ("stream", "partial_images") if name in exchange.request.fields]
            progress.route_changes += tuple(Change(name, "dropped") for name in dropped)
            exchange = exchange.replace(request=exchange.request.without(*dropped))
        if exchange.explain:
            await self.forward(scope, _with_n(exchange, parts[0]), receive, send)
            return
        replies, origin = await self._ask_parts(scope, exchange, parts, receive)
        await send_reply(scope, send, merge(replies), origin=origin)

    def _shares(self, exchange: Exchange, target: Target) -> Sequence[int]:
        """How many images each request to the upstream asks for."""
        n = exchange.request.n
        most = max(self._max_images, target.contract.max_images) if target.contract else self._max_images
        if n > most:
            raise RequestError(
                f"Invalid 'n': integer above maximum value. Expected a value <= {most}, but got {n} instead.",
                param="n",
                code="integer_above_max_value",
            )
        return shares(n, target.contract.max_images) if target.contract else (n,)

    async def _ask_parts(
        self, scope: Scope, exchange: Exchange, parts: Sequence[int], receive: Receive
    ) -> tuple[list[ImageReply], str]:
        """All parts, a few at a time. Raises the error of one that failed, with a list of what was made."""
        extensions = scope.get("extensions") or {}
        sink = extensions.get(REPLY, {}).get("sink")  # parts are put together here, so nothing is passed on as it is
        scope = {**scope, "extensions": {**extensions, REPLY: {"sink": sink}}}
        places = asyncio.Semaphore(self._parallel)
        origins: list[str] = []
        failures: list[Exception] = []

        async def ask(n: int) -> ImageReply | None:
            held = HeldReply()
            async with places:
                if failures:
                    return None  # the whole has failed; what has not been sent need not be paid for
                try:
                    await self.forward(scope, _with_n(exchange, n), receive, held)
                    reply, origin = held.typed() or (None, "")
                    if reply is None:
                        raise uncertain("The application's reply carries no image.")
                    origins.append(origin)
                    return reply
                except Exception as error:
                    failures.append(error)
                    return None

        results = await asyncio.gather(*(ask(n) for n in parts))
        made = [result for result in results if result is not None]
        if failures:
            error = gravest(failures)
            raise incomplete(error, made, exchange.request.n) if isinstance(error, UpstreamError) else error
        return made, origins[0]


def _addressed(exchange: Exchange, target: Target) -> Exchange:
    """The exchange with the model as the upstream calls it."""
    request = exchange.request
    if request.model != target.model:
        request = request.with_fields({**request.fields, "model": target.model})
    return exchange.replace(request=request, target=target)


def _with_n(exchange: Exchange, n: int) -> Exchange:
    """The exchange for one part; 1 is said by leaving it out, which every model understands."""
    fields = {name: value for name, value in exchange.request.fields.items() if name != "n"}
    return exchange.replace(request=exchange.request.with_fields(fields if n == 1 else {**fields, "n": n}))


def _model_change(public: str, target: Target) -> tuple[Change, ...]:
    """Another model than the one asked for is disclosed; the upstream's name in front of it is only an address."""
    if public in (target.model, f"{target.upstream}/{target.model}"):
        return ()
    return (Change("model", "mapped", public, target.model),)
