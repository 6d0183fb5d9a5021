"""What providers and clients were seen to send (`tests/field`), and a strict provider that sends it on real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import csv
import hashlib
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx
from tests.wire.raw_server import raw_server

from imagegate import ImageGateway
from imagegate.config.loader import parse_config

KEY: Final = "sk-key-of-the-provider"
CLIENT: Final = {"authorization": "Bearer sk-key-of-a-client"}
GENERATIONS: Final = "/v1/images/generations"
EDITS: Final = "/v1/images/edits"
FIELD: Final = Path(__file__).parent.parent / "field"
TIMEOUT: Final = 20.0
"""Seconds until a server that should start is given up."""


def lines(name: str) -> list[dict[str, Any]]:
    """The entries of a file with one JSON object in each line."""
    return [json.loads(line) for line in (FIELD / name).read_text("utf-8").splitlines() if line]


def rows(name: str) -> list[dict[str, str]]:
    with (FIELD / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def picture(size: int) -> bytes:
    """A PNG whose bytes depend on nothing but the size of a chunk in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 0))
    filling = chunk(b"fiLd", hashlib.shake_256(b"field").digest(size))
    return (
        b"\x89PNG\r\n\x1a\n" + head + filling + chunk(b"IDAT", zlib.compress(bytes(17 * 16), 9)) + chunk(b"IEND", b"")
    )


SMALL: Final = picture(59)
LARGE: Final = picture(1_500_000)


class Request(NamedTuple):
    """What a provider got."""

    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


class Answer(NamedTuple):
    """What a provider sends, byte for byte."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    is_framed: bool = False
    """Whether `headers` say how long the body is; else a Content-Length does."""
    hangs: bool = False
    """Whether the connection stays open and silent after the body, without an end of it."""

    def head(self) -> bytes:
        fields = [f"{name}: {value}" for name, value in self.headers]
        if self.hangs:
            fields.append("Transfer-Encoding: chunked")
        elif not self.is_framed:
            fields.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([f"HTTP/1.1 {self.status} Status", *fields, "", ""]).encode()

    def content(self) -> bytes:
        return b"%x\r\n%b\r\n" % (len(self.body), self.body) if self.hangs else self.body


NOT_FOUND: Final = Answer(404, (("Content-Type", "application/json"),), b'{"detail":"Not Found"}')


class Provider:
    """A server that answers what the test says, keeps what it got, and takes only HTTP that is well-formed.

    A test sets `answers`: target, or method and target, -> answer; `posts` answers every POST that has none.
    """

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Answer | Callable[[Request], Answer]] = {}
        self.post: Answer | Callable[[Request], Answer] = NOT_FOUND
        self.requests: list[Request] = []
        self.faults: list[str] = []
        """What no well-formed request has."""
        self.demands_length = False
        """Whether a body of unknown length is answered 411, unread."""
        self.port = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def posts(self) -> list[Request]:
        return [request for request in self.requests if request.method == "POST"]

    def reset(self) -> None:
        self.answers, self.post, self.requests, self.faults = {}, NOT_FOUND, [], []
        self.demands_length = False

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *others = head.removesuffix("\r\n\r\n").split("\r\n")
        method, target, version = first.split(" ")
        headers: dict[str, str] = {}
        for line in others:
            name, colon, value = line.partition(": ")
            if not colon or name.lower() in headers:
                self.faults.append(line)
            headers[name.lower()] = value
        if version != "HTTP/1.1" or not re.fullmatch(r"/[!-~]*", target) or "host" not in headers:
            self.faults.append(first)
        if self.demands_length and "transfer-encoding" in headers:
            self.faults.append("no length")
            writer.write(Answer(411, (("Connection", "close"),)).head())
            await writer.drain()
            writer.close()
            return
        request = Request(method, target, headers, await self._body(reader, headers))
        self.requests.append(request)
        found = self.answers.get((method, target), self.post if method == "POST" else NOT_FOUND)
        answer = found if isinstance(found, Answer) else found(request)
        writer.write(answer.head() + answer.content())
        await writer.drain()
        if answer.hangs:
            await reader.read()

    async def _body(self, reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
        if "transfer-encoding" not in headers:
            return await reader.readexactly(int(headers.get("content-length", "0")))
        if "content-length" in headers:
            self.faults.append("two framings")
        body = bytearray()
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return bytes(body)

    @contextlib.contextmanager
    def running(self) -> Iterator[Provider]:
        with raw_server(self._exchange, limit=2**22) as self.port:
            yield self


class Part(NamedTuple):
    """A part of a form, as it was sent."""

    name: str
    filename: str | None
    media_type: str
    content: bytes


_DISPOSITION = re.compile(r'Content-Disposition: form-data; name="([^"]*)"(?:; filename="([^"]*)")?')


def parts_of(request: Request) -> list[Part]:
    """The parts of a form, read strictly: nothing before, between and after them."""
    boundary = request.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    first, *parts, last = (b"\r\n" + request.body).split(b"\r\n--" + boundary)
    assert (first, last.removesuffix(b"\r\n")) == (b"", b"--")
    found: list[Part] = []
    for part in parts:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        fields = head.decode().split("\r\n")
        disposition = _DISPOSITION.fullmatch(fields[0])
        assert disposition is not None, fields
        types = [field.removeprefix("Content-Type: ").strip() for field in fields[1:]]
        found.append(Part(disposition[1], disposition[2], types[0] if types else "", content))
    return found


class Reply(NamedTuple):
    """An entry of ``replies.jsonl`` as a provider sends it."""

    entry: dict[str, Any]
    is_large: bool

    @property
    def name(self) -> str:
        return f"{self.entry['id']}{'-large' if self.is_large else ''}"

    @property
    def picture(self) -> bytes:
        return LARGE if self.is_large else SMALL

    def answer(self, origin: str, other: str) -> Answer:
        return self._answer(self.entry, origin, other)

    def served(self, origin: str, other: str) -> dict[tuple[str, str], Answer | Callable[[Request], Answer]]:
        """What the provider answers to other requests."""
        return {
            (one["method"], one["path"]): self._answer(one, origin, other, is_large=False)
            for one in self.entry.get("serves", ())
        }

    def _answer(self, said: dict[str, Any], origin: str, other: str, *, is_large: bool | None = None) -> Answer:
        body = base64.b64decode(said["body_base64"]) if "body_base64" in said else said["body"].encode()
        if self.is_large if is_large is None else is_large:
            for small, large in ((SMALL, LARGE), (self._text(SMALL), self._text(LARGE))):
                body = body.replace(small, large)
        body = body.replace(b"<origin>", origin.encode()).replace(b"<other origin>", other.encode())
        headers = tuple((name, value.replace("<other origin>", other)) for name, value in said["headers"].items())
        return Answer(said["status"], headers, body)

    def _text(self, content: bytes) -> bytes:
        if self.entry.get("encoding") == "base64url, no padding":
            return base64.urlsafe_b64encode(content).rstrip(b"=")
        if self.entry.get("encoding") == "base64 in lines":
            return base64.encodebytes(content)
        return base64.b64encode(content)


def replies() -> list[Reply]:
    entries = lines("replies.jsonl")
    return [Reply(entry, large) for entry in entries for large in (False, True) if not large or entry.get("large")]


class Form(NamedTuple):
    """A request in ``forms``: its bytes, and what is right."""

    name: str
    request: bytes
    right: dict[str, Any]


def forms() -> list[Form]:
    return [
        Form(file.stem, file.read_bytes(), json.loads(file.with_suffix(".json").read_text("utf-8"))["right"])
        for file in sorted((FIELD / "forms").glob("*.http"))
    ]


def target_of(url: str) -> str:
    """The path and query of a URL, as they stand in the first line of a request."""
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


JSON: Final = (("Content-Type", "application/json"),)
GOOD: Final = Answer(
    200, JSON, json.dumps({"created": 1, "data": [{"b64_json": base64.b64encode(SMALL).decode()}]}).encode()
)


class Bench(NamedTuple):
    """A gateway, the provider that it asks first, another candidate, and a third server that it must not ask."""

    url: str
    first: Provider
    second: Provider
    other: Provider

    def ask(self, model: str = "alone", **members: Any) -> httpx.Response:
        document = {"model": model, "prompt": "A kite", **members}
        return httpx.post(self.url + GENERATIONS, json=document, headers=CLIENT, timeout=30)

    @property
    def providers(self) -> tuple[Provider, Provider, Provider]:
        return self.first, self.second, self.other


def gateway(folder: Path, first: str, second: str) -> ImageGateway:
    upstreams = "\n".join(
        f'[[upstreams]]\nname = "{name}"\nadapter = "openai"\nbase_url = "{url}"\napi_key = "{KEY}"\n'
        for name, url in (("first", first), ("second", second))
    )
    config = f"""
        {upstreams}
        [routes]
        "alone" = ["first/any"]
        "two" = ["first/any", "second/any"]
        [delivery]
        store = "file://{folder}"
        [tasks]
        poll_interval = "10ms"
        deadline = "3s"
        [access]
        keys = ["sk-key-of-a-client"]
        [policy]
        retries = 0
        breaker_failures = 0
    """
    return ImageGateway(config=parse_config(config))


def check_error(reply: httpx.Response, right: dict[str, Any]) -> None:
    assert reply.status_code == right.get("status", reply.status_code) >= 400, reply.text
    error = reply.json()["error"]
    assert right.get("message_contains", "") in error["message"]
    assert [text for text in right.get("message_lacks", ()) if text in error["message"]] == []
    assert error["code"] == right.get("code", error["code"])
    assert class_of(reply) == right["class"], error
    if "retry_after" in right:
        assert reply.headers["retry-after"] == right["retry_after"]
    if "x_should_retry" in right:
        assert reply.headers["x-should-retry"] == right["x_should_retry"]
    if "lists" in right:
        assert right["lists"] in error["message"] or right["lists"] in json.dumps(error["imagegate"])


def class_of(reply: httpx.Response) -> str:
    if reply.json()["error"]["type"] == "image_generation_user_error":
        return "moderation"
    return "uncertain" if "x-should-retry" in reply.headers else "rejected"


def check_fallback(bench: Bench, answer: Answer, right: dict[str, Any]) -> None:
    if "falls_back" not in right:
        return
    bench.second.requests.clear()
    reply = bench.ask("two")
    assert len(bench.second.posts) == right["falls_back"], reply.text
    assert (reply.status_code == 200) == right["falls_back"]
