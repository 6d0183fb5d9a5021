"""Observe: a request id and one record for every exchange."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from imagegate.asgi.helpers import ClientDisconnected, request_id, send_error
from imagegate.errors import ImagegateError
from imagegate.layers.base import Endpoint, Layer, OutermostSend, Work, answer_errors, endpoint_of
from imagegate.logger import get_logger
from imagegate.protocol.trace_context import read_traceparent, read_tracestate, trace_id
from imagegate.telemetry.capture import Capture
from imagegate.telemetry.hooks import Hook, Hooks
from imagegate.telemetry.log import LogHook
from imagegate.telemetry.progress import PROGRESS_KEY, Progress


class Observe(Layer):
    """Identifies, times and records exchanges, and answers unexpected errors without internal details.

    Args:
        hooks: called for every exchange; default: one log line each.
        capture: creates the recorder of an exchange's bodies; None: bodies are not recorded.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        prefix: str = "/v1",
        hooks: Hooks | Sequence[Hook] | None = None,
        capture: Callable[[], Capture] | None = None,
    ) -> None:
        super().__init__(app, prefix=prefix)
        self.hooks = hooks if isinstance(hooks, Hooks) else Hooks((LogHook(),) if hooks is None else hooks)
        self._capture = capture

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = endpoint_of(scope, self.prefix) if scope["type"] == "http" else None
        if endpoint is None or PROGRESS_KEY in scope:
            await super().__call__(scope, receive, send)
        else:
            await self.observe(endpoint, scope, receive, send)

    async def observe(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request that is known to be for `endpoint`."""
        sent_id, traceparent, tracestate = _sent_names(scope)
        progress = Progress(endpoint, request_id=request_id(sent_id))
        if traceparent is not None:
            progress.traceparent = read_traceparent(traceparent)
            if tracestate and progress.traceparent:
                progress.tracestate = read_tracestate(tracestate)
        progress.capture = self._capture() if self._capture else None
        client = _Client(receive, send, progress)
        started = perf_counter()
        self.hooks.exchange_started(progress)
        names = {"request_id": progress.request_id}  # of all log lines of the exchange
        if progress.traceparent:
            names["trace_id"] = trace_id(progress.traceparent)
        bound = bind_contextvars(**names)
        try:
            await answer_errors(self.down, {**scope, PROGRESS_KEY: progress}, client.receive, client)
        except ClientDisconnected:
            if not client.is_whole:
                progress.error_code = "client_disconnected"
                client.status = 499
        except Exception:
            progress.error_code = "internal_error"
            get_logger().exception("unexpected error", request_id=progress.request_id)
            if client.status is not None:
                raise  # the response has started; the server closes the connection, so it is not taken for complete
            # The request may have been billed: the official SDKs must not retry it.
            paid = [(b"x-should-retry", b"false")] if progress.attempts else []
            await send_error(client, ImagegateError("The gateway failed.", code="internal_error", headers=paid))
        finally:
            reset_contextvars(**bound)
            seconds = perf_counter() - started
            if client.status is None and isinstance(sys.exc_info()[1], BaseException):
                progress.error_code = progress.error_code or "cancelled"
            self.hooks.exchange_ended(progress, status=client.status or 499, seconds=seconds)
            if progress.capture:
                progress.capture.forget_answer()

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Work:
        return self.down(scope, receive, send)


class _Client(OutermostSend):
    """The outermost `receive` and `send`, which count what comes in and goes out."""

    def __init__(self, receive: Receive, send: Send, progress: Progress) -> None:
        super().__init__(send, progress)
        self._receive = receive
        self._started = perf_counter()
        self.is_whole = False
        """Whether the response is complete: a disconnect after it is not early."""

    async def receive(self) -> Message:
        """Receive a message of the request."""
        message = await self._receive()
        if body := message.get("body"):
            self._progress.bytes_in += len(body)
        return message

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self.is_whole = not message.get("more_body", False)
            if body := message.get("body"):
                progress = self._progress
                progress.bytes_out += len(body)
                if progress.first_byte_seconds is None:
                    progress.first_byte_seconds = perf_counter() - self._started
                if progress.capture:
                    progress.capture.answer(body)
        await super().__call__(message)


def _sent_names(scope: Scope) -> tuple[bytes | None, bytes | None, Sequence[bytes]]:
    """Return the first ``x-request-id`` and ``traceparent``, and each ``tracestate``, in one pass."""
    sent_id = traceparent = None
    tracestate: Sequence[bytes] = ()
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            sent_id = sent_id or value
        elif name == b"traceparent":
            traceparent = traceparent or value
        elif name == b"tracestate":
            tracestate = [*tracestate, value]
    return sent_id, traceparent, tracestate
