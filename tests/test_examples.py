"""Every file in examples/ does what it says."""

from __future__ import annotations

import base64
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from tests.certificates import make_authority, sign
from tests.conftest import Running
from tests.http2_server import http2_server

from imagegate import load_config
from imagegate.config.model_contracts import contracts_of, warnings_of
from imagegate.config.schema import Duration
from imagegate.demo.providers import tokenlab
from imagegate.demo.servers import serving
from imagegate.registry import installed
from imagegate.routing.catalog import Catalog
from imagegate_adapters.tokenlab import TokenLab

pytestmark = pytest.mark.server

EXAMPLES = Path(__file__).parent.parent / "examples"
GENERATIONS = "/v1/images/generations"
ASKED = {"model": "nano-banana", "prompt": "A red kite", "size": "1792x1024", "response_format": "b64_json"}


@pytest.fixture(autouse=True)
def environment(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, and one provider's key set; its address is that of the local one."""
    for name in installed():
        monkeypatch.delenv(f"{name.upper()}_API_KEY", raising=False)
    monkeypatch.setenv("TOKENLAB_API_KEY", "sk-demo-example")
    monkeypatch.setattr(TokenLab, "base_url", f"http://127.0.0.1:{running.ports['tokenlab']}")
    monkeypatch.chdir(tmp_path)


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The example that the test names, under a real server."""
    with serving(example(request.param).app) as port:
        yield f"http://127.0.0.1:{port}"


def test_every_example_is_tested() -> None:
    """There is no example that this file does not know."""
    mounts = [
        "fastapi_openapi.py",
        "fastapi_service.py",
        "imagegate.toml",
        "starlette_middleware.py",
        "starlette_mount.py",
    ]
    access = ["fastapi_users.py", "keys_in_sql.py", "moderation_openai.py", "moderation_words.py"]
    others = ["http2_upstream.py", "test_a_service.py"]
    alone = ["async_task.py", "deliver_alone.py", "fit_alone.py"]
    edits = ["edit_with_mask.mjs", "edit_with_mask.py", "edit_with_mask.sh"]  # wire/test_edit_examples.py
    routes = ["routes.toml"]  # wire/test_routes_example.py
    assert sorted([*access, *edits, *mounts, *alone, *others, *routes]) == sorted(
        file.name for file in EXAMPLES.iterdir() if file.is_file() and file.suffix != ".webp"
    )


@pytest.mark.parametrize("url", ["fastapi_openapi"], indirect=True)
def test_fastapi_openapi(url: str) -> None:
    """One document has the host's paths and the gateway's, as they are reached; FastAPI's own page shows it."""
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    assert {"/hello", "/pictures/v1/images/generations", "/pictures/images/{key}"} <= paths.keys()
    assert httpx.get(f"{url}/docs").status_code == 200
    assert httpx.get(f"{url}/pictures/v1/models").json()["data"]


def test_async_task(running: Running) -> None:
    """The task ends with a link to a picture; the same key makes no second one."""
    picture = example("async_task").picture
    made = [picture(running.url, "A lighthouse", model="tokenlab/gpt-image-2", key="lighthouse") for _ in range(2)]
    assert made[0]["status"] == "completed"
    assert made[0]["task_id"] == made[1]["task_id"]
    assert httpx.get(made[0]["data"][0]["url"]).headers["content-type"] == "image/png"


@pytest.mark.parametrize("url", ["deliver_alone"], indirect=True)
def test_deliver_alone(url: str) -> None:
    """A handler that returns base64 gets links by one middleware, which serves them too."""
    document = httpx.post(url + GENERATIONS, json={"model": "own-model", "prompt": "Red"}).json()
    (link,) = [item["url"] for item in document["data"]]
    picture = httpx.get(link)
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
    inline = httpx.post(url + GENERATIONS, json={"model": "own-model", "prompt": "Red", "response_format": "b64_json"})
    assert base64.b64decode(inline.json()["data"][0]["b64_json"]) == picture.content


def makes_pictures(url: str) -> None:
    """One generation as base64, and one as a link of the gateway's own or of the provider."""
    reply = httpx.post(url, json=ASKED, timeout=30)
    assert reply.status_code == 200, reply.text[:500]
    assert reply.headers["imagegate-changes"] == 'size;from="1792x1024";to="aspect_ratio=16:9"'
    assert "b64_json" in reply.json()["data"][0]
    link = httpx.post(url, json={**ASKED, "response_format": "url"}, timeout=30).json()["data"][0]["url"]
    assert httpx.get(link).headers["content-type"] == "image/png"


@pytest.mark.parametrize("url", ["fastapi_service"], indirect=True)
def test_fastapi_service(url: str) -> None:
    """The FastAPI service offers images beside its own routes."""
    makes_pictures(url + GENERATIONS)
    assert httpx.get(f"{url}/hello").json() == {"hello": "world"}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("url", ["fastapi_users"], indirect=True)
def test_fastapi_users(url: str) -> None:
    """The service's own dependency lets its users in, each to the models of their plan."""
    assert httpx.get(f"{url}/me", headers=bearer("token-of-ada")).json() == {"name": "Ada"}
    for asked, status in (("token-of-ada", 200), ("token-of-bob", 200), ("token-of-eve", 401)):
        reply = httpx.post(url + GENERATIONS, json=ASKED, headers=bearer(asked), timeout=30)
        assert reply.status_code == status, reply.text[:300]
    assert reply.json()["error"]["message"] == "The token has expired."
    assert httpx.post(url + GENERATIONS, json=ASKED).json()["error"]["type"] == "invalid_request_error"
    models = [
        {model["id"] for model in httpx.get(f"{url}/v1/models", headers=bearer(f"token-of-{name}")).json()["data"]}
        for name in ("ada", "bob")
    ]
    assert models[1] == {"nano-banana"} < models[0]


@pytest.mark.parametrize("url", ["moderation_words"], indirect=True)
def test_moderation_words(url: str) -> None:
    """A word of the list is refused; a number does not get to the provider, which the client is told."""
    refused = httpx.post(url + GENERATIONS, json={**ASKED, "prompt": "A gory scene"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_policy_violation")
    assert "'gory'" in refused.json()["error"]["message"]
    changed = httpx.post(url + GENERATIONS, json={**ASKED, "prompt": "A sign: +49 (30) 1234567"}, timeout=30)
    assert changed.json()["data"][0]["revised_prompt"].startswith("A sign: [number]")
    assert "prompt;replaced" in changed.headers["imagegate-changes"]
    assert "imagegate-changes" in httpx.post(url + GENERATIONS, json=ASKED, timeout=30).headers  # of the size


def test_moderation_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint sees prompts and images as its reference has it; without it, nothing is sent."""
    asked: list[dict[str, Any]] = []

    async def moderations(request: Request) -> JSONResponse:
        (content,) = (await request.json())["input"]
        asked.append(content)
        if "broken" in content.get("text", ""):
            return JSONResponse({"error": "down"}, 500)
        flags = {"violence": "violent" in content.get("text", ""), "sexual": content["type"] == "image_url" and spoilt}
        return JSONResponse({"results": [{"flagged": any(flags.values()), "categories": flags}]})

    spoilt = False
    with serving(Starlette(routes=[Route("/v1/moderations", moderations, methods=["POST"])])) as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{endpoint}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-moderation")
        with serving(example("moderation_openai").app) as port:
            url = f"http://127.0.0.1:{port}{GENERATIONS}"
            body = {**ASKED, "model": "tokenlab/nano-banana"}
            assert httpx.post(url, json=body, timeout=30).status_code == 200
            assert [each["type"] for each in asked] == ["text", "image_url"]
            assert asked[1]["image_url"]["url"].startswith("data:image/png;base64,")
            flagged = httpx.post(url, json={**body, "prompt": "A violent scene"})
            assert (flagged.status_code, "violence" in flagged.text) == (400, True)
            down = httpx.post(url, json={**body, "prompt": "A broken vase"})
            assert (down.status_code, down.json()["error"]["code"]) == (503, "moderation_unavailable")
            spoilt = True
            withheld = httpx.post(url, json=body, timeout=30)
            assert (withheld.status_code, withheld.json()["error"]["imagegate"]["images_withheld"]) == (400, 1)


def test_keys_in_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of the table lets in, to its models; another one does not, and the table has no key."""
    monkeypatch.setenv("DATABASE", str(tmp_path / "service.db"))
    service = example("keys_in_sql")
    key = service.create_key("analytical-engines", "nano-*")
    assert key.encode() not in (tmp_path / "service.db").read_bytes()
    with serving(service.app) as port:
        url = f"http://127.0.0.1:{port}{GENERATIONS}"
        assert httpx.post(url, json=ASKED, headers=bearer(key), timeout=30).status_code == 200
        assert httpx.post(url, json={**ASKED, "model": "gpt-image-2"}, headers=bearer(key)).status_code == 404
        assert httpx.post(url, json=ASKED, headers=bearer(f"{key}x")).status_code == 401


@pytest.mark.parametrize("url", ["starlette_middleware"], indirect=True)
def test_starlette_middleware(url: str) -> None:
    """The Starlette application has the gateway in front of it."""
    makes_pictures(url + GENERATIONS)
    assert httpx.get(url).text == "Pictures are made under /v1."


@pytest.mark.parametrize("url", ["starlette_mount"], indirect=True)
def test_starlette_mount(url: str) -> None:
    """The Starlette application has the gateway under a path of its own."""
    makes_pictures(f"{url}/pictures{GENERATIONS}")
    assert httpx.get(url).text == "Pictures are made under /pictures/v1."
    assert httpx.post(url + GENERATIONS, json=ASKED).status_code == 404


@pytest.fixture
def http2_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """TokenLab over TLS with HTTP/2; the versions of HTTP that requests came in."""
    provider, versions = tokenlab.create_app(), list[str]()

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            versions.append(scope["http_version"])
        await provider(scope, receive, send)

    make_authority(tmp_path)
    sign(tmp_path, "provider", "IP:127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with http2_server(noting, certificate=tmp_path / "provider.pem", key=tmp_path / "provider.key") as port:
        monkeypatch.setattr(TokenLab, "base_url", f"https://127.0.0.1:{port}")
        yield versions


def test_http2_upstream(http2_provider: list[str]) -> None:
    """The provider is asked over HTTP/2."""
    with serving(example("http2_upstream").app) as port:
        reply = httpx.post(f"http://127.0.0.1:{port}{GENERATIONS}", json=ASKED, timeout=30)
    assert reply.status_code == 200, reply.text[:500]
    assert base64.b64decode(reply.json()["data"][0]["b64_json"]).startswith(b"\x89PNG")
    assert set(http2_provider) == {"2"}


def test_a_service_under_test(tmp_path: Path) -> None:
    """The example's own tests pass where no name can be looked up and no socket opened."""
    (tmp_path / "conftest.py").write_text(
        "import socket\n\ndef refused(*_, **__):\n    raise AssertionError('the network was used')\n\n"
        "socket.getaddrinfo = socket.socket.connect = refused\n"
    )
    shutil.copy(EXAMPLES / "test_a_service.py", tmp_path)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_a_service.py")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("url", ["fit_alone"], indirect=True)
def test_fit_alone(url: str) -> None:
    """The handler behind Fit alone gets a request that is legal for the model, and the client hears what changed."""
    asked: dict[str, Any] = {"model": "gpt-image-1.5", "prompt": "A red kite", "size": "1792x1024", "style": "vivid"}
    reply = httpx.post(url + GENERATIONS, json=asked)
    assert reply.json() == {"received": {"model": "gpt-image-1.5", "prompt": "A red kite", "size": "1536x1024"}}
    assert reply.headers["imagegate-changes"] == 'size;from="1792x1024";to="1536x1024", style;dropped'


def test_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's configuration is good, and says what its comments say."""
    for name in ("TOKENLAB_API_KEY", "ONETOKEN_API_KEY", "TOAPIS_API_KEY", "CLIENT_KEY"):
        monkeypatch.setenv(name, f"value-of-{name}")
    config = load_config(EXAMPLES / "imagegate.toml")
    assert [upstream.name for upstream in config.upstreams] == ["tokenlab", "onetoken", "toapis"]
    assert [upstream.api_key for upstream in config.upstreams][2] == "value-of-TOAPIS_API_KEY"
    assert (config.access.keys, config.delivery.link_ttl) == (("value-of-CLIENT_KEY",), Duration(86400))
    assert warnings_of(config) == []
    catalog = Catalog(contracts_of(config), config.routes)
    upstreams = [target.upstream for target in catalog.resolve("gpt-image-2")]
    assert upstreams == ["tokenlab", "onetoken"]
    (own,) = catalog.resolve("gpt-image-2-studio")
    assert own.contract is not None
    assert (own.upstream, own.contract.family) == ("toapis", "toapis-gpt-image")
    for retired in ("dall-e-2", "dall-e-3", "gpt-image-1"):
        assert [target.model for target in catalog.resolve(retired)] == ["gpt-image-2", "gpt-image-2"]
    drawn = {catalog.draw("gpt-image-2-shared", lambda chance=chance: chance)[0].upstream for chance in (0.0, 0.9)}
    assert drawn == {"tokenlab"}  # of equal chances the heavier one is the sooner
