"""How many pictures an exchange has put into the store, as its record says and Prometheus counts."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from tests.test_garbage import LARGE, SMALL, events, reply

from imagegate.asgi.in_process import ask
from imagegate.config.loader import parse_config
from imagegate.gateway import ImageGateway
from imagegate.prometheus import PrometheusHook

CONFIG = """
[[upstreams]]
name = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "k"

[delivery]
store = "memory://"
public_url = "http://gate.test/images"
"""
LINKS = json.dumps({"created": 1, "data": [{"url": "https://cdn.test/a.png"}] * 2}).encode()
CASES: Mapping[str, tuple[dict[str, object], bytes, bytes, float | None]] = {
    "small": ({"n": 2, "response_format": "url"}, b"application/json", reply(SMALL, 2), 2),
    "large": ({"n": 2, "response_format": "url"}, b"application/json", reply(LARGE, 2), 2),
    "stream": ({"stream": True, "response_format": "url"}, b"text/event-stream", events(SMALL), 1),
    "base64": ({"n": 2, "response_format": "b64_json"}, b"application/json", reply(SMALL, 2), None),
    "links that pass through": ({"n": 2, "response_format": "url"}, b"application/json", LINKS, None),
}


@pytest.mark.parametrize("case", CASES)
def test_stored_images_are_counted(case: str) -> None:
    """One for each picture that became a link of the gateway's; none for what only passed through."""
    members, kind, answer, expected = CASES[case]
    registry = CollectorRegistry()

    def provider(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": kind.decode()}, content=answer)

    async def run() -> Any:
        hooks = [PrometheusHook(registry=registry)]
        transport = httpx.MockTransport(provider)
        async with ImageGateway(config=parse_config(CONFIG), transport=transport, hooks=hooks) as gateway:
            body = json.dumps({"model": "gpt-image-1", "prompt": "a cat", **members}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            return await ask(gateway, "POST", "/v1/images/generations", headers=headers, body=body)

    answered = asyncio.run(run())
    assert answered.status == 200, answered.body
    assert answered.body.count(b"http://gate.test/images/") == (expected or 0)
    assert base64.b64encode(SMALL[:30]) not in answered.body or case == "base64"
    assert registry.get_sample_value("imagegate_images_stored_total", {"operation": "generations"}) == expected
