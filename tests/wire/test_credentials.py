"""Credentials that a provider does not take, for every adapter: one request, its reason, and no key in that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving
from imagegate.registry import installed, load_adapter
from imagegate.testing import Answer, FakeUpstream

NEEDS_OPTIONS = {"comfyui", "vertex", "bedrock"}
"""They have credentials of other kinds, or work only with options; `test_comfyui` and `test_adapter_seam` have them."""
NAMES = sorted(set(installed()) - NEEDS_OPTIONS)
KEYED = [name for name in NAMES if load_adapter(name).authentication.required]


def key_of(name: str) -> str:
    return f"own-key-of-{name}-0123456789"


def model_of(name: str) -> str:
    """A model of the adapter's that makes pictures from text; any, where it names none."""
    for model, table in load_adapter(name).contracts().models.items():
        if "*" not in model and not table.get("retired") and "generations" not in table.get("without", ()):
            return model
    return "any"


class Strict:
    """Answers what the test says."""

    answer = Answer()


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeUpstream]:
    with FakeUpstream(handler=lambda _: Strict.answer) as provider:
        yield provider


def gateway(provider: FakeUpstream, folder: Path, key: bool) -> ImageGateway:
    upstreams = "\n".join(
        f'[[upstreams]]\nname = "{name}"\nbase_url = "{provider.url}/{name}"\n'
        + (f'api_key = "{key_of(name)}"\n' if key else "")
        for name in NAMES
    )
    policy = "[policy]\nretries = 0\nbreaker_failures = 0\n"
    return ImageGateway(config=parse_config(f'{upstreams}\n[delivery]\nstore = "file://{folder}"\n{policy}'))


@pytest.fixture(scope="module")
def keyed(provider: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(gateway(provider, tmp_path_factory.mktemp("keyed"), key=True)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def keyless(provider: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(gateway(provider, tmp_path_factory.mktemp("keyless"), key=False)) as port:
        yield f"http://127.0.0.1:{port}"


def ask(url: str, name: str, **headers: str) -> httpx.Response:
    document = {"model": f"{name}/{model_of(name)}", "prompt": "A kite"}
    return httpx.post(f"{url}/v1/images/generations", json=document, headers=headers, timeout=30)


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "Incorrect API key provided: {}."), (403, "The key {} has expired.")]
)
@pytest.mark.parametrize("name", NAMES)
def test_a_key_that_is_not_taken(provider: FakeUpstream, keyed: str, name: str, reason: str, status: int) -> None:
    """Wrong or expired: asked once, and what the provider quotes of the key is not passed on."""
    document = {"error": {"message": reason.format(key_of(name)), "type": "x", "code": "invalid_api_key"}}
    Strict.answer = Answer(status=status, document=document)
    provider.seen.clear()
    response = ask(keyed, name)
    assert response.status_code in (401, 403, 502), response.text
    assert reason.format("[...]").removesuffix(".") in response.json()["error"]["message"]
    assert "own-key" not in response.text + json.dumps(dict(response.headers))
    assert provider.url.removeprefix("http://") not in response.text
    assert len(provider.seen) == 1
    assert "x-should-retry" not in response.headers


@pytest.mark.parametrize("name", KEYED)
def test_a_key_that_is_missing(provider: FakeUpstream, keyless: str, name: str) -> None:
    """Neither configured nor the client's: nothing is sent."""
    provider.seen.clear()
    response = ask(keyless, name)
    assert (response.status_code, provider.seen) == (401, []), response.text
