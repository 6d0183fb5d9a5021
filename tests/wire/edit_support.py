"""What the tests of edits share: pictures, what providers really received, and gateways in processes of their own."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import msgspec
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.conftest import Running
from tests.ports import free_port
from tests.waiting import until

from imagegate.demo.providers.common import ReceivedRequest


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def picture(seed: int = 0, size: int = 256, mode: str = "RGBA", form: str = "PNG") -> bytes:
    """A real picture, another one for each seed."""
    colour = (seed % 256, seed * 7 % 256, seed * 31 % 256, 200)
    buffer = io.BytesIO()
    Image.new(mode, (size, size), colour[: len(mode)] if mode != "L" else seed % 256).save(buffer, form)
    return buffer.getvalue()


def large_picture(size: int, seed: int = 0) -> bytes:
    """A PNG by its head, of that many bytes, none of them like those of another seed."""
    return picture(seed) + hashlib.shake_128(str(seed).encode()).digest(65_536) * (size // 65_536 + 1)


def padded(content: bytes, size: int) -> bytes:
    """Cut to exactly `size` bytes."""
    assert len(content) >= size
    return content[:size]


def mask_for(size: int = 256) -> bytes:
    """A mask whose upper half is to be changed."""
    mask = Image.new("RGBA", (size, size), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, size, size // 2))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    return buffer.getvalue()


class Part(NamedTuple):
    """A part of a form as it went over the wire."""

    name: str
    filename: str | None
    content_type: str | None
    content: bytes


def parts_of(content_type: str, body: bytes) -> list[Part]:
    """A form taken apart with nothing but `split`: its boundary is random, so it stands nowhere else."""
    boundary = content_type.partition("boundary=")[2].encode()
    first, *pieces, last = (b"\r\n" + body).split(b"\r\n--" + boundary)
    assert (first, last.rstrip(b"\r\n")) == (b"", b"--")
    parts: list[Part] = []
    for piece in pieces:
        head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        found = re.fullmatch(r'form-data; name="([^"]*)"(?:; filename="([^"]*)")?', headers["Content-Disposition"])
        assert found, headers
        parts.append(Part(found[1], found[2], headers.get("Content-Type"), content))
    return parts


@dataclass
class Post:
    """A POST that reached a provider whole."""

    path: str
    headers: dict[str, str]
    body: bytes
    query: str = ""

    @property
    def parts(self) -> list[Part]:
        kind = self.headers.get("content-type", "")
        return parts_of(kind, self.body) if kind.startswith("multipart/form-data") else []

    @property
    def files(self) -> list[Part]:
        return [part for part in self.parts if part.filename is not None]

    @property
    def json(self) -> Any:
        return None if self.parts else msgspec.json.decode(self.body)

    @property
    def fields(self) -> dict[str, Any]:
        """Members or text parts."""
        texts = {part.name: part.content.decode() for part in self.parts if part.filename is None}
        return texts or self.json or {}


@dataclass
class Tap:
    """Stands in front of a provider and keeps the bytes of every POST that reached it whole."""

    app: ASGIApp
    posts: list[Post] = field(default_factory=list)
    begun: int = 0
    """POSTs of which at least the head came."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        self.begun += 1
        body = bytearray()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}

        async def kept() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    self.posts.append(Post(scope["path"], headers, bytes(body), scope["query_string"].decode()))
            return message

        await self.app(scope, kept, send)


@contextlib.contextmanager
def taps(apps: Mapping[str, Starlette]) -> Generator[dict[str, Tap]]:
    """Taps all providers for a while."""
    found: dict[str, Tap] = {}
    for name, app in apps.items():
        assert app.middleware_stack is not None
        app.middleware_stack = found[name] = Tap(app.middleware_stack)
    try:
        yield found
    finally:
        for name, app in apps.items():
            app.middleware_stack = found[name].app


class Seen(NamedTuple):
    """The references that a provider has after an edit: what it was sent, or what the links it was sent lead to."""

    images: list[str]
    """SHA-256 of each, in order."""
    mask: str | None
    names: list[str]
    """File names, as far as a form carried them."""


LINK_MEMBERS = ("image_urls", "reference_images", "image_url")


def seen(posts: list[Post]) -> Seen:
    """What the last of these requests was made from."""
    last = posts[-1]
    if last.files:
        images = [part for part in last.files if part.name in ("image", "image[]")]
        masks = [part for part in last.files if part.name == "mask"]
        assert len(images) + len(masks) == len(last.files)
        assert len(masks) <= 1
        names = [part.filename or "" for part in images]
        return Seen([sha(part.content) for part in images], sha(masks[0].content) if masks else None, names)
    body = last.json
    links = [item["image_url"] for item in body.get("images", [])]
    for name in LINK_MEMBERS:
        value = body.get(name, [])
        links += [value] if isinstance(value, str) else value
    mask = body.get("mask", {}).get("image_url") or body.get("mask_url")
    uploaded = [part.filename or "" for post in posts[:-1] for part in post.files]
    return Seen([fetched(link) for link in links], fetched(mask) if mask else None, uploaded)


def fetched(link: str) -> str:
    """SHA-256 of what a provider finds behind a link."""
    reply = httpx.get(link)
    assert reply.status_code == 200, link
    return sha(reply.content)


class Process:
    """An `imagegate serve` process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, spool: Path, folder: Path) -> None:
        self.process = process
        self.folder = folder
        """Of its configuration."""
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self._spool = spool

    def spooled(self) -> list[str]:
        """Temporary files that the process has open; they have no name any more."""
        found: list[str] = []
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(link)
                if target.startswith(str(self._spool)):
                    found.append(target)
        return found

    def left_behind(self) -> list[Path]:
        """Temporary files that have a name."""
        return list(self._spool.iterdir())

    @property
    def log(self) -> str:
        return (self.folder / "gateway.log").read_text()

    def memory(self, name: str) -> int:
        """``VmHWM`` (the most so far) or ``VmRSS`` (now), in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{name}:")[2].split()[0]) * 1024

    def reset_peak(self) -> None:
        """``VmHWM`` begins again at ``VmRSS``."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


@contextlib.contextmanager
def gateway_process(config: Path, *, arguments: Sequence[str] = (), **environment: str) -> Generator[Process]:
    """Runs ``imagegate serve`` with a configuration, its temporary files in a folder of their own."""
    port = free_port()
    with tempfile.TemporaryDirectory() as spool, (config.parent / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "imagegate", "serve", "--config", str(config), "--port", str(port), *arguments],
            env={**os.environ, "TMPDIR": spool, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            until(lambda: process.poll() is not None or _answers(port), what="the gateway")
            assert process.poll() is None, (config.parent / "gateway.log").read_text()
            yield Process(process, port, Path(spool), config.parent)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()  # which costs next to nothing as long as it is refused
        return httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code in (200, 401)
    except (OSError, httpx.TransportError):
        return False


PACKAGES = ("openai@latest", "ai@latest", "@ai-sdk/openai@latest")
_UNREACHABLE = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH")


_GOOD_FOR: Final = 24 * 3600.0
"""Seconds after which packages are installed once more, since they are to be the newest."""


@cache
def node_packages(config: pytest.Config, *packages: str) -> Path:
    """A folder with packages from npm, default: the newest SDKs. Processes that run tests at a time share it."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    assert config.cache is not None
    folder = config.cache.mkdir("node" if not packages else f"node-{re.sub('[^a-z0-9]+', '-', packages[0])}")
    stamp = folder / "installed"
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *(packages or PACKAGES)]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and time.time() - stamp.stat().st_mtime < _GOOD_FOR:
            return folder
        installed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if installed.returncode and _UNREACHABLE.search(installed.stderr):
            pytest.skip("the npm registry cannot be reached")
        assert installed.returncode == 0, installed.stderr[-2000:]
        stamp.touch()
    return folder


@contextlib.contextmanager
def posted_to(running: Running) -> Iterator[dict[str, list[ReceivedRequest]]]:
    """What each provider is sent while the block runs, filled when it ends; providers without a POST are left out.

    Whoever else uses the product may still poll, and load images of, what an earlier test asked for.
    """
    before = {name: app.state.requests_seen for name, app in running.providers.items()}
    posts: dict[str, list[ReceivedRequest]] = {}
    yield posts
    for name, app in running.providers.items():
        count = app.state.requests_seen - before[name]
        if found := [each for each in app.state.received[-count:] if count and each.method == "POST"]:
            posts[name] = found
