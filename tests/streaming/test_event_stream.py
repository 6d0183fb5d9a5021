"""When a streamed reply counts as ended: after its last picture, a provider need not say so."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest
from tests import virtual_time

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.delivery.converter import ImageConverter
from imagegate.errors import UpstreamError
from imagegate.http import HTTPClient
from imagegate.http.guarded_fetch import Fetcher
from imagegate.protocol.parsers.sse import event
from imagegate.stores.memory import MemoryStore
from imagegate.streaming.event_stream import forward_events
from imagegate.streaming.image_sinks import PictureSink
from imagegate.testing import png

B64 = b64encode(png()).decode()
COMPLETED = json.dumps({"type": "image_generation.completed", "b64_json": B64}).encode()
ERROR = json.dumps({"error": {"message": "It broke.", "code": "broken"}}).encode()
GROUP = {"sequential_image_generation": "auto", "sequential_image_generation_options": {"max_images": 3}}


async def stream(*pieces: bytes | float) -> AsyncIterator[bytes]:
    """Text, and seconds in between."""
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
        else:
            await asyncio.sleep(piece)


def completed() -> bytes:
    return event("image_generation.completed", COMPLETED)


def forwarded(*pieces: bytes | float, images: int) -> tuple[int, float]:
    """Return how many events were sent on, and how many seconds it took."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> float:
        sink = PictureSink(
            partial(ImageConverter(MemoryStore(ttl=60), Fetcher(HTTPClient())).receiver, "b64_json", None)
        )
        began = asyncio.get_running_loop().time()
        try:
            await forward_events(stream(*pieces), send, sink, images=images, end_after=5)
        finally:
            await sink.close()
        return asyncio.get_running_loop().time() - began

    took = virtual_time.run(run())
    return len(sent), took


def test_a_stream_that_stays_open_after_its_last_picture() -> None:
    """It has a few seconds left."""
    assert forwarded(completed(), 2.0, completed(), 1000.0, images=2) == (2, 7.0)


def test_what_comes_after_the_last_picture() -> None:
    """Events within these seconds are sent on; an error is none of this request any more."""
    assert forwarded(completed(), 1.0, b": end\n\n", images=1) == (1, 1.0)
    assert forwarded(completed(), 1.0, event("error", ERROR), images=1) == (1, 1.0)
    with pytest.raises(UpstreamError, match="It broke"):
        forwarded(completed(), 1.0, event("error", ERROR), images=2)


def test_events_are_not_held_back_for_long() -> None:
    """What follows a failed image may be many words, which go on to the client."""
    failed = json.dumps({"type": "image_generation.partial_failed", "error": {"code": "InternalServiceError"}}).encode()
    words = json.dumps({"type": "image_generation.text_chunk", "text": "a" * 1000}).encode()
    chunks = [event("image_generation.text_chunk", words)] * 100
    assert forwarded(event("image_generation.partial_failed", failed), *chunks, images=1) == (101, 0.0)


def test_pictures_of_an_unknown_number_are_waited_for() -> None:
    """Nothing says which is the last."""
    assert forwarded(completed(), 100.0, completed(), 100.0, images=0) == (2, 200.0)


class SlowGroup(httpx.AsyncBaseTransport):
    """A provider that makes a picture every minute."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        pieces = [piece for _ in range(3) for piece in (60.0, completed())]
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream(*pieces))


def test_groups_may_take_their_time() -> None:
    """In a group it is the model, and not ``n``, that says how many pictures there are."""
    document = """
        [[upstreams]]
        name = "seedream"
        api_key = "sk-upstream"
    """
    asked = {"model": "seedream/seedream-4-5-251128", "prompt": "a cat", "stream": True, "response_format": "b64_json"}

    async def run() -> str:
        gateway = ImageGateway(config=parse_config(document), hooks=(), transport=SlowGroup())
        transport = httpx.ASGITransport(app=gateway)
        async with gateway, httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=None) as client:
            answer = await client.post("/v1/images/generations", json={**asked, **GROUP})
            assert answer.status_code == 200, answer.text
            return answer.text

    assert virtual_time.run(run()).count("event: image_generation.completed") == 3
