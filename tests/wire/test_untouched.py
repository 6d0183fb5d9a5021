"""A request that the provider accepts as it is arrives as it is, and nothing is said about changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.conftest import Running
from tests.wire.edit_support import posted_to

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving

PROMPT = 'A "quoted" kite,\n\tcafé \u2028 and 🪁'
LINK = "https://example.com/reference.png"

# Every member that the provider's own pages name, except those that exclude each other.
REQUESTS: dict[str, dict[str, Any]] = {
    "tokmodel/openai/dall-e-3": {
        "n": 1,
        "size": "1792x1024",
        "quality": "hd",
        "style": "natural",
        "response_format": "url",
        "user": "u-1",
    },
    "tokmodel/openai/dall-e-2": {"n": 2, "size": "256x256", "response_format": "b64_json", "user": "u-1"},
    "tokmodel/openai/gpt-image-1.5": {
        "n": 1,
        "size": "1536x1024",
        "quality": "low",
        "background": "transparent",
        "output_format": "webp",
        "output_compression": 80,
        "moderation": "low",
        "partial_images": 0,
        "stream": False,
        "user": "u-1",
        "safety_identifier": "s-1",
    },
    "tokmodel/openai/gpt-image-2": {
        "n": 2,
        "size": "1824x1024",
        "quality": "auto",
        "background": "opaque",
        "output_format": "jpeg",
        "output_compression": 0,
        "moderation": "auto",
        "partial_images": 0,
        "stream": False,
        "user": "u-1",
        "safety_identifier": "s-1",
    },
    "tokenbay/gpt-image-2": {
        "n": 1,
        "size": "auto",
        "quality": "medium",
        "background": "auto",
        "output_format": "jpeg",
        "output_compression": 50,
        "moderation": "low",
        "user": "u-1",
    },
    "tokenbay/gpt-image-1.5": {"n": 1, "size": "1024x1536", "background": "transparent", "output_format": "png"},
    "tokenbay/dall-e-3": {
        "n": 1,
        "size": "1024x1792",
        "quality": "standard",
        "response_format": "b64_json",
        "user": "u",
    },
    "tokenlab/gpt-image-2": {
        "n": 1,
        "size": "1920x1088",
        "quality": "high",
        "background": "opaque",
        "output_format": "webp",
        "output_compression": 70,
        "moderation": "auto",
        "partial_images": 1,
        "response_format": "b64_json",
        "user": "u-1",
        "async": False,
    },
    "tokenlab/gemini-3-pro-image-preview": {
        "n": 2,
        "aspect_ratio": "21:9",
        "resolution": "2k",
        "operation": "text-to-image",
        "response_format": "url",
        "user": "u-1",
    },
    "tokenlab/nano-banana-pro": {
        "aspect_ratio": "4:5",
        "operation": "image-to-image",
        "image_url": LINK,
        "image_urls": [LINK, LINK],
        "reference_image_urls": [LINK],
    },
    "tokenlab/nano-banana": {"n": 1, "aspect_ratio": "9:16", "user": "u-1"},
    "tokenlab/grok-imagine-image": {
        "n": 1,
        "aspect_ratio": "auto",
        "resolution": "1k",
        "operation": "image-to-image",
        "image_urls": [LINK],
        "response_format": "b64_json",
        "user": "u-1",
    },
    "tokenlab/flux-pro": {
        "n": 1,
        "size": "1024x768",
        "seed": 7,
        "negative_prompt": "fog",
        "operation": "image-edit",
        "image_url": LINK,
        "mask_url": LINK,
        "response_format": "url",
        "user": "u-1",
        "async": True,
    },
    "tokenlab/flux-schnell": {"aspect_ratio": "3:1", "seed": 0, "async": False},
    "tokenlab/dall-e-3": {"n": 1, "size": "1024x1024", "quality": "hd", "style": "vivid", "response_format": "url"},
    "toapis/gpt-image-1.5-official": {
        "n": 1,
        "size": "16:9",
        "resolution": "4k",
        "quality": "low",
        "output_format": "jpeg",
        "output_compression": 60,
        "image_urls": [LINK],
        "mask_url": LINK,
        "client_business_id": "order-1",
    },
    "toapis/gpt-image-2-official": {"size": "7:4", "resolution": "1k", "reference_images": [LINK]},
    "toapis/gpt-image-2": {"n": 2, "size": "3:2", "resolution": "1k", "quality": "medium", "output_format": "png"},
    "toapis/gpt-image-2-vip": {"size": "9:21", "resolution": "4k", "reference_images": [LINK]},
    "toapis/gemini-3-pro-image-preview": {
        "n": 1,
        "size": "21:9",
        "metadata": {"resolution": "4K"},
        "image_urls": [LINK],
        "client_business_id": "order-2",
    },
    "toapis/gemini-3.1-flash-image": {"size": "1:8", "metadata": {"resolution": "1K"}},
    "toapis/gemini-2.5-flash-image": {"n": 1, "size": "9:16"},
    "toapis/seedream-4-5": {"n": 1, "size": "9:21", "metadata": {"resolution": "2K"}, "watermark": False},
    "onetoken/gpt-image-2": {"n": 1, "size": "1024x1536", "quality": "low"},
}


@pytest.mark.parametrize("model", REQUESTS)
def test_every_legal_member_arrives(running: Running, model: str) -> None:
    """All members that are legal for the model reach the provider equal in value, and nothing is disclosed."""
    provider, _, upstream_model = model.partition("/")
    asked = {"model": model, "prompt": PROMPT, **REQUESTS[model]}
    with posted_to(running) as posts:
        reply = httpx.post(f"{running.url}/v1/images/generations", json=asked, timeout=60)
    assert reply.status_code == (202 if asked.get("async") else 200), reply.text
    assert [name for name in ("imagegate-changes", "imagegate-contract") if name in reply.headers] == []
    (sent,) = posts[provider]
    assert {**asked, "model": upstream_model} == sent.json
    assert list(asked) == list(sent.json)


# Members that the provider's pages allow and that its models accept, one at a time beside model and prompt.
@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        ("tokenlab/gpt-image-2", "stream", False),  # "currently rejects true"
        ("tokenlab/flux-pro", "stream", False),
        ("tokenlab/gpt-image-2", "compression", 80),
        ("onetoken/gpt-image-2", "quality", ""),  # the default that its page shows
        ("toapis/seedream-4-5", "watermark", True),
        ("toapis/gpt-image-2", "size", "auto"),
        ("tokmodel/openai/gpt-image-2", "size", "auto"),
        ("tokenlab/grok-imagine-image", "aspect_ratio", "19.5:9"),
    ],
)
def test_single_legal_member_arrives(running: Running, model: str, name: str, value: Any) -> None:
    """A member that the provider takes by itself arrives, and nothing is disclosed."""
    asked = {"model": model, "prompt": PROMPT, name: value}
    if name == "compression":
        asked["output_format"] = "jpeg"
    reply = httpx.post(f"{running.url}/v1/images/generations", json=asked, timeout=60)
    assert reply.status_code == 200, reply.text
    assert None is reply.headers.get("imagegate-changes")
    provider, _, upstream_model = model.partition("/")
    sent = next(request for request in reversed(running.providers[provider].state.received) if request.method == "POST")
    assert {**asked, "model": upstream_model} == sent.json


@dataclass
class ByteRecorder:
    """A provider that keeps the bytes of every request and answers with one link."""

    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        self.bodies.append(body)
        self.paths.append(scope["path"])
        self.headers.append({name.decode(): value.decode("latin-1") for name, value in scope["headers"]})
        content = b'{"created":1,"data":[{"url":"https://example.com/kite.png"}]}'
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


@pytest.fixture(scope="module")
def recorder() -> ByteRecorder:
    return ByteRecorder()


@pytest.fixture(scope="module")
def url(recorder: ByteRecorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway whose upstreams are all the byte recorder, under every spelling of its address."""
    store: Path = tmp_path_factory.mktemp("untouched")
    with serving(recorder) as upstream:
        document = f"""
            [[upstreams]]
            name = "openai"
            base_url = "http://127.0.0.1:{upstream}/v1/"
            api_key = "sk-own"
            [[upstreams]]
            name = "tokmodel"
            base_url = "http://127.0.0.1:{upstream}/v1"
            api_key = "sk-own"
            [[upstreams]]
            name = "onetoken"
            base_url = "http://127.0.0.1:{upstream}/below/"
            api_key = "sk-own"
            [[upstreams]]
            name = "toapis"
            base_url = "http://127.0.0.1:{upstream}"
            api_key = "sk-own"
            [delivery]
            store = "file://{store}"
            default = "url"
        """
        with serving(ImageGateway(config=parse_config(document), hooks=())) as port:
            yield f"http://127.0.0.1:{port}/v1/images/generations"


BODIES = {
    "compact": b'{"model":"dall-e-3","prompt":"A kite"}',
    "white space": b' \r\n{\t"model" : "dall-e-3" ,\n\n "prompt":"A kite" }\r\n ',
    "order and escapes": b'{"prompt":"caf\\u00e9 \\ud83e\\ude81 \\/","size":"1024x1024","model":"dall-\\u0065-3"}',
    "utf-8": '{"model":"dall-e-3","prompt":"café 🪁 \u2028"}'.encode(),
    "spelling of numbers": b'{"model":"dall-e-2","prompt":"A kite","n":1}',
    "many members": b'{"prompt":"A kite","model":"gpt-image-2","output_compression":7,"output_format":"jpeg"}',
    "nested": b'{"model":"gemini-3-pro-image-preview","prompt":"A kite","metadata":{"resolution" : "2K"},"size":"1:1"}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_very_same_bytes_arrive(url: str, recorder: ByteRecorder, body: bytes) -> None:
    """Where nothing has to change, the client's own bytes go upstream: spaces, order, escapes and all."""
    reply = httpx.post(url, content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 200, reply.text
    assert body == recorder.bodies[-1]
    assert str(len(body)) == recorder.headers[-1]["content-length"]
    assert None is reply.headers.get("imagegate-changes")


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"openai/nobody-knows-me","prompt":"A kite","size":"17 by 4","x":[1.0,2e3,{"y":"z"}]}',
        b'{"model":"toapis/nobody/knows/me","prompt":"A kite","n":1,"style":"vivid"}',
    ],
)
def test_a_model_without_contract_passes_unchanged(url: str, recorder: ByteRecorder, body: bytes) -> None:
    """A model that is in no contract reaches its upstream with every member, and a header says that none is known."""
    reply = httpx.post(url, content=body)
    assert reply.status_code == 200, reply.text
    _, _, model = json.loads(body)["model"].partition("/")
    assert {**json.loads(body), "model": model} == json.loads(recorder.bodies[-1])
    assert (reply.headers.get("imagegate-changes"), reply.headers["imagegate-contract"]) == (None, "none")


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("openai/gpt-image-1", "/v1/images/generations"),
        ("tokmodel/openai/dall-e-2", "/v1/images/generations"),
        ("onetoken/gpt-image-2", "/below/v1/images/generations/"),
        ("toapis/gemini-2.5-flash-image", "/v1/images/generations"),
    ],
)
def test_every_spelling_of_an_address(url: str, recorder: ByteRecorder, model: str, path: str) -> None:
    """An address with a trailing ``/v1``, with slashes or below a path leads to the provider's own path."""
    reply = httpx.post(url, json={"model": model, "prompt": "A kite"})
    assert reply.status_code == 200, reply.text
    assert path == recorder.paths[-1]
    assert recorder.headers[-1]["authorization"] == "Bearer sk-own"


def test_a_chunked_request_goes_out_with_its_length(url: str, recorder: ByteRecorder) -> None:
    """A client that sends in chunks, as some runtimes do, is understood; the provider gets a content-length."""
    body = BODIES["white space"]
    reply = httpx.post(url, content=(body[i : i + 5] for i in range(0, len(body), 5)))
    assert reply.status_code == 200, reply.text
    assert body == recorder.bodies[-1]
    assert "transfer-encoding" not in recorder.headers[-1]


def test_nothing_of_the_clients_headers_goes_upstream(url: str, recorder: ByteRecorder) -> None:
    """Cookies, forwarding headers and the client's key stay at the gateway."""
    headers = {"authorization": "Bearer sk-client", "cookie": "a=b", "x-forwarded-for": "10.0.0.1", "expect": "none"}
    reply = httpx.post(url, json={"model": "dall-e-3", "prompt": "A kite"}, headers=headers)
    assert reply.status_code == 200, reply.text
    expected = {"host", "accept", "accept-encoding", "user-agent", "content-type", "content-length", "authorization"}
    assert expected == set(recorder.headers[-1])
    assert recorder.headers[-1]["authorization"] == "Bearer sk-own"
