"""Links that clients send: files where the model takes files, links where it wants links, and nowhere if private."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.wire.field_support import EDITS, GENERATIONS, GOOD, SMALL, Answer, Provider, parts_of

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving

PNG = Answer(200, (("Content-Type", "image/png"),), SMALL)
PUBLIC = "https://pictures.example/a.png"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider().running() as running:
        yield running


def asked(provider: Provider, folder: Path, path: str, model: str, more: str = "", **members: Any) -> httpx.Response:
    provider.reset()
    provider.post = GOOD
    provider.answers["GET", "/a.png"] = PNG
    config = f"""
        [[upstreams]]
        name = "here"
        adapter = "openai"
        base_url = "{provider.origin}"
        api_key = "sk-key-of-the-provider"
        models."files".edits.references = {{ forms = ["files"], mask = true }}
        models."both".edits.references = {{ forms = ["files", "objects"] }}
        models."objects".edits.references = {{ forms = ["objects"] }}
        models."links".edits.references = {{ forms = ["links"], fields = ["image_urls"] }}
        models."links".parameters = {{ prompt = {{}}, image_urls = {{ type = "array" }} }}
        [delivery]
        store = "file://{folder}"
        {more}
    """
    with serving(ImageGateway(config=parse_config(config))) as port:
        return httpx.post(f"http://127.0.0.1:{port}{path}", json={"model": f"here/{model}", "prompt": "A", **members})


def private(provider: Provider) -> list[str]:
    return [
        f"{provider.origin}/a.png",
        f"http://localhost:{provider.port}/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/a.png",
        "http://0x7f.1/a.png",
    ]


@pytest.mark.parametrize("model", ["files", "both", "objects", "links", "unknown"])
def test_private_links_go_nowhere(provider: Provider, tmp_path: Path, model: str) -> None:
    for url in private(provider):
        reply = asked(provider, tmp_path, EDITS, model, images=[{"image_url": url}])
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_url"), reply.text
        assert provider.requests == []


@pytest.mark.parametrize("model", ["links", "unknown"])
def test_private_links_of_generations(provider: Provider, tmp_path: Path, model: str) -> None:
    reply = asked(provider, tmp_path, GENERATIONS, model, image_urls=[PUBLIC, "http://10.0.0.1/a.png"])
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "image_urls")
    assert provider.requests == []


@pytest.mark.parametrize(("model", "member"), [("objects", "images"), ("links", "image_urls"), ("unknown", "images")])
def test_links_where_links_are_wanted(provider: Provider, tmp_path: Path, model: str, member: str) -> None:
    """Nothing is fetched; a name that cannot be looked up here is the provider's affair."""
    reply = asked(provider, tmp_path, EDITS, model, images=[{"image_url": PUBLIC}])
    assert reply.status_code == 200, reply.text
    (request,) = provider.requests
    assert PUBLIC in json.dumps(json.loads(request.body)[member])


@pytest.mark.parametrize("model", ["files", "both"])
def test_files_where_files_are_taken(provider: Provider, tmp_path: Path, model: str) -> None:
    """The operator allows the network, so that the link is fetched through the guard."""
    link = {"image_url": f"{provider.origin}/a.png"}
    reply = asked(provider, tmp_path, EDITS, model, 'fetch_allow = ["127.0.0.1"]', images=[link])
    assert reply.status_code == 200, reply.text
    fetched, request = provider.requests
    assert (fetched.target, "authorization" in fetched.headers) == ("/a.png", False)
    assert [part.content for part in parts_of(request) if part.filename is not None] == [SMALL]


def test_allowed_networks(provider: Provider, tmp_path: Path) -> None:
    link = {"image_url": "http://10.1.2.3/a.png"}
    reply = asked(provider, tmp_path, EDITS, "objects", 'fetch_allow = ["10.1.0.0/16"]', images=[link])
    assert reply.status_code == 200, reply.text
