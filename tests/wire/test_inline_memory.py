"""Large pictures in the shapes of native dialects, both ways, through a process of its own: memory stays flat."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.wire.edit_support import Process, gateway_process, large_picture, sha
from tests.wire.test_large_replies import hashes_in

from imagegate.demo.servers import serving

pytestmark = pytest.mark.memory

MIB = 1024 * 1024
SIZE, REFERENCE, REFERENCES = 48_000_000, 6_900_000, 12
CHUNK = 256 * 1024
MAY_GROW = 24 * MIB


AROUND = {
    ":generateContent": (
        b'{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"',
        b'"}}]},"finishReason":"STOP"}]}',
    ),
    "/chat/completions": (
        b'{"choices":[{"message":{"content":"Here.","images":[{"image_url":{"url":"data:image/png;base64,',
        b'"}}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}',
    ),
    "/api/v3/images/generations": (b'{"model":"m","created":1,"data":[{"size":"1x1","b64_json":"', b'"}],"usage":{}}'),
}
"""What native dialects have around a picture's base64, by the ends of their paths."""
UPSTREAMS = {
    "gemini": '"',
    "openai-compatible": '"',
    "openrouter": '"\noptions = { api = "chat" }',
    "seedream": '/api/v3"',
}
"""What follows the origin."""


class Native:
    """Answers paths of native dialects with an inline picture, and OpenAI's with its bytes; hashes what comes."""

    def __init__(self) -> None:
        self.size = SIZE
        self.references: list[str] = []

    def picture(self) -> bytes:
        return large_picture(self.size, 1)[: self.size]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body, more = bytearray(), True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        parts = json.loads(body).get("contents", [{"parts": []}])[0]["parts"]
        self.references = [
            hashlib.sha256(base64.b64decode(part["inlineData"]["data"])).hexdigest()
            for part in parts
            if "inlineData" in part
        ]
        around = next((each for end, each in AROUND.items() if scope["path"].endswith(end)), None)
        pieces = [self.picture()]
        if around:
            pieces = [around[0], base64.b64encode(pieces[0]), around[1]]
        kind = b"application/json" if around else b"image/png"
        headers = [(b"content-type", kind), (b"content-length", str(sum(map(len, pieces))).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces:
            for start in range(0, len(piece), CHUNK):
                await send({"type": "http.response.body", "body": piece[start : start + CHUNK], "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module")
def native() -> Iterator[tuple[Native, int]]:
    provider = Native()
    with serving(provider) as port:
        yield provider, port


@pytest.fixture
def gateway(native: tuple[Native, int], tmp_path: Path) -> Iterator[Process]:
    config = tmp_path / "imagegate.toml"
    upstreams = [
        f'[[upstreams]]\nname = "{name}"\napi_key = "sk-any-key"\nbase_url = "http://127.0.0.1:{native[1]}{more}'
        for name, more in UPSTREAMS.items()
    ]
    config.write_text("\n".join([*upstreams, f'[delivery]\nstore = "file://{tmp_path}/images"\n']))
    with gateway_process(config) as process:
        yield process


@pytest.mark.parametrize("form", ["url", "b64_json"])
@pytest.mark.parametrize(
    "model",
    ["gemini/gemini-3-pro-image", "openai-compatible/any", "openrouter/google/gemini", "seedream/seedream-4-5-251128"],
)
def test_a_large_picture_inline_or_as_the_whole_reply(native, gateway, model, form):
    """48 MB pass in either form, and the process hardly grows."""
    provider, _ = native
    body = {"model": model, "prompt": "A kite", "response_format": form}

    def ask() -> list[str]:
        with httpx.stream("POST", f"{gateway.url}/v1/images/generations", json=body, timeout=120) as reply:
            assert reply.status_code == 200, reply.read()
            if form == "b64_json":
                return hashes_in(reply)
            links = [item["url"] for item in json.loads(reply.read())["data"]]
        return [sha(httpx.get(link, timeout=60).content) for link in links]

    provider.size = 1000
    ask()
    provider.size = SIZE
    before = gateway.memory("VmHWM")
    hashes = ask()
    grown = gateway.memory("VmHWM") - before
    assert hashes == [sha(provider.picture())]
    assert grown < MAY_GROW


def test_large_references_inline(native, gateway):
    """Twelve files of nearly 7 MB become base64 while they are sent."""
    provider, _ = native
    contents = [large_picture(REFERENCE, place)[:REFERENCE] for place in range(REFERENCES)]

    def edit(count: int) -> None:
        files = [("image[]", (f"{place}.png", contents[place], "image/png")) for place in range(count)]
        data = {"model": "gemini/gemini-3-pro-image", "prompt": "A kite", "response_format": "url"}
        reply = httpx.post(f"{gateway.url}/v1/images/edits", data=data, files=files, timeout=120)
        assert reply.status_code == 200, reply.text

    provider.size = 1000
    edit(1)
    before = gateway.memory("VmHWM")
    edit(REFERENCES)
    grown = gateway.memory("VmHWM") - before
    assert provider.references == [sha(content) for content in contents]
    assert grown < MAY_GROW + 16 * MIB  # what the spool keeps in memory
