"""A signed image verifies after every way of delivery: not one byte of it is touched."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import c2pa
import httpx
import pytest
from PIL import Image
from starlette.types import Receive, Scope, Send
from tests.certificates import make_signer
from tests.wire.edit_support import until
from tests.wire.stream_support import Provider, completed

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving

AI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CREATED = {"action": "c2pa.created", "digitalSourceType": AI}
MANIFEST = {
    "claim_generator_info": [{"name": "imagegate-tests", "version": "1"}],
    "assertions": [
        {"label": "c2pa.actions", "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": AI}]}}
    ],
}
KINDS = {
    "small.png": (96, "PNG", "image/png"),
    "large.png": (640, "PNG", "image/png"),
    "photo.jpg": (400, "JPEG", "image/jpeg"),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """Signed images; the large one is relayed while it arrives."""
    chain, key = make_signer(tmp_path_factory.mktemp("signer"))
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(alg=b"es256", sign_cert=chain, private_key=key, ta_url=None))
    signed: dict[str, bytes] = {}
    for name, (size, form, media_type) in KINDS.items():
        source, target = io.BytesIO(), io.BytesIO()
        Image.effect_noise((size, size), 80).convert("RGB").save(source, form)
        source.seek(0)
        c2pa.Builder(json.dumps(MANIFEST)).sign(signer, media_type, source, target)
        signed[name] = target.getvalue()
    assert len(signed["large.png"]) > 1024**2
    return signed


def state_of(name: str, content: bytes) -> str:
    """What the library says of the manifest: `Valid`, but for a signer whom nobody trusts."""
    document = json.loads(c2pa.Reader(KINDS[name][2], io.BytesIO(content)).json())
    return str(document["validation_state"])


@pytest.fixture(scope="module")
def url(images: Mapping[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway whose provider answers with the image that the prompt names, as base64, or as a link if it says so."""

    async def provider(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] == "GET":
            content, kind = images[scope["path"].rpartition("/")[2]], b"application/octet-stream"
        else:
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message["body"], message["more_body"]
            name, _, how = json.loads(body)["prompt"].partition(" ")
            host = dict(scope["headers"])[b"host"].decode()
            text = base64.b64encode(images[name]).decode()
            image = {"url": f"http://{host}/files/{name}"} if how == "link" else {"b64_json": text}
            content, kind = json.dumps({"created": 1, "data": [image]}).encode(), b"application/json"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": content})

    with serving(provider) as port:
        config = parse_config(
            f'[[upstreams]]\nname = "openai"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "k"\n'
            f'[delivery]\nstore = "file://{tmp_path_factory.mktemp("store")}"\n'
        )
        with serving(ImageGateway(config=config)) as own:
            yield f"http://127.0.0.1:{own}"


def asked(url: str, **members: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/images/generations", json={"model": "openai/gpt-image-1", **members}, timeout=30)


def stored(url: str, name: str) -> tuple[bytes, str]:
    reply = asked(url, prompt=name, response_format="url")
    return httpx.get(reply.json()["data"][0]["url"]).content, reply.headers["imagegate-provenance"]


def as_base64(url: str, name: str) -> tuple[bytes, str]:
    reply = asked(url, prompt=name, response_format="b64_json")
    return base64.b64decode(reply.json()["data"][0]["b64_json"]), reply.headers["imagegate-provenance"]


def fetched(url: str, name: str) -> tuple[bytes, str]:
    reply = asked(url, prompt=f"{name} link", response_format="b64_json")
    return base64.b64decode(reply.json()["data"][0]["b64_json"]), reply.headers["imagegate-provenance"]


def streamed(url: str, name: str) -> tuple[bytes, str]:
    text = asked(url, prompt=name, stream=True).text
    return base64.b64decode(re.findall(r'"b64_json":"([^"]+)"', text)[-1]), "c2pa"


def streamed_link(url: str, name: str) -> tuple[bytes, str]:
    text = asked(url, prompt=name, stream=True, response_format="url").text
    return httpx.get(re.findall(r'"url":"([^"]+)"', text)[-1]).content, "c2pa"


def replayed(url: str, name: str) -> tuple[bytes, str]:
    asking = {"json": {"model": "openai/gpt-image-1", "prompt": name}, "headers": {"idempotency-key": name}}
    first, again = (httpx.post(f"{url}/v1/images/generations", **asking, timeout=30) for _ in range(2))
    assert (first.content, again.headers["idempotency-replayed"]) == (again.content, "true")
    return base64.b64decode(again.json()["data"][0]["b64_json"]), again.headers["imagegate-provenance"]


def by_task(url: str, name: str) -> tuple[bytes, str]:
    poll = asked(url, prompt=name, **{"async": True}).json()["poll_url"]
    until(lambda: httpx.get(url + poll).json()["status"] == "completed")
    return httpx.get(httpx.get(url + poll).json()["data"][0]["url"]).content, "c2pa"


WAYS = (stored, as_base64, fetched, streamed, streamed_link, replayed, by_task)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_signature_survives(
    url: str, images: Mapping[str, bytes], way: Callable[[str, str], tuple[bytes, str]], name: str
) -> None:
    content, header = way(url, name)
    assert content == images[name]
    assert (state_of(name, content), header) == ("Valid", "c2pa")


def test_the_test_would_see_a_change(images: Mapping[str, bytes]) -> None:
    for name, content in images.items():
        changed = bytearray(content)
        changed[-1000] ^= 1
        assert state_of(name, bytes(changed)) == "Invalid"


def test_streams_of_providers_are_untouched(images: Mapping[str, bytes], tmp_path: Path) -> None:
    provider = Provider()
    with serving(provider) as port:
        config = parse_config(
            f'[[upstreams]]\nname = "openai"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "k"\n'
            f'[delivery]\nstore = "file://{tmp_path}"\n'
        )
        with serving(ImageGateway(config=config)) as own:
            for form in ("b64_json", "url"):
                provider.says(completed(b64_json=base64.b64encode(images["large.png"]).decode()))
                text = asked(f"http://127.0.0.1:{own}", prompt="x", stream=True, response_format=form).text
                found = re.findall(rf'"{form}":"([^"]+)"', text)[-1]
                content = httpx.get(found).content if form == "url" else base64.b64decode(found)
                assert state_of("large.png", content) == "Valid"


def test_an_image_without_a_manifest_has_no_header(tmp_path: Path) -> None:
    plain = io.BytesIO()
    Image.new("RGB", (8, 8)).save(plain, "PNG")
    document = {"created": 1, "data": [{"b64_json": base64.b64encode(plain.getvalue()).decode()}]}

    async def provider(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
            )
            await send({"type": "http.response.body", "body": json.dumps(document).encode()})

    with serving(provider) as port:
        config = parse_config(
            f'[[upstreams]]\nname = "openai"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "k"\n'
            f'[delivery]\nstore = "file://{tmp_path}"\n'
        )
        with serving(ImageGateway(config=config)) as own:
            reply = asked(f"http://127.0.0.1:{own}", prompt="x", response_format="url")
            assert (reply.status_code, "imagegate-provenance" in reply.headers) == (200, False)
