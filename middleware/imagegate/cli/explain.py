"""Requests for generations through the whole stack in this process: for the command line."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from imagegate.asgi.captured_response import CapturedResponse
from imagegate.asgi.in_process import ask
from imagegate.config.schema import Config
from imagegate.gateway import ImageGateway


async def generate(
    gateway: ImageGateway, body: bytes, *, headers: Sequence[tuple[bytes, bytes]] = ()
) -> CapturedResponse:
    """Return what a gateway answers to a request for generations, sent with the first of its own keys."""
    own = [(b"content-type", b"application/json"), *headers]
    if keys := gateway.config.access.keys:
        own.append((b"authorization", b"Bearer " + keys[0].encode()))
    return await ask(gateway, "POST", f"{gateway.config.prefix}/images/generations", headers=own, body=body)


def as_operator(config: Config) -> Config:
    """Return the configuration for whoever has the file: without keys of the file, there is no client to be known."""
    if config.access.keys:
        return config
    return msgspec.structs.replace(config, access=msgspec.structs.replace(config.access, store="", callable=""))


async def explain(config: Config, body: bytes) -> tuple[int, dict[str, object]]:
    """Status and JSON of what ``Imagegate-Explain: ?1`` answers; nothing is sent."""
    async with ImageGateway(config=as_operator(config), hooks=()) as gateway:
        answered = await generate(gateway, body, headers=[(b"imagegate-explain", b"?1")])
    return answered.status, msgspec.json.decode(answered.body)
