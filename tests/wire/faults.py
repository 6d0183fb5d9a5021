"""Providers that fail in every way, on real sockets: what each does, and what must become of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import struct
import threading
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
from tests.waiting import TIMEOUT, until
from tests.wire.raw_server import raw_server

from imagegate import ExchangeRecord, Hook, ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving

KEY = "sk-live-0123456789abcdef"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
GOOD = {"created": 1, "data": [{"b64_json": base64.b64encode(PNG).decode()}]}
HTML = b"<!doctype html><title>Oops</title><h1>Something is wrong</h1>"
REPLY_LIMIT = 256 * 1024


class Request(NamedTuple):
    """What an upstream got: the fault is the first part of the path."""

    fault: str
    method: str
    path: str
    headers: dict[str, str]


class Connection:
    """One request on a raw connection, and the ways to spoil its answer."""

    def __init__(self, upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.upstream = upstream
        self.reader = reader
        self.writer = writer

    async def head(self) -> Request:
        start = await self.reader.readexactly(1)
        if start == b"\x16":  # a TLS handshake, which this server does not speak
            raise ConnectionError
        text = (start + await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        _, fault, *rest = target.split("/")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return Request(fault, method, "/" + "/".join(rest), headers)

    async def body(self, request: Request) -> bytes:
        if "chunked" in request.headers.get("transfer-encoding", ""):
            return await self.form()
        return await self.reader.readexactly(int(request.headers.get("content-length", "0")))

    async def form(self) -> bytes:
        """A body that comes in chunks, because it is made while it is sent."""
        body = bytearray()
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return bytes(body)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reset(self) -> None:
        """Closes so that the other side gets a reset."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.close()

    async def answer(self, status: int, body: bytes, *headers: str, content_type: str = "application/json") -> None:
        lines = [f"HTTP/1.1 {status} Status", f"content-type: {content_type}", f"content-length: {len(body)}", *headers]
        await self.write("\r\n".join([*lines, "", ""]).encode() + body)

    async def json(self, status: int, document: Any, *headers: str) -> None:
        await self.answer(status, json.dumps(document).encode(), *headers)

    async def left(self) -> None:
        """Waits until the other side has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1024):
                pass


Behaviour = Callable[[Connection, Request], Awaitable[None]]


class Upstream:
    """A server in a thread of its own that does to each request what its path says, and counts them."""

    def __init__(self, behaviours: Mapping[str, Behaviour]) -> None:
        self.behaviours = behaviours
        self.posts: Counter[str] = Counter()
        self.gets: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        """Requests for what no behaviour is there for."""
        self.left: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        """Set when the other side has closed the connection of a fault that waits for it."""

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, reader, writer)
        request = await connection.head()
        behaviour = self.behaviours.get(request.fault)
        if behaviour is None:
            self.others[f"{request.method} /{request.fault}{request.path}"] += 1
            await connection.json(404, {})
            return
        (self.posts if request.method == "POST" else self.gets)[request.fault] += 1
        await behaviour(connection, request)

    def running(self) -> contextlib.AbstractContextManager[int]:
        """Serve, and yield the port."""
        return raw_server(self._exchange)


def says(status: int, document: Any, *headers: str) -> Behaviour:
    """Reads the request and answers with bytes of HTML, or a JSON document with its own address for ``<host>``."""

    async def behave(connection: Connection, request: Request) -> None:
        await connection.body(request)
        if isinstance(document, bytes):
            await connection.answer(status, document, *headers, content_type="text/html")
        else:
            host, port = connection.writer.get_extra_info("sockname")
            await connection.answer(status, json.dumps(document).replace("<host>", f"{host}:{port}").encode(), *headers)

    return behave


def writes(*parts: bytes, end: str) -> Behaviour:
    """Reads the request, writes these bytes, and then ends the connection by a close, a reset or by silence."""

    async def behave(connection: Connection, request: Request) -> None:
        await connection.body(request)
        for part in parts:
            await connection.write(part)
        if end == "reset":
            await connection.reset()
        elif end == "silence":
            await connection.left()
            connection.upstream.left[request.fault].set()
        connection.writer.close()

    return behave


async def reset_before_the_body(connection: Connection, request: Request) -> None:
    await connection.reset()


async def endless(connection: Connection, request: Request) -> None:
    """A reply in chunks that never ends."""
    await connection.body(request)
    await connection.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await connection.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


def own(message: str = "It went wrong.", **members: Any) -> dict[str, Any]:
    """A provider's own error."""
    return {"error": {"message": message, "type": "server_error", "code": "own_code", **members}}


def image(content: bytes) -> dict[str, Any]:
    return {"created": 1, "data": [{"b64_json": content.decode()}]}


class Fault(NamedTuple):
    """What a provider does, and what must become of it."""

    behaviour: Behaviour
    outcome: str
    status: int
    """Of the answer where there is no other candidate."""
    elsewhere: bool
    """Whether the next candidate is asked."""
    code: str | None = None
    posts: int = 1
    """That reach the provider at each attempt."""
    again: bool = False
    """Whether the same candidate may be asked again, as soon as `SOON`."""


HALF = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n" + b'{"created":1,"da'
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"

FAULTS: dict[str, Fault] = {
    # Not sent.
    "refused": Fault(says(200, GOOD), "not_sent", 502, True, "upstream_unreachable", posts=0, again=True),
    "no-tls": Fault(says(200, GOOD), "not_sent", 502, True, "upstream_unreachable", posts=0, again=True),
    # Rejected: may go elsewhere.
    "429": Fault(says(429, own(code="rate_limit_exceeded"), "retry-after: 7"), "rejected", 429, True),
    "429-soon": Fault(says(429, own(), "retry-after: 0"), "rejected", 429, True, again=True),
    "429-no-money": Fault(says(429, own(code="insufficient_quota")), "rejected", 429, True, "insufficient_quota"),
    "408": Fault(says(408, own()), "rejected", 408, True, again=True),
    "409": Fault(says(409, own()), "rejected", 409, True, again=True),
    "500": Fault(says(500, own()), "rejected", 500, True, "own_code", again=True),
    "503": Fault(says(503, own(), "retry-after: 3"), "rejected", 503, True, "own_code"),
    "501-detail": Fault(says(501, {"detail": "Not here."}), "rejected", 501, True),
    "failed-in-200": Fault(says(200, {"status": "failed", **own(), "data": []}), "rejected", 502, True, "own_code"),
    "429-in-200": Fault(
        says(200, own(code="rate_limit_exceeded")), "rejected", 429, True, "rate_limit_exceeded", again=True
    ),
    "302": Fault(says(302, HTML, "location: /good/v1/images/generations"), "rejected", 502, True, "upstream_redirect"),
    "307": Fault(
        says(307, {}, "location: http://127.0.0.2/v1/images/generations"), "rejected", 502, True, "upstream_redirect"
    ),
    # Rejected: the client's to mend.
    "400": Fault(says(400, own()), "rejected", 400, False, "own_code"),
    "401": Fault(says(401, own()), "rejected", 401, False),
    "402": Fault(says(402, own()), "rejected", 402, False),
    "403": Fault(says(403, own()), "rejected", 403, False),
    "404": Fault(says(404, own()), "rejected", 404, False),
    "413": Fault(says(413, own()), "rejected", 413, False),
    "422": Fault(says(422, own()), "rejected", 422, False),
    "400-empty": Fault(says(400, b""), "rejected", 400, False),
    "moderated": Fault(says(400, own(code="moderation_blocked")), "rejected", 400, False, "moderation_blocked"),
    "moderated-in-200": Fault(
        says(200, {"promptFeedback": {"blockReason": "SAFETY"}}), "rejected", 400, False, "moderation_blocked"
    ),
    "moderated-500": Fault(
        says(500, own("Your request was rejected by our safety system.")), "rejected", 400, False, "moderation_blocked"
    ),
    # Uncertain: nobody else is asked, and SDKs are told not to ask again.
    "reset-before-body": Fault(reset_before_the_body, "uncertain", 502, False),
    "reset-after-body": Fault(writes(end="reset"), "uncertain", 502, False),
    "close-after-body": Fault(writes(end="close"), "uncertain", 502, False),
    "reset-in-head": Fault(writes(b"HTTP/1.1 200 OK\r\ncontent-ty", end="reset"), "uncertain", 502, False),
    "close-in-head": Fault(writes(b"HTTP/1.1 200 OK\r\ncontent-ty", end="close"), "uncertain", 502, False),
    "reset-in-reply": Fault(writes(HALF, end="reset"), "uncertain", 502, False),
    "close-in-reply": Fault(writes(HALF, end="close"), "uncertain", 502, False),
    "close-in-chunks": Fault(writes(CHUNKED, b'5\r\n{"cre\r\n', end="close"), "uncertain", 502, False),
    "reset-in-chunks": Fault(writes(CHUNKED, b'5\r\n{"cre\r\n', end="reset"), "uncertain", 502, False),
    "no-http": Fault(writes(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", end="close"), "uncertain", 502, False),
    "bad-chunks": Fault(writes(CHUNKED, b"zz\r\n", end="silence"), "uncertain", 502, False),
    "silent-head": Fault(writes(end="silence"), "uncertain", 504, False, "upstream_timeout"),
    "silent-in-head": Fault(writes(b"HTTP/1.1 200 OK\r\n", end="silence"), "uncertain", 504, False),
    "silent-in-reply": Fault(writes(HALF, end="silence"), "uncertain", 504, False),
    "502": Fault(says(502, own()), "uncertain", 502, False),
    "504": Fault(says(504, own()), "uncertain", 504, False),
    "524": Fault(says(524, own()), "uncertain", 504, False),
    "502-html": Fault(says(502, HTML), "uncertain", 502, False),
    "504-html": Fault(says(504, HTML), "uncertain", 504, False),
    "520-html": Fault(says(520, HTML), "uncertain", 502, False),
    "500-html": Fault(says(500, HTML), "uncertain", 502, False),
    "503-html": Fault(says(503, HTML), "uncertain", 502, False),
    "408-html": Fault(says(408, HTML), "uncertain", 502, False),
    "200-html": Fault(says(200, HTML), "uncertain", 502, False),
    "cut-json": Fault(says(200, b'{"created": 1, "data": [{"b64_'), "uncertain", 502, False),
    "empty-body": Fault(says(200, b""), "uncertain", 502, False),
    "empty-object": Fault(says(200, {}), "uncertain", 502, False, "no_image"),
    "empty-data": Fault(says(200, {"created": 1, "data": []}), "uncertain", 502, False, "no_image"),
    "null-data": Fault(says(200, {"created": 1, "data": [None, {}, {"url": ""}]}), "uncertain", 502, False, "no_image"),
    "broken-base64": Fault(says(200, image(b"iVBORw0KGgo!AAAA")), "uncertain", 502, False),
    "cut-base64": Fault(says(200, image(base64.b64encode(PNG)[:-3])), "uncertain", 502, False),
    "wrong-bytes": Fault(says(200, image(base64.b64encode(HTML))), "uncertain", 502, False),
    "file-link": Fault(says(200, {"data": [{"url": "file:///etc/passwd"}]}), "uncertain", 502, False),
    "huge": Fault(says(200, {**GOOD, "padding": "x" * REPLY_LIMIT}), "uncertain", 502, False),
    "huge-error": Fault(says(429, own("x" * REPLY_LIMIT)), "uncertain", 502, False),
    "endless": Fault(endless, "uncertain", 502, False),
}
SOON = 'retries = 2\nbackoff = "2ms"\nlongest_wait = "10ms"\nbreaker_failures = 0'
"""A policy that asks again twice, so soon that no test waits, and not where a provider wants a second's pause."""
SILENT = ("silent-head", "silent-in-head", "silent-in-reply")


class Collector:
    """A hook that keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[ExchangeRecord] = []
        self.breakers: list[tuple[str, str]] = []
        self.started = 0

    def exchange_started(self, progress: object) -> None:
        self.started += 1

    def exchange_ended(self, record: ExchangeRecord) -> None:
        self.records.append(record)

    def breaker_changed(self, upstream: str, state: str) -> None:
        self.breakers.append((upstream, state))

    def of(self, request_id: str) -> ExchangeRecord:
        """The record of one exchange, which comes after the answer."""
        until(lambda: any(record.request_id == request_id for record in self.records))
        (record,) = [record for record in self.records if record.request_id == request_id]
        return record


class Rig(NamedTuple):
    """A gateway in front of the one server that is every upstream."""

    url: str
    upstream: Upstream
    collector: Collector
    secrets: tuple[str, ...]
    """What no client may see."""

    def post(
        self, model: str, *, timeout: float = TIMEOUT, headers: Mapping[str, str] | None = None, **members: Any
    ) -> httpx.Response:
        document = {"model": model, "prompt": "A kite", "response_format": "url", **members}
        return httpx.post(f"{self.url}/v1/images/generations", json=document, timeout=timeout, headers=headers)

    def record_of(self, reply: httpx.Response) -> ExchangeRecord:
        return self.collector.of(reply.headers["x-request-id"])

    def error_of(self, reply: httpx.Response) -> dict[str, Any]:
        """The error of an answer: in the envelope, and without a key or host."""
        error: dict[str, Any] = reply.json()["error"]
        assert list(error) == ["message", "type", "param", "code", "imagegate"]
        shown = reply.text + repr(reply.headers.raw)
        assert [secret for secret in self.secrets if secret in shown] == []
        return error


def table_of(name: str, lines: str) -> str:
    """The further lines of an upstream's table: the given ones, and others where they do not say so themselves."""
    adapter = "" if "adapter =" in lines else 'adapter = "openai"\n'
    timeout = "" if "read_timeout =" in lines else f'read_timeout = "{"300ms" if name in SILENT else "30s"}"\n'
    return f"{adapter}{timeout}{lines}\n"


@contextlib.contextmanager
def rig(
    behaviours: Mapping[str, Behaviour],
    folder: Path,
    *,
    routes: str = "",
    tasks: str = "",
    policy: str = "retries = 0\nbreaker_failures = 0",
    tables: Mapping[str, str] | None = None,
    hooks: Sequence[Hook] = (),
) -> Iterator[Rig]:
    """A gateway with an upstream for each fault, and for each a route alone and one with a second candidate.

    Args:
        tables: lines of an upstream's table.
        hooks: beside the collector.
    """
    upstream, collector = Upstream({**behaviours, "good": says(200, GOOD)}), Collector()
    with upstream.running() as port, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        addresses = {name: f"http://127.0.0.1:{port}/{name}" for name in upstream.behaviours}
        if "refused" in behaviours:
            addresses["refused"] = f"http://127.0.0.1:{closed.getsockname()[1]}/refused"
            addresses["no-tls"] = f"https://127.0.0.1:{port}/no-tls"
        upstreams = "\n".join(
            f'[[upstreams]]\nname = "{name}"\nbase_url = "{address}"\napi_key = "{KEY}"\n'
            f"{table_of(name, (tables or {}).get(name, ''))}"
            # A model that makes one image at a time.
            '[upstreams.models."one"]\nparameters = { prompt = {} }'
            for name, address in addresses.items()
        )
        pairs = "\n".join(
            f'"{name}.alone" = ["{name}/any"]\n"{name}.two" = ["{name}/any", "good/any"]\n'
            f'"{name}.parts" = ["{name}/one"]\n"{name}.parts.two" = ["{name}/one", "good/one"]'
            for name in behaviours
        )
        document = f"""
            {upstreams}
            [routes]
            {pairs}
            {routes}
            [delivery]
            store = "file://{folder}"
            [limits]
            reply_body = {REPLY_LIMIT}
            [tasks]
            {tasks}
            [policy]
            {policy}
        """
        with serving(ImageGateway(config=parse_config(document), hooks=[collector, *hooks])) as bound:
            yield Rig(f"http://127.0.0.1:{bound}", upstream, collector, (KEY, f"127.0.0.1:{port}"))


def leave(running: Rig, model: str, request_id: str, when: Callable[[], object]) -> ExchangeRecord:
    """Sends a request, hangs up when a condition holds, and gives the record of the exchange."""
    address = urlsplit(running.url)
    body = json.dumps({"model": model, "prompt": "A kite"}).encode()
    head = f"POST /v1/images/generations HTTP/1.1\r\nhost: localhost\r\nx-request-id: {request_id}\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=TIMEOUT) as connection:
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        until(when)
    return running.collector.of(request_id)
