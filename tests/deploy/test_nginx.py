"""The configuration of nginx that is delivered, with a real nginx in front of a real gateway."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.nginx import needs_nginx, nginx
from tests.smallest_png import ONE_PIXEL
from tests.wire.stream_support import Provider, completed, partial

import imagegate
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving
from imagegate.standalone import Standalone

pytestmark = [pytest.mark.nginx, needs_nginx]

CONFIGURATION: Final = Path(imagegate.__file__).parents[2] / "deploy" / "nginx" / "imagegate.conf"
MIB: Final = 1024**2
PNG: Final = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000400000004000802000000")


@contextlib.contextmanager
def behind_nginx(provider: object, folder: Path) -> Iterator[str]:
    """The delivered file, but for the port and the gateway's address."""
    with serving(provider) as port:
        config = parse_config(
            f'[[upstreams]]\nname = "openai"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "sk-upstream"\n'
            f'[delivery]\nstore = "file://{folder / "images"}"\n[access]\nkeys = ["client-key"]\n'
        )
        with serving(Standalone(config)) as own:
            text, hits = re.subn(r"server 127\.0\.0\.1:8000;", f"server 127.0.0.1:{own};", CONFIGURATION.read_text())
            text, more = re.subn(r"listen 80;", "listen 127.0.0.1:PORT;", text)
            assert (hits, more) == (1, 1)
            with nginx(folder / "nginx", text) as url:
                yield url


class Counting:
    """A provider that takes an upload as it comes, and keeps nothing of it."""

    def __init__(self) -> None:
        self.received = 0
        self.posts = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.posts += 1
        more = True
        while more:
            message = await receive()
            self.received += len(message.get("body", b""))
            more = message.get("more_body", False)
        body = json.dumps({"created": 1, "data": [{"b64_json": ONE_PIXEL}]}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})


def test_events_pass_one_by_one(tmp_path: Path) -> None:
    """nginx holds none of them back: the next one is only sent when the last has arrived."""
    provider = Provider()
    document = {"model": "openai/gpt-image-1", "prompt": "A kite", "stream": True, "partial_images": 2}
    key = {"authorization": "Bearer client-key"}
    provider.say(partial(0))
    with (
        behind_nginx(provider, tmp_path) as url,
        httpx.stream("POST", f"{url}/v1/images/generations", json=document, headers=key, timeout=20) as reply,
    ):
        assert reply.status_code == 200
        pieces = reply.iter_raw()
        assert b"partial_image" in next(pieces)
        provider.say(partial(1))
        assert b"partial_image" in next(pieces)
        provider.says(completed())
        assert b"completed" in b"".join(pieces)


def test_an_upload_of_490_megabytes_passes_whole(tmp_path: Path) -> None:
    """Ten images in a form: nginx writes none of it to its disk."""
    provider = Counting()
    size, count, boundary = 47 * MIB, 10, "b-7f3a"
    field = '--{}\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
    head = "".join(
        f"{field.format(boundary, name, '')}{value}\r\n"
        for name, value in {"model": "openai/gpt-image-1", "prompt": "A kite", "response_format": "b64_json"}.items()
    )
    piece = bytes(MIB)

    def form() -> Iterator[bytes]:
        yield head.encode()
        for number in range(count):
            name = f'; filename="{number}.png"\r\nContent-Type: image/png'
            yield field.format(boundary, "image[]", name).encode() + PNG + bytes(MIB - len(PNG))
            for _ in range(size // MIB - 1):
                yield piece
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode()

    length = sum(map(len, form()))
    headers = {
        "authorization": "Bearer client-key",
        "content-type": f"multipart/form-data; boundary={boundary}",
        "content-length": str(length),
    }
    with behind_nginx(provider, tmp_path) as url:
        reply = httpx.post(f"{url}/v1/images/edits", content=form(), headers=headers, timeout=120)
        assert (reply.status_code, provider.posts) == (200, 1), reply.text
        assert provider.received > count * size
        assert [file for file in (tmp_path / "nginx" / "b").rglob("*") if file.is_file()] == []


def test_what_is_not_for_outside_stays_inside(tmp_path: Path) -> None:
    with behind_nginx(Counting(), tmp_path) as url:
        assert httpx.get(f"{url}/metrics").status_code == 404
        assert httpx.get(f"{url}/v1/models").status_code == 401
        for megabytes, status in ((490, b"401"), (600, b"413")):  # the gateway's answer, and nginx's own
            with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as client:
                head = f"POST /v1/images/edits HTTP/1.1\r\nHost: x\r\nContent-Length: {megabytes * MIB}\r\n\r\n"
                client.sendall(head.encode())
                assert client.recv(100).startswith(b"HTTP/1.1 %b " % status)
