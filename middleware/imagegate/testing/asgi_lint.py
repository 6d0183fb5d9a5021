"""A protocol checker to put around ASGI applications in tests: order and types of all messages, both ways."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SENT = {
    "http": ("http.response.start", "http.response.body"),
    "websocket": ("websocket.accept", "websocket.send", "websocket.close"),
    "lifespan": (
        "lifespan.startup.complete",
        "lifespan.startup.failed",
        "lifespan.shutdown.complete",
        "lifespan.shutdown.failed",
    ),
}
_RECEIVED = {
    "http": ("http.request", "http.disconnect"),
    "websocket": ("websocket.connect", "websocket.receive", "websocket.disconnect"),
    "lifespan": ("lifespan.startup", "lifespan.shutdown"),
}


class LintError(AssertionError):
    """A violation of the ASGI protocol."""


class Lint:
    """Passes everything on, and notes in `problems` whatever the ASGI specification does not allow.

    What the application receives is checked as well as what it sends, so that a layer between two of these is
    checked on both of its sides. A problem is raised too, but a layer may take that for the application's own error.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.problems: list[str] = []
        self.calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        if scope["type"] != "http":
            await self.app(scope, *self._watched(scope["type"], receive, send))
            return
        before = dict(scope)
        exchange = _HTTPExchange(self, scope, receive, send)
        self._check_http_scope(scope)
        await self.app(scope, exchange.receive, exchange.send)
        exchange.check_complete()
        added = sorted(name for name in scope if name not in before)
        changed = sorted(name for name, value in before.items() if scope.get(name) is not value)
        self.check(not added and not changed, f"the scope was changed in place: {added + changed}")

    def check(self, good: bool, problem: str) -> None:
        if not good:
            self.problems.append(problem)
            raise LintError(problem)

    def check_headers(self, headers: Iterable[Any]) -> None:
        for name, value in headers:
            self.check(type(name) is bytes and type(value) is bytes, f"a header of wrong type: {name!r}")
            self.check(name == name.lower() and name.strip() == name != b"", f"a header's name: {name!r}")
            self.check(not set(value) & set(b"\r\n\0"), f"a header's value: {value!r}")

    def _check_http_scope(self, scope: Scope) -> None:
        self.check(isinstance(scope["method"], str) and scope["method"].isupper(), "the method is no upper-case word")
        self.check(isinstance(scope["path"], str) and scope["path"].startswith("/"), "the path does not start with /")
        self.check(isinstance(scope.get("query_string", b""), bytes), "query_string is no bytes")
        self.check_headers(scope["headers"])
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        self.check(len(lengths) <= 1, "content-length twice in a request")

    def _watched(self, kind: str, receive: Receive, send: Send) -> tuple[Receive, Send]:
        async def watched_receive() -> Message:
            message = await receive()
            self.check(message["type"] in _RECEIVED[kind], f"{message['type']} received in {kind}")
            return message

        async def watched_send(message: Message) -> None:
            self.check(message["type"] in _SENT[kind], f"{message['type']} sent in {kind}")
            await send(message)

        return watched_receive, watched_send


class _HTTPExchange:
    """One request and its answer."""

    def __init__(self, lint: Lint, scope: Scope, receive: Receive, send: Send) -> None:
        self._lint = lint
        self._receive = receive
        self._send = send
        self._extensions = scope.get("extensions") or {}
        self._announced = _content_length(scope["headers"])
        self._read = 0
        self._request_over = False
        self._disconnected = False
        self._started = False
        self._over = False
        self._typed = False
        self._promised: int | None = None
        self._written = 0

    async def receive(self) -> Message:
        message = await self._receive()
        check = self._lint.check
        check(message["type"] in _RECEIVED["http"], f"{message['type']} received in http")
        if message["type"] == "http.disconnect":
            self._disconnected = True
            return message
        check(not self._request_over, "http.request after the end of the body")
        body = message.get("body", b"")
        check(type(body) is bytes, "the body of http.request is no bytes")
        self._read += len(body)
        if not message.get("more_body", False):
            self._request_over = True
            good = self._announced is None or self._announced == self._read
            check(good, f"a request of {self._read} bytes was announced as {self._announced}")
        return message

    async def send(self, message: Message) -> None:
        check = self._lint.check
        kind = message["type"]
        if kind == "imagegate.reply":
            check(kind in self._extensions, "a typed reply whose extension was not announced")
            check(not self._started and not self._typed, "a typed reply after the answer began")
            self._typed = True
        elif kind == "http.response.start":
            check(not self._started and not self._typed, "two answers")
            self._started = True
            status = message["status"]
            check(type(status) is int and 100 <= status <= 599, f"the status {status!r}")
            headers = list(message.get("headers", ()))
            self._lint.check_headers(headers)
            check(sum(name == b"content-length" for name, _ in headers) <= 1, "content-length twice in an answer")
            self._promised = _content_length(headers)
        elif kind == "http.response.body":
            check(self._started, "a body before the start")
            check(not self._over, "a body after the end")
            body = message.get("body", b"")
            check(type(body) is bytes, "the body of an answer is no bytes")
            self._written += len(body)
            if not message.get("more_body", False):
                self._over = True
                good = self._promised is None or self._promised == self._written
                check(good, f"an answer of {self._written} bytes was promised as {self._promised}")
        else:
            check(kind in self._extensions, f"{kind} sent in http")
        await self._send(message)

    def check_complete(self) -> None:
        complete = self._over or self._typed or self._disconnected
        self._lint.check(complete, "the application returned before the answer was complete")


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    return next((int(value) for name, value in headers if name == b"content-length"), None)
