"""What requests cost where that depends on what was made and sent, and where the reply says it, on real sockets."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.waiting import until

from imagegate import ExchangeRecord, ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving

pytestmark = pytest.mark.server


def png(width: int, height: int) -> bytes:
    """A picture without colours."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (width + 1) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


MADE = png(1500, 1000)
SMALL, LARGE = png(1000, 500), png(3000, 3000)
USAGE = {"prompt_tokens": 9, "completion_tokens": 4175, "total_tokens": 4184, "cost": 0.04}
CONFIG = """
[[upstreams]]
name = "openrouter"
base_url = "http://127.0.0.1:{port}/api/v1"
api_key = "k"

[[upstreams]]
name = "plain"
adapter = "openai-compatible"
base_url = "http://127.0.0.1:{port}"
api_key = "k"
[upstreams.models.sized]
family = "gpt-image-2"

[prices.models]
"openrouter/acme/painter" = {{ usage_cost = "cost" }}
sized = {{ image = 0.01, megapixel = 0.1, round_up = true, reference_megapixel = 0.01, reference_image = 1 }}
"""


class Provider:
    """Answers with one picture, and with what it has cost."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        picture = base64.b64encode(MADE).decode()
        document = {"created": 1, "data": [{"b64_json": picture}], "usage": USAGE}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(document).encode()})


class Keep:
    def __init__(self) -> None:
        self.records: list[ExchangeRecord] = []

    def exchange_ended(self, record: ExchangeRecord) -> None:
        self.records.append(record)


class Rig:
    """A gateway with prices, and the records of its exchanges."""

    def __init__(self, url: str, records: list[ExchangeRecord]) -> None:
        self.url = url
        self.records = records

    def cost(self, path: str, **options: Any) -> float | None:
        """Send a request, and return what it has cost."""
        before = len(self.records)
        answer = httpx.post(f"{self.url}/v1/images/{path}", timeout=20, **options)
        assert answer.status_code == 200, answer.text
        until(lambda: len(self.records) > before)
        return self.records[-1].cost


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    keep = Keep()
    with serving(Provider()) as port:
        gateway = ImageGateway(config=parse_config(CONFIG.format(port=port)), hooks=[keep])
        with serving(gateway) as own:
            yield Rig(f"http://127.0.0.1:{own}", keep.records)


def test_the_reply_names_its_cost(rig: Rig) -> None:
    assert rig.cost("generations", json={"model": "openrouter/acme/painter", "prompt": "A cat"}) == 0.04


def test_what_was_made_counts_and_not_what_was_asked_for(rig: Rig) -> None:
    body = {"model": "sized", "prompt": "A cat", "size": "1024x1024", "response_format": "b64_json"}
    assert rig.cost("generations", json=body) == pytest.approx(0.01 + 2 * 0.1)


@pytest.mark.parametrize("form", [True, False])
def test_references_count_each_by_its_size(rig: Rig, form: bool) -> None:
    """As files of a form, and in JSON; none is charged with more than four megapixels."""
    if form:
        files = [("image[]", ("a.png", SMALL, "image/png")), ("image[]", ("b.png", LARGE, "image/png"))]
        found = rig.cost("edits", data={"model": "sized", "prompt": "A cat"}, files=files)
    else:
        links = [f"data:image/png;base64,{base64.b64encode(each).decode()}" for each in (SMALL, LARGE)]
        images = [{"image_url": link} for link in links]
        found = rig.cost("edits", json={"model": "sized", "prompt": "A cat", "images": images})
    assert found == pytest.approx(0.01 + 2 * 0.1 + 2 * 1 + (1 + 4) * 0.01)
