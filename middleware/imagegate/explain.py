"""A request explained without a server: through the same stack, in this process."""

from __future__ import annotations

import asyncio

import msgspec
from starlette.types import Message

from imagegate.asgi import replay
from imagegate.config import Config
from imagegate.gateway import ImageGateway


async def explain(config: Config, body: bytes) -> tuple[int, dict[str, object]]:
    """Status and JSON of what ``Imagegate-Explain: ?1`` answers to a request for generations; nothing is sent."""
    status, answer = 500, b""

    async def send(message: Message) -> None:
        nonlocal status, answer
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            answer += message.get("body", b"")

    async def connected() -> Message:
        return await asyncio.Future()  # nobody leaves

    headers = [(b"imagegate-explain", b"?1"), (b"content-type", b"application/json")]
    if config.access.keys:
        headers.append((b"authorization", b"Bearer " + config.access.keys[0].encode()))
    scope = {
        "type": "http",
        "method": "POST",
        "path": f"{config.prefix}/images/generations",
        "query_string": b"",
        "headers": headers,
    }
    async with ImageGateway(config=config, hooks=()) as gateway:
        await gateway(scope, replay(body, connected), send)
    return status, msgspec.json.decode(answer)
