"""A provider that records what it is sent and answers what a test tells it, on a real socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from threading import Lock
from typing import Any, Self
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope, Send

from imagegate.server.in_thread import serving


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A request that the provider got."""

    method: str
    path: str
    """As sent, percent-encoded, without the query."""
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider answers."""

    status: int = 200
    document: Any = None
    """Sent as JSON, in place of `body`."""
    body: bytes = b""
    headers: Mapping[str, str] = {}


class Lost(msgspec.Struct, frozen=True):
    """In place of an answer: the connection breaks after the request has been read."""


Reply = Answer | Lost
Handler = Callable[[Seen], Reply]


class FakeUpstream:
    """A provider on a socket of its own while it is a context::

        with FakeUpstream(Answer(document={"data": [{"b64_json": "..."}]})) as provider:
            ...  # send requests to provider.url
        assert provider.seen[0].path == "/v1/images/generations"

    Args:
        answers: one for each request in order, the last one also for all that follow; or a function of the request.
    """

    def __init__(self, *answers: Reply, handler: Handler | None = None) -> None:
        self._answers = answers
        self._handler = handler
        self._stack = ExitStack()
        self._lock = Lock()
        self.seen: list[Seen] = []
        """What came in, in order."""
        self.url = ""
        """Scheme, host and port, once it serves."""

    def __enter__(self) -> Self:
        port = self._stack.enter_context(serving(self))
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def posts(self) -> list[Seen]:
        """The requests that may have cost something."""
        return [each for each in self.seen if each.method == "POST"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as an ASGI application."""
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        reply = self._reply(
            Seen(
                method=scope["method"],
                path=scope["raw_path"].decode("ascii"),
                query=tuple(parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True)),
                headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
                body=body,
            )
        )
        if isinstance(reply, Lost):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
            return  # the server closes a connection whose reply is not complete
        content = reply.body if reply.document is None else msgspec.json.encode(reply.document)
        headers = {
            **({} if reply.document is None else {"content-type": "application/json"}),
            "content-length": str(len(content)),
            **reply.headers,
        }
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": fields})
        await send({"type": "http.response.body", "body": content})

    def _reply(self, seen: Seen) -> Reply:
        with self._lock:
            self.seen.append(seen)
            place = min(len(self.seen), len(self._answers)) - 1
        return self._handler(seen) if self._handler else self._answers[place]
