"""A provider on a real socket that records requests and sends the answers that a test sets."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from threading import Lock
from typing import Any, Self
from urllib.parse import parse_qsl

import httpx
import msgspec
from starlette.types import Receive, Scope, Send

from imagegate.server.in_thread import serving


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A request that the provider got."""

    method: str
    url: str
    """In full."""
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

    @property
    def text(self) -> str:
        """The body as text; of JSON, with its strings as they are meant."""
        if self.headers.get("content-type") == "application/json":
            return "\n".join(_strings(self.json))
        return self.body.decode("utf-8", "replace")

    def carries(self, content: bytes) -> bool:
        """Return whether the body has a file in it, as it is or as base64."""
        return content in self.body or b64encode(content) in self.body


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield name
            yield from _strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value)
    else:
        yield str(node)


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
    def transport(self) -> httpx.ASGITransport:
        """For ``ImageGateway(transport=...)``: requests to any upstream end here, without a network."""
        return httpx.ASGITransport(app=self, raise_app_exceptions=False)

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
        query = scope["query_string"].decode("ascii")
        reply = self._reply(
            Seen(
                method=scope["method"],
                url=self.url + scope["raw_path"].decode("ascii") + (f"?{query}" if query else ""),
                path=scope["raw_path"].decode("ascii"),
                query=tuple(parse_qsl(query, keep_blank_values=True)),
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
