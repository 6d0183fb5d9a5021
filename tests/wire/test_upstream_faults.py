"""Providers that fail in every way: who is asked again, what the client hears, and what it must not hear."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import queue
import socket
import struct
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from imagegate import ExchangeRecord, ImageGateway
from imagegate.config import parse_config
from imagegate.demo.servers import serving

KEY = "sk-live-0123456789abcdef"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
GOOD = {"created": 1, "data": [{"b64_json": base64.b64encode(PNG).decode()}]}
HTML = b"<!doctype html><title>Oops</title><h1>Something is wrong</h1>"
REPLY_LIMIT = 256 * 1024
PATIENCE = 20.0
"""Seconds until a condition that should come about is given up."""


def until(condition: Callable[[], object]) -> None:
    """Waits for a condition, and fails where it does not come about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


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
        return await self.reader.readexactly(int(request.headers.get("content-length", "0")))

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
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Connection(self, reader, writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while not writer.is_closing():
                request = await connection.head()
                behaviour = self.behaviours.get(request.fault)
                if behaviour is None:
                    self.others[f"{request.method} /{request.fault}{request.path}"] += 1
                    await connection.json(404, {})
                    continue
                (self.posts if request.method == "POST" else self.gets)[request.fault] += 1
                await behaviour(connection, request)
        writer.close()
        self._tasks.discard(task)

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """Its port."""
        ready: queue.Queue[tuple[int, Callable[[], object]]] = queue.Queue()

        async def main() -> None:
            stopped, loop = asyncio.Event(), asyncio.get_running_loop()
            server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
            ready.put((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(stopped.set)))
            await stopped.wait()
            server.close()
            tasks = tuple(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # lets the connections close

        thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
        thread.start()
        port, stop = ready.get(timeout=PATIENCE)
        try:
            yield port
        finally:
            stop()
            thread.join(PATIENCE)


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
    """That reach the provider."""


HALF = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n" + b'{"created":1,"da'
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"

FAULTS: dict[str, Fault] = {
    # Not sent.
    "refused": Fault(says(200, GOOD), "not_sent", 502, True, "upstream_unreachable", posts=0),
    "no-tls": Fault(says(200, GOOD), "not_sent", 502, True, "upstream_unreachable", posts=0),
    # Rejected: may go elsewhere.
    "429": Fault(says(429, own(code="rate_limit_exceeded"), "retry-after: 7"), "rejected", 429, True),
    "408": Fault(says(408, own()), "rejected", 408, True),
    "409": Fault(says(409, own()), "rejected", 409, True),
    "500": Fault(says(500, own()), "rejected", 500, True, "own_code"),
    "503": Fault(says(503, own(), "retry-after: 3"), "rejected", 503, True, "own_code"),
    "501-detail": Fault(says(501, {"detail": "Not here."}), "rejected", 501, True),
    "failed-in-200": Fault(says(200, {"status": "failed", **own(), "data": []}), "rejected", 502, True, "own_code"),
    "429-in-200": Fault(says(200, own(code="rate_limit_exceeded")), "rejected", 429, True, "rate_limit_exceeded"),
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
    "302": Fault(says(302, HTML, "location: /good/v1/images/generations"), "uncertain", 502, False),
    "307": Fault(says(307, {}, "location: /good/v1/images/generations"), "uncertain", 502, False),
    "cut-json": Fault(says(200, b'{"created": 1, "data": [{"b64_'), "uncertain", 502, False),
    "empty-body": Fault(says(200, b""), "uncertain", 502, False),
    "empty-object": Fault(says(200, {}), "uncertain", 502, False, "no_image"),
    "empty-data": Fault(says(200, {"created": 1, "data": []}), "uncertain", 502, False, "no_image"),
    "null-data": Fault(says(200, {"created": 1, "data": [None, {}, {"url": ""}]}), "uncertain", 502, False, "no_image"),
    "array": Fault(says(200, [GOOD]), "uncertain", 502, False),
    "broken-base64": Fault(says(200, image(b"iVBORw0KGgo!AAAA")), "uncertain", 502, False),
    "cut-base64": Fault(says(200, image(base64.b64encode(PNG)[:-3])), "uncertain", 502, False),
    "wrong-bytes": Fault(says(200, image(base64.b64encode(HTML))), "uncertain", 502, False),
    "file-link": Fault(says(200, {"data": [{"url": "file:///etc/passwd"}]}), "uncertain", 502, False),
    "huge": Fault(says(200, {**GOOD, "padding": "x" * REPLY_LIMIT}), "uncertain", 502, False),
    "huge-error": Fault(says(429, own("x" * REPLY_LIMIT)), "uncertain", 502, False),
    "endless": Fault(endless, "uncertain", 502, False),
}
SILENT = ("silent-head", "silent-in-head", "silent-in-reply")


class Collector:
    """A hook that keeps the records."""

    def __init__(self) -> None:
        self.records: list[ExchangeRecord] = []

    def exchange_ended(self, record: ExchangeRecord) -> None:
        self.records.append(record)

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

    def post(self, model: str, *, timeout: float = PATIENCE, **members: Any) -> httpx.Response:
        document = {"model": model, "prompt": "A kite", "response_format": "url", **members}
        return httpx.post(f"{self.url}/v1/images/generations", json=document, timeout=timeout)

    def record_of(self, reply: httpx.Response) -> ExchangeRecord:
        return self.collector.of(reply.headers["x-request-id"])

    def error_of(self, reply: httpx.Response) -> dict[str, Any]:
        """The error of an answer: in the envelope, and without a key or host."""
        error: dict[str, Any] = reply.json()["error"]
        assert list(error) == ["message", "type", "param", "code", "imagegate"]
        shown = reply.text + repr(reply.headers.raw)
        assert [secret for secret in self.secrets if secret in shown] == []
        return error


@contextlib.contextmanager
def rig(behaviours: Mapping[str, Behaviour], folder: Path, *, routes: str = "", tasks: str = "") -> Iterator[Rig]:
    """A gateway with an upstream for each fault, and for each a route alone and one with a second candidate."""
    upstream, collector = Upstream({**behaviours, "good": says(200, GOOD)}), Collector()
    with upstream.running() as port, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        addresses = {name: f"http://127.0.0.1:{port}/{name}" for name in upstream.behaviours}
        if "refused" in behaviours:
            addresses["refused"] = f"http://127.0.0.1:{closed.getsockname()[1]}/refused"
            addresses["no-tls"] = f"https://127.0.0.1:{port}/no-tls"
        upstreams = "\n".join(
            f'[[upstreams]]\nname = "{name}"\nadapter = "openai"\nbase_url = "{address}"\napi_key = "{KEY}"\n'
            f'read_timeout = "{"300ms" if name in SILENT else "30s"}"\n'
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
        """
        with serving(ImageGateway(config=parse_config(document), hooks=[collector])) as bound:
            yield Rig(f"http://127.0.0.1:{bound}", upstream, collector, (KEY, f"127.0.0.1:{port}"))


# What no client may see, quoted by a provider wherever it can.
LEAKS: dict[str, Behaviour] = {
    "leak-key": says(401, own(f"Incorrect API key provided: {KEY}.")),
    "leak-key-500": says(500, own(f"token {KEY} is over its limit")),
    "leak-key-in-code": says(400, own(code=f"bad_key_{KEY}")),
    "leak-key-in-type": says(400, own(type=KEY)),
    "leak-key-in-param": says(400, own(param=KEY)),
    "leak-key-in-id": says(400, own(), f"x-request-id: {KEY}"),
    "leak-key-in-502": says(502, own(f"upstream said no to Bearer {KEY}")),
    "leak-url": says(500, own("dial tcp: http://<host>/leak-url/v1/images/generations refused")),
    "leak-host": says(500, own("connect to <host> failed")),
    "leak-url-200": says(200, {"status": "failed", **own(f"GET http://<host>/x: 500 ({KEY})")}),
    "leak-other-key": says(500, own("Incorrect API key provided: sk-proj-ZyXwVu98. You can find yours online.")),
    "leak-in-list": says(422, {"detail": [{"loc": ["header", KEY], "msg": f"{KEY} at <host>", "type": "x"}]}),
}


class Parts:
    """A provider of one image at a time that waits until three are asked for, and then answers each in its own way."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self._behaviours = behaviours
        self._asked = 0

    async def __call__(self, connection: Connection, request: Request) -> None:
        mine = self._behaviours[self._asked % len(self._behaviours)]
        self._asked += 1
        while self._asked < len(self._behaviours):
            await asyncio.sleep(0.001)
        await mine(connection, request)


class RefusalThenReset:
    """Refuses the first request with a 429, and resets the others when the first reply has been read to its end."""

    def __init__(self) -> None:
        self._asked = 0
        self._read = False

    async def __call__(self, connection: Connection, request: Request) -> None:
        self._asked += 1
        mine = self._asked
        while self._asked < 2:
            await asyncio.sleep(0.001)
        await connection.body(request)
        if mine == 1:
            await connection.json(429, own(code="rate_limit_exceeded"), "connection: close")
            await connection.left()
            self._read = True
            connection.writer.close()
        else:
            while not self._read:
                await asyncio.sleep(0.001)
            await connection.reset()


PARTS: dict[str, Behaviour] = {
    "parts-made": Parts(*[says(200, GOOD)] * 3),
    "parts-one-fails": Parts(says(200, GOOD), says(500, own("No more.")), says(200, GOOD)),
    "parts-all-refused": Parts(*[says(429, own(), "retry-after: 9")] * 3),
    "parts-refused-and-reset": RefusalThenReset(),
}
HOLDS: dict[str, Behaviour] = {
    "holds-head": writes(end="silence"),
    "holds-reply": writes(HALF, end="silence"),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    behaviours = {name: fault.behaviour for name, fault in FAULTS.items()} | LEAKS | PARTS | HOLDS
    behaviours["named-500"] = says(500, own(), "x-request-id: of-the-first")
    routes = '"all-fail" = ["500/any", "refused/any", "503/any"]'
    with rig(behaviours, tmp_path_factory.mktemp("faulty"), routes=routes) as running:
        yield running


@pytest.mark.parametrize("name", FAULTS)
def test_one_candidate(faulty: Rig, name: str) -> None:
    """With one candidate the provider is asked once, and the client gets the error with the right advice."""
    fault = FAULTS[name]
    before = faulty.upstream.posts.copy()
    reply = faulty.post(f"{name}.alone")
    assert fault.status == reply.status_code, reply.text[:500]
    error = faulty.error_of(reply)
    assert fault.code in (None, error["code"])
    assert name == error["imagegate"]["upstream"]
    assert ("false" if fault.outcome == "uncertain" else None) == reply.headers.get("x-should-retry")
    assert +Counter({name: fault.posts}) == faulty.upstream.posts - before
    record = faulty.record_of(reply)
    assert (fault.status, fault.outcome, name) == (record.status, record.outcome, record.upstream)


@pytest.mark.parametrize("name", FAULTS)
def test_two_candidates(faulty: Rig, name: str) -> None:
    """The second candidate is asked only after an error that shows that the first one made nothing."""
    fault = FAULTS[name]
    before = faulty.upstream.posts.copy()
    reply = faulty.post(f"{name}.two")
    assert +Counter({name: fault.posts, "good": int(fault.elsewhere)}) == faulty.upstream.posts - before
    if fault.elsewhere:
        assert (reply.status_code, reply.headers["imagegate-upstream"]) == (200, "good")
        assert httpx.get(reply.json()["data"][0]["url"]).content == PNG
    else:
        assert fault.status == reply.status_code
        faulty.error_of(reply)


def test_redirects_are_not_followed(faulty: Rig) -> None:
    """A redirect of a POST leads nowhere, and the key goes with it to nobody."""
    before = faulty.upstream.gets.copy(), faulty.upstream.posts["good"], faulty.upstream.others.copy()
    faulty.post("302.alone")
    faulty.post("307.alone")
    assert before == (faulty.upstream.gets, faulty.upstream.posts["good"], faulty.upstream.others)


@pytest.mark.parametrize(("name", "seconds"), [("429", "7"), ("503", "3"), ("500", None), ("502", None)])
def test_retry_after_is_passed_on(faulty: Rig, name: str, seconds: str | None) -> None:
    """The client hears after how many seconds the provider wants to be asked again."""
    assert seconds == faulty.post(f"{name}.alone").headers.get("retry-after")


@pytest.mark.parametrize("name", ["reset-after-body", "500-html", "empty-data", "silent-head", "wrong-bytes"])
def test_sdk_does_not_pay_twice(faulty: Rig, name: str) -> None:
    """The official SDK, with the retries that it comes with, asks once where the picture may have been made."""
    before = faulty.upstream.posts.copy()
    with openai.OpenAI(base_url=f"{faulty.url}/v1", api_key="any") as client, pytest.raises(openai.APIStatusError):
        client.images.generate(model=f"{name}.alone", prompt="A kite", response_format="url")
    assert Counter({name: 1}) == faulty.upstream.posts - before


def test_every_candidate_fails(faulty: Rig) -> None:
    """Where no candidate makes a picture, the error is that of the one that was preferred; each was asked once."""
    before = faulty.upstream.posts.copy()
    reply = faulty.post("all-fail")
    error = faulty.error_of(reply)
    assert (reply.status_code, error["code"], error["imagegate"]["upstream"]) == (500, "own_code", "500")
    assert reply.headers["imagegate-upstream"] == "500"
    assert Counter({"500": 1, "503": 1}) == faulty.upstream.posts - before


def test_record_of_the_second_candidate(faulty: Rig) -> None:
    """The record tells of the provider that answered, and nothing of the one before that it says is another's."""
    record = faulty.record_of(faulty.post("named-500.two"))
    assert (record.upstream, record.attempts, record.outcome, record.error_code) == ("good", 2, "", "")
    assert record.upstream_request_id == ""


@pytest.mark.parametrize("name", LEAKS)
def test_no_key_and_no_host_in_any_answer(faulty: Rig, name: str) -> None:
    """Whatever the provider quotes, and in whichever member, its key and address do not reach the client."""
    reply = faulty.post(f"{name}.alone")
    assert reply.status_code >= 400
    assert faulty.error_of(reply)["message"]


def test_what_looks_like_a_key_is_taken_out(faulty: Rig) -> None:
    """A key in a provider's text that is not the gateway's own, such as the provider's key for its own provider."""
    reply = faulty.post("leak-other-key.alone")
    assert "sk-proj-ZyXwVu98" not in reply.text
    assert faulty.error_of(reply)["message"].startswith("Incorrect API key provided: ")


# Requests in parts


def test_all_parts_are_made(faulty: Rig) -> None:
    """Three images of a model that makes one at a time are three requests and one reply."""
    before = faulty.upstream.posts.copy()
    reply = faulty.post("parts-made.parts", n=3)
    assert (reply.status_code, len(reply.json()["data"])) == (200, 3)
    assert Counter({"parts-made": 3}) == faulty.upstream.posts - before


def test_one_part_fails(faulty: Rig) -> None:
    """One part that fails after others were made is an error that says how many, and nobody is asked again."""
    before = faulty.upstream.posts.copy()
    reply = faulty.post("parts-one-fails.parts.two", n=3)
    error = faulty.error_of(reply)
    assert (reply.status_code, reply.headers["x-should-retry"]) == (500, "false")
    assert error["message"].startswith("2 of 3 images were made")
    assert error["imagegate"]["images_made"] == 2
    assert [httpx.get(image["url"]).content for image in error["imagegate"]["data"]] == [PNG, PNG]
    assert Counter({"parts-one-fails": 3}) == faulty.upstream.posts - before


def test_all_parts_are_refused(faulty: Rig) -> None:
    """Where every part was refused nothing was made, so the next candidate is asked for all of them."""
    before = faulty.upstream.posts.copy()
    reply = faulty.post("parts-all-refused.parts.two", n=3)
    assert (reply.status_code, len(reply.json()["data"])) == (200, 3)
    assert Counter({"parts-all-refused": 3, "good": 3}) == faulty.upstream.posts - before


def test_one_part_is_refused_and_another_uncertain(faulty: Rig) -> None:
    """A part that may have been made keeps the whole from going elsewhere, whichever part failed first."""
    before = faulty.upstream.posts.copy()
    reply = faulty.post("parts-refused-and-reset.parts.two", n=2)
    assert Counter({"parts-refused-and-reset": 2}) == faulty.upstream.posts - before
    assert (reply.status_code >= 400, reply.headers.get("x-should-retry")) == (True, "false")


# Clients that leave


def leave(running: Rig, model: str, request_id: str, when: Callable[[], object]) -> ExchangeRecord:
    """Sends a request, hangs up when a condition holds, and gives the record of the exchange."""
    address = urlsplit(running.url)
    body = json.dumps({"model": model, "prompt": "A kite"}).encode()
    head = f"POST /v1/images/generations HTTP/1.1\r\nhost: x\r\nx-request-id: {request_id}\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE) as connection:
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        until(when)
    return running.collector.of(request_id)


@pytest.mark.parametrize("name", HOLDS)
def test_client_leaves_during_the_call(faulty: Rig, name: str) -> None:
    """When the client leaves, the call to the provider is given up, the record says 499, and others are served."""
    before = faulty.upstream.posts[name]
    record = leave(faulty, f"{name}.two", f"left-{name}", lambda: faulty.upstream.posts[name] > before)
    assert (record.status, record.error_code, record.upstream) == (499, "client_disconnected", name)
    assert faulty.upstream.left[name].wait(PATIENCE)
    assert faulty.upstream.posts[name] == before + 1
    assert faulty.post("good/any").status_code == 200


def test_many_clients_leave(faulty: Rig) -> None:
    """Clients that leave one after the other take no place in the gateway with them."""
    for number in range(5):
        before = faulty.upstream.posts["holds-head"]
        record = leave(
            faulty,
            "holds-head.alone",
            f"left-{number}",
            lambda before=before: faulty.upstream.posts["holds-head"] > before,  # type: ignore[misc]
        )
        assert record.status == 499
    assert faulty.post("good/any").status_code == 200


# Tasks


class Task:
    """A provider that makes a task of every POST and answers questions about it one after the other."""

    def __init__(self, *polls: Behaviour, **members: Any) -> None:
        self._polls = polls
        self._members = members
        self._asked = 0

    async def __call__(self, connection: Connection, request: Request) -> None:
        if request.method == "POST":
            self._asked = 0
            await says(200, {"id": "task-7", "status": "queued", "progress": 0, **self._members})(connection, request)
            return
        mine = self._polls[min(self._asked, len(self._polls) - 1)]
        self._asked += 1
        await mine(connection, request)


DONE = says(200, {"id": "task-7", "status": "completed", "result": {"data": GOOD["data"]}})
WORKING = says(200, {"id": "task-7", "status": "in_progress", "progress": 40})
STRANGE = says(200, {"id": "task-7", "status": "reticulating"})
FAILED = says(200, {"id": "task-7", "status": "failed", "error": {"code": "generation_failed", "message": "No luck."}})


class TaskFault(NamedTuple):
    """What becomes of a task, and of the request."""

    behaviour: Task
    status: int
    code: str | None = None
    elsewhere: bool = False
    retry: str | None = "false"
    """The advice in x-should-retry."""


TASK_FAULTS: dict[str, TaskFault] = {
    "failed": TaskFault(Task(WORKING, FAILED), 502, "generation_failed", elsewhere=True, retry=None),
    "failed-string": TaskFault(
        Task(says(200, {"id": "task-7", "status": "failed", "error": "No luck."})), 502, elsewhere=True, retry=None
    ),
    "cancelled": TaskFault(
        Task(says(200, {"id": "task-7", "status": "cancelled"})), 502, "task_cancelled", elsewhere=True, retry=None
    ),
    "moderated": TaskFault(
        Task(says(200, {"id": "task-7", "status": "failed", "error": {"message": "Against our content policy."}})),
        400,
        "moderation_blocked",
        retry=None,
    ),
    "lost": TaskFault(Task(WORKING, says(404, own("Task not found"))), 502, "task_lost"),
    "lost-empty": TaskFault(Task(says(404, b"")), 502, "task_lost"),
    "lost-new-api": TaskFault(
        Task(says(400, {"code": "task_not_exist", "message": "task_not_exist", "data": None})), 502, "task_lost"
    ),
    "done-empty": TaskFault(Task(says(200, {"id": "task-7", "status": "completed", "data": []})), 502),
    # The provider took the order; that it does not answer questions does not mean that nothing is made.
    "poll-401": TaskFault(Task(says(401, own())), 502, "task_lost"),
    "poll-409": TaskFault(Task(says(409, own())), 502, "task_lost"),
    "poll-410-html": TaskFault(Task(says(410, HTML)), 502, "task_lost"),
}
SURVIVED: dict[str, Behaviour] = {
    "500s": Task(says(500, own()), says(503, HTML), says(502, b""), DONE),
    "429": Task(says(429, own(), "retry-after: 0"), says(425, {}), says(408, HTML), DONE),
    "broken": Task(writes(end="reset"), writes(HALF, end="close"), writes(CHUNKED, end="reset"), DONE),
    "html": Task(says(200, HTML), says(200, b""), DONE),
    "strange": Task(STRANGE, WORKING, STRANGE, DONE),
    "poll-url": Task(DONE, poll_url="/v1/elsewhere/task-7"),
}
ELSEWHERE = {
    "absolute": "http://localhost:<port>/stolen",
    "no-scheme": "//localhost:<port>/stolen",
    "other-scheme": "https://127.0.0.1:<own>/stolen",
    "user": "http://127.0.0.1:<own>@localhost:<port>/stolen",
    "file": "file:///etc/passwd",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Task providers that come to an end; the deadline is far away."""
    behaviours: dict[str, Behaviour] = {name: fault.behaviour for name, fault in TASK_FAULTS.items()}
    with rig(
        {**behaviours, **SURVIVED, "works-on": Task(WORKING)},
        tmp_path_factory.mktemp("tasks"),
        tasks='poll_interval = "10ms"\ndeadline = "60s"',
    ) as running:
        yield running


@pytest.mark.parametrize("name", TASK_FAULTS)
@pytest.mark.parametrize("route", ["alone", "two"])
def test_tasks_that_end_badly(tasks: Rig, name: str, route: str) -> None:
    """A task that failed may be ordered elsewhere; one that was lost or cannot be asked for may not."""
    fault = TASK_FAULTS[name]
    before = tasks.upstream.posts.copy()
    reply = tasks.post(f"{name}.{route}")
    elsewhere = fault.elsewhere and route == "two"
    assert +Counter({name: 1, "good": int(elsewhere)}) == tasks.upstream.posts - before
    if elsewhere:
        assert reply.status_code == 200
        return
    error = tasks.error_of(reply)
    assert fault.status == reply.status_code
    assert fault.code in (None, error["code"])
    assert fault.retry == reply.headers.get("x-should-retry")
    assert error["imagegate"]["upstream_task_id"] == "task-7"


@pytest.mark.parametrize("name", SURVIVED)
def test_bad_answers_while_polling_are_survived(tasks: Rig, name: str) -> None:
    """Questions cost nothing: a task whose questions fail for a while is asked for again, and ordered once."""
    before = tasks.upstream.posts.copy()
    reply = tasks.post(f"{name}.two")
    assert reply.status_code == 200, reply.text
    assert httpx.get(reply.json()["data"][0]["url"]).content == PNG
    assert Counter({name: 1}) == tasks.upstream.posts - before
    assert tasks.record_of(reply).polls >= 1


def test_client_leaves_while_the_task_is_at_work(tasks: Rig) -> None:
    """When the client leaves, nobody asks for the task any more."""
    record = leave(tasks, "works-on.alone", "left-task", lambda: tasks.upstream.gets["works-on"] > 1)
    assert (record.status, record.error_code) == (499, "client_disconnected")
    asked = tasks.upstream.gets["works-on"]
    for _ in range(3):
        assert tasks.post("500s.alone").status_code == 200  # each with pauses in which a question would come
    assert tasks.upstream.gets["works-on"] <= asked + 1


@pytest.fixture(scope="module")
def endless_tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Task providers that come to no end, and a short deadline."""
    behaviours: dict[str, Behaviour] = {
        "never": Task(WORKING),
        "only-errors": Task(says(500, own())),
        "hangs": Task(writes(end="silence")),
    }
    with rig(
        behaviours, tmp_path_factory.mktemp("endless"), tasks='poll_interval = "10ms"\ndeadline = "300ms"'
    ) as running:
        yield running


@pytest.mark.parametrize("name", ["never", "only-errors", "hangs"])
def test_a_task_that_does_not_end(endless_tasks: Rig, name: str) -> None:
    """A task that is not ready at the deadline is a 504 with its id, also where its provider does not answer at all."""
    before = endless_tasks.upstream.posts.copy()
    reply = endless_tasks.post(f"{name}.two", timeout=5)
    error = endless_tasks.error_of(reply)
    assert (reply.status_code, error["code"]) == (504, "upstream_timeout")
    assert error["imagegate"]["upstream_task_id"] == "task-7"
    assert reply.headers["x-should-retry"] == "false"
    assert Counter({name: 1}) == endless_tasks.upstream.posts - before


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_task_on_another_host_is_never_asked_for(name: str, tmp_path: Path) -> None:
    """A poll_url that leaves the provider's origin is not fetched, and neither it nor the key gets out."""
    thief = Upstream({})
    with thief.running() as port:
        address = ELSEWHERE[name].replace("<port>", str(port)).replace("127.0.0.1:<own>", "<host>")
        with rig({"astray": Task(DONE, poll_url=address)}, tmp_path, tasks='poll_interval = "10ms"') as running:
            reply = running.post("astray.alone")
            assert Counter() == thief.others
            assert (reply.status_code, running.error_of(reply)["code"]) == (502, "task_lost")
            assert str(port) not in reply.text


def test_a_task_on_another_host_is_ordered_once(tmp_path: Path) -> None:
    """A provider that took the order and cannot be asked about it may have made it, so nobody else gets the order."""
    astray = Task(DONE, poll_url="http://localhost:9/astray")
    with rig({"astray": astray}, tmp_path, tasks='poll_interval = "10ms"') as running:
        reply = running.post("astray.two")
        assert Counter({"astray": 1}) == running.upstream.posts
        assert reply.headers.get("x-should-retry") == "false"
