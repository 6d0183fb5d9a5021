"""Upstream: the innermost layer, which asks the provider."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from typing import Final
from uuid import uuid4

import msgspec
from starlette.types import Receive, Scope, Send

from imagegate.asgi.helpers import send_json
from imagegate.errors import AuthenticationError, ModelNotFound, NotPermitted
from imagegate.layers.base import ExchangeLayer, send_reply
from imagegate.protocol.messages import REPLY, Exchange
from imagegate.protocol.reply_tasks import PendingTask
from imagegate.protocol.trace_context import trace_headers
from imagegate.streaming.reply_reader import ReplyConsumer
from imagegate.telemetry.progress import PROGRESS_KEY, Progress, timed_call
from imagegate.tracing import TRACER, operation
from imagegate.upstream.account import Account
from imagegate.upstream.conversation import ask_or_find, follow
from imagegate.upstream.dispatch_hooks import SENDING, TASK, Sending
from imagegate.upstream.explanation import explanation
from imagegate.upstream.payers import PAYERS, with_payers
from imagegate.upstream.results import load_results
from imagegate.upstream.sending import PaidRequest, ask

_UNTRACED: Final = nullcontext()


class Upstream(ExchangeLayer):
    """Sends requests to provider accounts; the innermost layer.

    Args:
        accounts: selected by Route; the first one is used where there is no Route.
    """

    def __init__(self, *, accounts: Iterable[Account], prefix: str = "/v1") -> None:
        super().__init__(_nothing_below, prefix=prefix)
        self._accounts = {account.name: account for account in accounts}

    async def handle_exchange(self, scope: Scope, exchange: Exchange, receive: Receive, send: Send) -> None:
        progress: Progress = scope[PROGRESS_KEY]
        account = self._accounts[exchange.target.upstream] if exchange.target else next(iter(self._accounts.values()))
        if exchange.upstream_keys:
            account = account.with_key_of(exchange.upstream_keys)
        progress.upstream, progress.sent_fields = account.name, exchange.request.fields
        asked = exchange.request
        progress.sent_references = asked.reference_areas if asked.images or asked.mask is not None else ()
        if account.adapter.names_jobs:
            asked = msgspec.structs.replace(asked, job_id=str(uuid4()))
        request = account.adapter.encode(asked)
        if named := [(name, value) for name, value in scope["headers"] if name in PAYERS]:
            request = with_payers(request, named, account, progress)
        if exchange.explain:
            shown = await explanation(account, request, authorization=exchange.authorization, changes=progress.changes)
            await send_json(send, 200, msgspec.json.encode(shown))
            return
        if not account.has_key and not exchange.authorization:
            if progress.principal is not None:
                raise NotPermitted("There is no key of yours for the provider of this model.", code="no_upstream_key")
            raise AuthenticationError(
                "You did not provide an API key. Send the provider's key as 'Authorization: Bearer YOUR_KEY'.",
                code="missing_api_key",
            )
        extension = (scope.get("extensions") or {}).get(REPLY)
        consumer = None if extension is None else ReplyConsumer.of(extension, send, account.origin)
        images = exchange.request.n
        if exchange.target is not None and (most := exchange.target.most_images(exchange.request)) > images:
            images = most
            if consumer is not None:  # how many they are is for the model to say
                consumer = msgspec.structs.replace(consumer, images=0)
        for notify in scope.get(SENDING, ()):
            await notify(Sending(account.name, account.adapter.expects_task(exchange.request), exchange.request.model))
        listener = scope.get(TASK)
        if progress.capture:
            progress.capture.send(account.name, request)
        model = exchange.request.model
        traced = None
        if TRACER.get() is not None:
            traced = operation("attempt", endpoint=progress.endpoint, account=account, model=model)
        with traced or _UNTRACED:
            trace = traced.headers if traced is not None else ()
            if not trace and progress.traceparent:
                trace = trace_headers(progress.traceparent, progress.tracestate)
            paid = PaidRequest(
                upstream=account,
                request=request,
                authorization=exchange.authorization,
                progress=progress,
                consumer=consumer,
                held=exchange.request.held,
                trace=trace,
            )
            with timed_call(progress, account.name, model, images=images, live=request.live):
                reply = await (ask_or_find if request.job_id else ask)(paid)
                if isinstance(reply, PendingTask):
                    on_task = None if listener is None else partial(listener, account.name, exchange.request.n)
                    reply = await follow(paid, reply, on_task)
            if traced is not None:
                traced.note(task_id=progress.upstream_task_id)
            if reply is not None:
                images, usage = len(reply.images), reply.fields.get("usage")
                progress.replied(images, usage)  # paid for, whether it can be read or not
                if traced is not None:
                    traced.note(images=images, usage=usage)
                if account.adapter.keyed_results:
                    sink = consumer.sink if consumer else None
                    reply = await load_results(account, reply, authorization=exchange.authorization, sink=sink)
        if reply is not None:
            await send_reply(scope, send, reply, origin=account.origin)


async def _nothing_below(scope: Scope, receive: Receive, send: Send) -> None:
    raise ModelNotFound("There is no such endpoint.", code="not_found")
