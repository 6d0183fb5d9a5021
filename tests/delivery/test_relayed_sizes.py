"""What is disclosed of a large reply that goes to the client as it comes, however its bytes come."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator

import httpx
import pytest
from tests.wire.edit_support import large_picture

from imagegate import ImageGateway
from imagegate.config.loader import parse_config

CONFIG = """
[[upstreams]]
name = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "sk-upstream"
[delivery]
store = "memory://"
"""
REPLY = json.dumps({"created": 1, "data": [{"b64_json": b64encode(large_picture(3_000_000)).decode()}]}).encode()


class Upstream(httpx.AsyncBaseTransport):
    """Sends a large reply in pieces of these sizes, the last of them over and over."""

    def __init__(self, *sizes: int) -> None:
        self._sizes = sizes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        headers = {"content-type": "application/json", "content-length": str(len(REPLY))}
        return httpx.Response(200, headers=headers, content=self._pieces())

    async def _pieces(self) -> AsyncIterator[bytes]:
        start = place = 0
        while start < len(REPLY):
            size = self._sizes[min(place, len(self._sizes) - 1)]
            yield REPLY[start : start + size]
            start, place = start + size, place + 1


@pytest.mark.parametrize(
    "sizes", [(500,), (5_000,), (40, 30_000, 65_536), (65_536,), (1, 4_096, 1_000_000), (2_000_000,), (5_000_000,)]
)
@pytest.mark.parametrize(("asked", "disclosed"), [("512x512", 'size;from="512x512";made="256x256"'), ("256x256", None)])
def test_another_size_is_disclosed_in_a_header(sizes: tuple[int, ...], asked: str, disclosed: str | None) -> None:
    """A megabyte is looked at before the answer begins, so that the pieces' sizes make no difference."""

    async def run() -> httpx.Response:
        gateway = ImageGateway(config=parse_config(CONFIG), hooks=(), transport=Upstream(*sizes))
        transport = httpx.ASGITransport(app=gateway)
        body = {"model": "openai/dall-e-2", "prompt": "a fox", "size": asked, "response_format": "b64_json"}
        async with gateway, httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post("/v1/images/generations", json=body)

    answer = asyncio.run(run())
    assert answer.status_code == 200, answer.text[:500]
    assert answer.content.rstrip() == REPLY
    assert answer.headers.get("imagegate-changes") == disclosed
