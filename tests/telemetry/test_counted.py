"""Every fact that metrics are made of is written down by the product, and not by tests alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.conftest import Running
from tests.wire.edit_support import picture

import imagegate
from imagegate.config.loader import load_config
from imagegate.demo.servers import serving, write_config
from imagegate.standalone import Standalone
from imagegate.telemetry.exchange import ExchangeFacts

ROOT = Path(imagegate.__file__).parent


def written() -> set[str]:
    """Names of attributes that the product assigns, and of arguments that it gives by name."""
    found: set[str] = set()
    for file in ROOT.rglob("*.py"):
        if file.is_relative_to(ROOT / "demo"):
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    parts = target.elts if isinstance(target, ast.Tuple) else [target]
                    found |= {part.attr for part in parts if isinstance(part, ast.Attribute)}
            elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute):
                found.add(node.target.attr)
            elif isinstance(node, ast.Call):
                found |= {keyword.arg for keyword in node.keywords if keyword.arg}
    return found


def test_every_fact_is_written_by_the_product() -> None:
    """A fact that nothing sets is a metric that is always nought."""
    assert set(ExchangeFacts.__struct_fields__) - {"endpoint"} <= written()


@pytest.fixture
def url(running: Running, tmp_path: Path) -> Iterator[str]:
    """A gateway whose metrics begin at nought, and whose guard lets it read from this machine."""
    path = tmp_path / "imagegate.toml"
    write_config(path, running.ports, store=tmp_path / "images")
    path.write_text(path.read_text().replace("[delivery]", '[delivery]\nfetch_allow = ["127.0.0.1"]'))
    with serving(Standalone(load_config(path))) as port:
        yield f"http://127.0.0.1:{port}"


def count(url: str, name: str, operation: str) -> float:
    text = httpx.get(f"{url}/metrics").text
    found = [
        line for line in text.splitlines() if line.startswith(f'imagegate_{name}_total{{operation="{operation}"}} ')
    ]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


@pytest.mark.server
def test_links_and_stored_images(url: str) -> None:
    """Links that are read or refused, of clients and of providers, and what goes into the store."""
    asked = {"model": "tokmodel/openai/dall-e-2", "prompt": "A kite", "size": "256x256"}
    link = httpx.post(f"{url}/v1/images/generations", json={**asked, "response_format": "url"}).json()["data"][0]["url"]
    assert count(url, "link_fetches", "generations") == count(url, "images_stored", "generations") == 0
    links_only = {"model": "toapis/gpt-image-1.5-official", "prompt": "A kite", "size": "1:1"}
    reply = httpx.post(f"{url}/v1/images/generations", json={**links_only, "response_format": "b64_json"})
    assert reply.status_code == 200, reply.text
    assert count(url, "link_fetches", "generations") == 1

    edit = {"model": "tokenbay/gpt-image-2", "prompt": "A kite"}
    assert httpx.post(f"{url}/v1/images/edits", json={**edit, "images": [{"image_url": link}]}).status_code == 200
    refused = {**edit, "images": [{"image_url": "http://10.0.0.1/a.png"}]}
    assert httpx.post(f"{url}/v1/images/edits", json=refused).status_code == 400
    assert (count(url, "link_fetches", "edits"), count(url, "fetch_refusals", "edits")) == (1, 1)

    stored = count(url, "images_stored", "edits")
    form = {"data": {"model": "tokenlab/gemini-3-pro-image-preview", "prompt": "A kite", "response_format": "url"}}
    files = {"image": ("a.png", picture(), "image/png")}
    reply = httpx.post(f"{url}/v1/images/edits", **form, files=files)  # type: ignore[arg-type]
    assert reply.status_code == 200, reply.text
    assert count(url, "images_stored", "edits") == stored + 1  # the reference, which the provider loads


@pytest.mark.server
def test_images_of_a_providers_task(url: str) -> None:
    """They are copied into the store when the client asks for the task."""
    asked = {"model": "toapis/gpt-image-1.5-official", "prompt": "A kite", "size": "1:1", "async": True}
    created = httpx.post(f"{url}/v1/images/generations", json=asked).json()
    task = created
    while task["status"] not in ("completed", "failed"):
        task = httpx.get(f"{url}{created['poll_url']}").json()
    assert task["status"] == "completed"
    assert count(url, "images_stored", "tasks") == count(url, "link_fetches", "tasks") == len(task["data"])
