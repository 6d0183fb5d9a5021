"""What the tests of tasks and idempotency keys share: a provider that counts, a Redis, and webhooks' receivers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.ports import free_port
from tests.waiting import until
from tests.wire.edit_support import picture

GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"
MODEL = "gpt-image-1.5"
FILES_ONLY = "takes-files"
"""A model whose reference images the gateway must fetch."""
PNG = picture(1)
LARGE = picture(2) + bytes(range(256)) * 4096
"""A picture of a megabyte."""


@dataclass
class Origin:
    """A provider in OpenAI's shape, which does as the prompt says, and counts what it is asked to make.

    ``hold``: answers when `gate` opens; ``drop``: breaks the reply off; ``refuse N``: answers N; ``large``: a megabyte;
    ``stream`` comes as events. ``GET /held.png`` waits for `link_gate`.
    """

    posts: list[dict[str, Any]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    link_gate: threading.Event = field(default_factory=threading.Event)
    left: int = 0
    """Requests whose sender hung up before the answer."""
    refusals: dict[str, int] = field(default_factory=dict)
    """Prompt -> how often it is still refused."""

    def made(self, prompt: str) -> int:
        """POSTs with a prompt."""
        return sum(post["prompt"] == prompt for post in self.posts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] == "GET":
            if scope["path"] == "/held.png":
                await _opened(self.link_gate)
            await _send(send, 200, PNG, b"image/png")
            return
        body = await _body(receive)
        fields = _fields(dict(scope["headers"])[b"content-type"], body)
        self.posts.append(fields)
        prompt: str = fields["prompt"]
        if prompt.startswith("hold") and not await self._held(receive):
            return
        if prompt.startswith("drop"):
            start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]}
            await send(start)
            await send({"type": "http.response.body", "body": b"{", "more_body": True})
            raise RuntimeError("broken off")
        refused = re.match(r"(?:hold )?refuse (\d+)", prompt)
        if refused and self.refusals.get(prompt, 1) > 0:
            self.refusals[prompt] = self.refusals.get(prompt, 1) - 1
            error = {"error": {"message": "No.", "type": "server_error", "code": "refused"}}
            await _send(send, int(refused[1]), json.dumps(error).encode())
            return
        content = base64.b64encode(LARGE if prompt.startswith("large") else PNG).decode()
        if fields.get("stream"):
            event = {"type": "image_generation.completed", "b64_json": content, "usage": {"total_tokens": 1}}
            text = f"event: image_generation.completed\ndata: {json.dumps(event)}\n\n"
            await _send(send, 200, text.encode(), b"text/event-stream")
            return
        n = int(fields.get("n", 1))
        reply = {"created": 1, "data": [{"b64_json": content}] * n, "usage": {"total_tokens": len(self.posts)}}
        await _send(send, 200, json.dumps(reply).encode())

    async def _held(self, receive: Receive) -> bool:
        """Waits for the gate; false where the gateway hangs up before."""
        leaving = asyncio.ensure_future(receive())
        opened = asyncio.ensure_future(_opened(self.gate))
        done, pending = await asyncio.wait({leaving, opened}, return_when=asyncio.FIRST_COMPLETED)
        for future in pending:
            future.cancel()
        if opened not in done:
            self.left += 1
        return opened in done


async def _opened(gate: threading.Event) -> None:
    while not gate.is_set():
        await asyncio.sleep(0.01)


async def _body(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    while True:
        message = await receive()
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


def _fields(content_type: bytes, body: bytes) -> dict[str, Any]:
    if content_type.startswith(b"application/json"):
        return dict(json.loads(body))
    boundary = content_type.partition(b"boundary=")[2]
    fields: dict[str, Any] = {"files": 0}
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0].decode()
        if b"filename=" in head:
            fields["files"] += 1
            fields["file"] = content.removesuffix(b"\r\n")
        else:
            fields[name] = content.removesuffix(b"\r\n").decode()
    return fields


async def _send(send: Send, status: int, body: bytes, kind: bytes = b"application/json") -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    with contextlib.suppress(OSError):
        await send({"type": "http.response.body", "body": body})


def write_config(
    folder: Path, port: int, *, store: Path | None = None, tasks: str = "", idempotency: str = "", more: str = ""
) -> Path:
    """A gateway with the counting provider alone."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "imagegate.toml"
    path.write_text(f"""
[[upstreams]]
name = "openai"
base_url = "http://127.0.0.1:{port}"
api_key = "sk-provider-0123456789"

[upstreams.models.{FILES_ONLY}]
family = "gpt-image-1"
[upstreams.models.{FILES_ONLY}.edits.references]
forms = ["files"]

[delivery]
store = "file://{(store or folder / "images").as_posix()}"
fetch_allow = ["127.0.0.1"]

[policy]
retries = 0
breaker_failures = 0

[tasks]
poll_interval = "100ms"
{tasks}

[idempotency]
{idempotency}

{more}
""")
    return path


def generation(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": prompt, **more}


def held_edit(port: int, prompt: str, **more: Any) -> dict[str, Any]:
    """An edit whose reference image the gateway must fetch first, which waits for `Origin.link_gate`."""
    return {
        "model": FILES_ONLY,
        "prompt": prompt,
        "images": [{"image_url": f"http://127.0.0.1:{port}/held.png"}],
        **more,
    }


def ended(client: httpx.Client, location: str) -> dict[str, Any]:
    """The task's document once it is over."""
    found: dict[str, Any] = {}

    def is_over() -> bool:
        reply = client.get(location)
        assert reply.status_code == 200, reply.text
        found.clear()
        found.update(reply.json())
        time.sleep(0.02)
        return found["status"] in ("completed", "failed")

    until(is_over, what="the end of the task")
    return found


class Redis:
    """A ``redis-server`` of the tests' own, which remembers nothing when it is started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [*command, "--dir", str(self._folder)], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        until(self._answers, what="Redis")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Drops everything."""
        self.stop()
        self.start()

    def signal(self, number: signal.Signals) -> None:
        """Stops the process where it stands, or lets it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    @contextlib.contextmanager
    def client(self) -> Generator[Any]:
        """redis-py's client, for what only a test does to a Redis."""
        import redis

        with redis.Redis(port=self.port) as client:
            yield client

    def everything(self) -> bytes:
        """All keys and values, as text."""
        import redis

        client = redis.Redis(port=self.port)
        found = bytearray()
        for key in client.scan_iter():
            kind = client.type(key)
            found += key
            if kind == b"hash":
                found += b"".join(name + value for name, value in client.hgetall(key).items())
            elif kind == b"zset":
                found += b"".join(client.zrange(key, 0, -1))
            elif kind == b"stream":
                found += repr(client.xrange(key)).encode()
            else:
                found += client.get(key) or b""
        client.close()
        return bytes(found)


@contextlib.contextmanager
def redis_server(folder: Path) -> Generator[Redis]:
    """Skips the test where Redis is not installed."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    redis = Redis(folder)
    try:
        yield redis
    finally:
        redis.stop()


@dataclass
class Receiver:
    """Takes webhooks; refuses the first `refusals` of them."""

    refusals: int = 0
    events: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await _body(receive)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.events.append((headers, body))
        self.refusals -= 1
        await _send(send, 500 if self.refusals >= 0 else 204, b"")
