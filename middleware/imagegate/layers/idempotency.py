"""Idempotency: requests with the same ``Idempotency-Key`` are one request."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi.helpers import receive_nothing
from imagegate.asgi.in_flight import PERMIT, Permit
from imagegate.idempotency.coalescing import Call, KeyedCalls, calls_in_memory
from imagegate.idempotency.keys import HEADER, client_of, fingerprint, key_of, slot_of
from imagegate.idempotency.relinking import Relinking
from imagegate.ingest.request_reader import release, retain
from imagegate.layers.base import Concern, ExchangeLayer
from imagegate.protocol.messages import Exchange
from imagegate.telemetry.hooks import Hooks
from imagegate.telemetry.progress import PROGRESS_KEY, Progress
from imagegate.upstream.dispatch_hooks import SENDING, Sending


class Idempotency(ExchangeLayer):
    """Coalesces concurrent requests with the same key, and replays their responses.

    Args:
        calls: runs calls and keeps their responses; None: in the memory of this process.
        ttl: seconds for which a response is replayed.
        derive: whether requests without a key are the same where the client's API key and the body are.
        hooks: are notified of calls that ended after their clients had disconnected.
        derive_window: seconds for which the response to such a request is replayed.
        link_base: returns what links in the response to a request begin with; None: nothing of the request.
    """

    concern: Concern | None = Concern(header=HEADER)

    def __init__(
        self,
        app: ASGIApp,
        *,
        calls: KeyedCalls | None = None,
        prefix: str = "/v1",
        ttl: float = 86400.0,
        derive: bool = False,
        derive_window: float = 60.0,
        hooks: Hooks | None = None,
        link_base: Callable[[Scope], str] | None = None,
    ) -> None:
        super().__init__(app, prefix=prefix)
        self._calls = calls or calls_in_memory()
        self._ttl = ttl
        if derive:
            self.concern = None
        self._derive_window = derive_window
        self._hooks = hooks
        self._link_base = link_base

    async def handle_exchange(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> None:
        key = key_of(scope)
        if exchange.explain:
            await self.forward(scope, exchange, receive, send)
            return
        print_ = await fingerprint(exchange.request)
        # A client's key cannot contain a line break, so derived keys never collide with one.
        client = client_of(scope, exchange.identity)
        slot = slot_of(client, exchange.operation, f"\n{print_}" if key is None else key)
        progress: Progress = scope[PROGRESS_KEY]
        progress.link_base = "" if self._link_base is None else self._link_base(scope)
        ttl = self._derive_window if key is None else self._ttl

        async def work(call: Call) -> None:
            async def mark_sent(_: Sending) -> None:
                await self._calls.mark_sent(call)

            watched = {**scope, SENDING: (*scope.get(SENDING, ()), mark_sent)}
            await self.forward(watched, exchange, receive_nothing, call.recording)

        permit: Permit | None = scope.get(PERMIT)

        def leads() -> None:
            if permit is not None:
                permit.hold()
            retain(exchange.request)  # the call outlives it

        def ends(call: Call) -> None:
            if permit is not None:
                permit.release()
            release(exchange.request)
            self._report(call)

        await self._calls.answer(
            slot,
            print_,
            work,
            Relinking(send, progress, progress.link_base) if progress.link_base else send,
            progress,
            ttl=ttl,
            on_begin=leads,
            on_end=ends,
        )

    def _report(self, call: Call) -> None:
        """Report what a call has paid for since its client left, which the record of the exchange does not have."""
        progress = call.progress.after_its_client()
        if self._hooks is None or progress is None:
            return
        if call.error is not None:
            progress.failed(call.error)
        status = call.recording.status or (call.error.status if call.error else 500)
        self._hooks.exchange_ended(progress, status=status, seconds=perf_counter() - call.started)
