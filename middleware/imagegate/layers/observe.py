"""Observe: a request id for every exchange, and one record at its end."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from time import perf_counter
from uuid import uuid4

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from imagegate.asgi import ClientDisconnected, header, send_error
from imagegate.errors import ImagegateError
from imagegate.events import PROGRESS_KEY, Hook, Hooks, Progress, finish
from imagegate.layers.base import Answer, Layer, answer_errors, endpoint_of
from imagegate.log import LogHook

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class Observe(Layer):
    """Names, times and records exchanges, and answers what went wrong without a word about the inside.

    Args:
        hooks: told about every exchange; default: one log line each.
    """

    def __init__(self, app: ASGIApp, *, prefix: str = "/v1", hooks: Hooks | Sequence[Hook] | None = None) -> None:
        super().__init__(app, prefix=prefix)
        self.hooks = hooks if isinstance(hooks, Hooks) else Hooks((LogHook(),) if hooks is None else hooks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = endpoint_of(scope, self.prefix) if scope["type"] == "http" else None
        if endpoint is None or PROGRESS_KEY in scope:
            await super().__call__(scope, receive, send)
            return
        progress = Progress(endpoint, request_id=_request_id(scope))
        answer = Answer(send, progress)
        started = perf_counter()
        self.hooks.exchange_started(progress)
        try:
            with structlog.contextvars.bound_contextvars(request_id=progress.request_id):
                await answer_errors(self, {**scope, PROGRESS_KEY: progress}, receive, answer)
        except ClientDisconnected:
            progress.error_code = "client_disconnected"
            answer.status = 499
        except Exception:
            progress.error_code = "internal_error"
            structlog.get_logger("imagegate").exception("unexpected error", request_id=progress.request_id)
            if answer.status is not None:
                raise  # the answer has begun; the server hangs up, so that nobody takes it for whole
            # What was sent upstream may have been paid for: the official SDKs must not send it again.
            paid = [(b"x-should-retry", b"false")] if progress.attempts else []
            await send_error(answer, ImagegateError("The gateway failed.", code="internal_error", headers=paid))
        finally:
            seconds = perf_counter() - started
            if answer.status is None and isinstance(sys.exc_info()[1], BaseException):
                progress.error_code = progress.error_code or "cancelled"
            record = finish(progress, status=answer.status or 499, seconds=seconds)
            self.hooks.exchange_ended(record)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.down(scope, receive, send)


def _request_id(scope: Scope) -> str:
    """The client's own, where it is one that a log can hold; else a new one."""
    sent = header(scope, b"x-request-id")
    return sent.decode() if sent and _REQUEST_ID.fullmatch(sent) else f"req_{uuid4().hex}"
