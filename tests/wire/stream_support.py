"""What the tests of streams share: a provider that streams at the test's word, gateways, and a reader of events."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx
from starlette.types import Receive, Scope, Send
from tests.waiting import until
from tests.wire.edit_support import picture

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving
from imagegate.telemetry.record import ExchangeRecord

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
KEY = "sk-key-of-the-gateway"
PARTIAL, FINAL = picture(1), picture(2)
USAGE = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
MIB = 1024 * 1024

Form = Literal["url", "b64_json"]


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def frame(name: str, document: Any, *, end: str = "\n") -> bytes:
    """An event as OpenAI writes it."""
    data = document if isinstance(document, str) else json.dumps(document, separators=(",", ":"))
    return f"event: {name}{end}data: {data}{end}{end}".encode() if name else f"data: {data}{end}{end}".encode()


def partial(index: int = 0, kind: str = "image_generation", **members: Any) -> bytes:
    name = f"{kind}.partial_image"
    known = {"type": name, "b64_json": b64(PARTIAL), "created_at": 7, "partial_image_index": index, "size": "256x256"}
    return frame(name, {**known, **members})


def completed(kind: str = "image_generation", **members: Any) -> bytes:
    name = f"{kind}.completed"
    known = {"type": name, "b64_json": b64(FINAL), "created_at": 8, "size": "256x256", "usage": USAGE}
    return frame(name, {**known, **members})


def error_frame(message: str, name: str = "error", **members: Any) -> bytes:
    return frame(name, {"type": "error", "error": {"message": message, **members}})


class Cut(Exception):
    """The connection is dropped."""


class Provider:
    """Streams what a test says, when it says so, to every POST; GETs are answered from `files`."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        self.gets: list[str] = []
        self.status = 200
        self.content_type = "text/event-stream"
        self.files: dict[str, bytes] = {"/files/final.png": FINAL}
        self.sent = 0
        self.left = threading.Event()
        """Whether the gateway hung up before the end."""
        self._steps: deque[bytes | Cut | None] = deque()

    def say(self, *pieces: bytes) -> None:
        self._steps.extend(pieces)

    def end(self) -> None:
        self._steps.append(None)

    def cut(self) -> None:
        self._steps.append(Cut())

    def says(self, *pieces: bytes) -> None:
        """All at once, and nothing more."""
        self.say(*pieces)
        self.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] == "GET":
            self.gets.append(scope["path"])
            body = self.files.get(scope["path"])
            await send({"type": "http.response.start", "status": 404 if body is None else 200, "headers": []})
            await send({"type": "http.response.body", "body": body or b""})
            return
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        if message["type"] == "http.disconnect":
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.posts.append((scope["path"], headers, body + message.get("body", b"")))
        own = f"http://{headers['host']}".encode()
        watcher = asyncio.create_task(self._watch(receive, self.left))
        try:
            head = [(b"content-type", self.content_type.encode()), (b"x-request-id", b"req-of-the-provider")]
            await send({"type": "http.response.start", "status": self.status, "headers": head})
            async for piece in self._pieces(self._steps, self.left):
                piece = piece.replace(b"<own>", own)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                self.sent += len(piece)
            watcher.cancel()
            await send({"type": "http.response.body", "body": b""})
        finally:
            watcher.cancel()

    async def _pieces(self, steps: deque[bytes | Cut | None], left: threading.Event) -> AsyncIterator[bytes]:
        """Of the test that asked; the next one has steps of its own."""
        while not left.is_set():
            if not steps:
                await asyncio.sleep(0.002)
                continue
            step = steps.popleft()
            if step is None:
                return
            if isinstance(step, Cut):
                raise step
            yield step

    async def _watch(self, receive: Receive, left: threading.Event) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    @property
    def document(self) -> Any:
        """Of the one POST."""
        ((_, _, body),) = self.posts
        return json.loads(body)


class Records:
    """Keeps the record of every exchange."""

    def __init__(self) -> None:
        self.all: list[ExchangeRecord] = []

    def exchange_ended(self, record: ExchangeRecord) -> None:
        self.all.append(record)


class Gateway(NamedTuple):
    url: str
    store: Path
    records: Records

    @property
    def stored(self) -> list[Path]:
        """Files of the store, parts of pictures among them."""
        return [path for path in self.store.iterdir() if not path.name.startswith(".")] if self.store.is_dir() else []


@contextlib.contextmanager
def gateway(
    ports: Sequence[int], store: Path, delivery: str = "", *, retries: int = 0, upstream: str = "[[upstreams]]\n"
) -> Iterator[Gateway]:
    """In front of providers called ``openai`` and ``second``."""
    upstreams = "".join(
        f'{upstream}name = "{name}"\nadapter = "openai"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "{KEY}"\n'
        '[upstreams.models."one-at-a-time"]\nfamily = "gpt-image-1"\nparameters.n = { type = "integer", max = 1 }\n'
        for name, port in zip(("openai", "second"), ports, strict=False)
    )
    routes = '[routes]\nboth = ["openai/gpt-image-1", "second/gpt-image-1"]\n' if len(ports) > 1 else ""
    records = Records()
    policy = f"[policy]\nretries = {retries}\nbreaker_failures = 0\n"
    config = parse_config(f'{upstreams}{routes}{policy}[delivery]\nstore = "file://{store}"\n{delivery}')
    with serving(ImageGateway(config=config, hooks=(records,))) as port:
        yield Gateway(f"http://127.0.0.1:{port}", store, records)


def record_of(gate: Gateway) -> ExchangeRecord:
    """Of the one exchange that there was."""
    until(lambda: gate.records.all, what="the record")
    (record,) = gate.records.all
    return record


class Event(NamedTuple):
    name: str
    data: Any
    """The document, or the text that is none."""
    raw: bytes
    """With the empty line at its end."""


class Events:
    """The events of a reply, as they come."""

    def __init__(self, reply: httpx.Response) -> None:
        self.reply = reply
        self.comments: list[bytes] = []
        self._pieces = reply.iter_raw()
        self._buffer = b""

    def block(self) -> bytes | None:
        """Up to the next empty line; None: the reply has ended."""
        while b"\n\n" not in self._buffer:
            piece = next(self._pieces, None)
            if piece is None:
                assert self._buffer == b""
                return None
            self._buffer += piece
        found, _, self._buffer = self._buffer.partition(b"\n\n")
        return found + b"\n\n"

    def next(self) -> Event | None:
        while (raw := self.block()) is not None:
            lines = raw.decode().split("\n")
            data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
            if not data:
                self.comments.append(raw)
                continue
            name = next((line.removeprefix("event: ") for line in lines if line.startswith("event: ")), "")
            text = "\n".join(data)
            return Event(name, json.loads(text) if text.startswith("{") else text, raw)
        return None

    def __iter__(self) -> Iterator[Event]:
        while (event := self.next()) is not None:
            yield event


@contextlib.contextmanager
def asking(
    gate: Gateway | str,
    form: Form | None = None,
    *,
    model: str = "openai/gpt-image-1",
    path: str = GENERATIONS,
    **members: Any,
) -> Iterator[Events]:
    document = {"model": model, "prompt": "A kite", "stream": True, **members}
    if form is not None:
        document["response_format"] = form
    url = gate if isinstance(gate, str) else gate.url
    with httpx.stream("POST", url + path, json=document, timeout=30) as reply:
        yield Events(reply)


def all_of(gate: Gateway | str, form: Form | None = None, **members: Any) -> list[Event]:
    with asking(gate, form, **members) as events:
        assert events.reply.status_code == 200, events.reply.read()
        assert events.reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        return list(events)


def refused(gate: Gateway, form: Form | None = None, **members: Any) -> tuple[httpx.Response, dict[str, Any]]:
    """The error of an answer that did not begin as a stream."""
    with asking(gate, form, **members) as events:
        reply = events.reply
        reply.read()
    assert reply.headers["content-type"] == "application/json"
    return reply, reply.json()["error"]


def content_of(event: Event, form: str) -> bytes:
    """The picture of an event, which must be in that form and no other."""
    assert {"url", "b64_json"} & set(event.data) == {form}
    if form == "b64_json":
        return base64.b64decode(event.data["b64_json"], validate=True)
    loaded = httpx.get(event.data["url"])
    assert loaded.headers["content-type"].startswith("image/")
    return loaded.content


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.name.rpartition(".")[2] for event in events]
