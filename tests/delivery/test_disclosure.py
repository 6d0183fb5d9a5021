"""Images of another size or format than a client has been led to expect are disclosed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from imagegate.asgi.in_process import ask
from imagegate.config.loader import parse_config
from imagegate.contracts.changes import Change
from imagegate.delivery.disclosure import format_changes, size_changes, stated_size
from imagegate.gateway import ImageGateway
from imagegate.protocol.image_format import JPEG, PNG, SVG, WEBP

FITTED = Change("size", "mapped", "1920x1080", "1920x1088")
ADDED = Change("size", "added", None, "512x512")


@pytest.mark.parametrize(
    ("asked", "disclosed", "made", "said"),
    [
        ("1024x1024", (), "1024x1024", None),
        ("1024x1024", (), "1254x1254", ("1024x1024", "1254x1254")),
        ("1920x1080", (FITTED,), "1920x1088", None),
        ("1920x1080", (FITTED,), "1024x1024", ("1920x1080", "1024x1024")),
        (None, (ADDED,), "512x512", None),
        (None, (ADDED,), "640x512", ("512x512", "640x512")),
        (None, (), "640x512", None),
        ("16:9", (), "640x512", None),
    ],
)
def test_another_size_is_said(asked, disclosed, made, said):
    """From what the client asked for, else from what the gateway added."""
    expected = () if said is None else (Change("size", "made", *said),)
    assert size_changes(asked, [made], disclosed) == expected


@pytest.mark.parametrize(
    ("asked", "disclosed", "made", "said"),
    [
        ("webp", (), [WEBP, WEBP], []),
        ("webp", (), [WEBP, PNG, PNG], ["png"]),
        ("webp", (), [JPEG, PNG], ["jpeg", "png"]),
        ("JPG", (), [JPEG], []),
        ("image/svg+xml", (), [SVG], []),
        ("webp", (Change("output_format", "mapped", "webp", "png"),), [PNG], []),
        ("webp", (Change("output_format", "mapped", "webp", "png"),), [JPEG], ["jpeg"]),
        ("jpeg", (Change("output_format", "converted", "png", "jpg"),), [JPEG], []),
        ("webp", (Change("output_format", "dropped"),), [PNG], []),
        (None, (), [PNG], []),
        (None, (Change("output_format", "added", None, "png"),), [JPEG], []),
    ],
)
def test_another_format_is_said(asked, disclosed, made, said):
    """Once for each format, in comparison with what was sent; where none was asked for or sent, none was promised."""
    assert format_changes(asked, made, disclosed) == tuple(
        Change("output_format", "made", asked, name) for name in said
    )


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"width": 64, "height": 48}, "64x48"),
        ({"size": "2048x1152"}, "2048x1152"),
        ({"width": 64, "size": "2048x1152"}, "2048x1152"),
        ({"width": 64, "height": True}, ""),
        ({"width": 0, "height": 48}, ""),
        ({"size": "2K"}, ""),
        ({"size": 7}, ""),
        ({"seed": 1}, ""),
    ],
)
def test_sizes_that_replies_state(fields: dict[str, Any], size: str) -> None:
    """In pixels, of images that are not loaded, because the client gets the provider's links."""
    assert stated_size(fields) == size


@pytest.mark.parametrize(
    ("item", "changes"),
    [
        ({"width": 64, "height": 64}, 'size;from="1024x1024";made="64x64"'),
        ({"size": "1024x1024"}, None),
        ({}, None),
    ],
)
def test_links_to_images_of_another_size_are_disclosed(
    tmp_path: Path, item: dict[str, Any], changes: bytes | None
) -> None:
    """They are disclosed by what the reply says of them: the gateway does not load what it passes on."""

    def provider(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"created": 1, "data": [{"url": "https://cdn.example/1.png", **item}]})

    async def answered() -> Any:
        config = parse_config(
            '[[upstreams]]\nname = "tokenlab"\napi_key = "k"\n'
            f'[delivery]\nstore = "file://{tmp_path}"\npublic_url = "http://gate.test/images"\n'
        )
        fields = {"model": "gpt-image-2", "prompt": "a cat", "size": "1024x1024", "response_format": "url"}
        async with ImageGateway(config=config, transport=httpx.MockTransport(provider)) as gateway:
            return await ask(gateway, "POST", "/v1/images/generations", headers=[], body=json.dumps(fields).encode())

    reply = asyncio.run(answered())
    assert json.loads(reply.body)["data"] == [{"url": "https://cdn.example/1.png", **item}]
    assert reply.headers.get("imagegate-changes") == changes
