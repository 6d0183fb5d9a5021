"""What OpenAI's clients send beside the plain request: Azure's paths and keys, organizations, encodings, models."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tests.wire.field_support import SMALL

from imagegate import Config, ImageGateway
from imagegate.config.schema import AccessConfig, DeliveryConfig, UpstreamConfig
from imagegate.demo.servers import serving

PICTURE = SMALL
KEY = "client-key-of-the-gateway"
GENERATIONS = "/v1/images/generations"


class Provider:
    """Answers every request with one picture, and keeps what it got."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST"])])

    async def _answer(self, request: Request) -> JSONResponse:
        self.requests.append((request.url.path, dict(request.headers), await request.body()))
        return JSONResponse({"created": 1, "data": [{"b64_json": base64.b64encode(PICTURE).decode()}]})

    @property
    def headers(self) -> dict[str, str]:
        return self.requests[-1][1]


@pytest.fixture
def provider() -> Iterator[tuple[Provider, str]]:
    """A provider and its base URL."""
    made = Provider()
    with serving(made.app) as port:
        yield made, f"http://127.0.0.1:{port}"


def config(base_url: str, *, api_key: str | None = "key-of-the-upstream", keys: tuple[str, ...] = (KEY,)) -> Config:
    return Config(
        upstreams=(UpstreamConfig(name="openai", base_url=base_url, api_key=api_key),),
        access=AccessConfig(keys=keys),
        delivery=DeliveryConfig(store="memory://"),
    )


@pytest.fixture
def gateway(provider: tuple[Provider, str]) -> Iterator[str]:
    """The URL of a gateway with a key."""
    with serving(ImageGateway(config=config(provider[1]))) as port:
        yield f"http://127.0.0.1:{port}"


def azure(url: str, **options: Any) -> openai.AzureOpenAI:
    return openai.AzureOpenAI(
        azure_endpoint=url, api_version="2025-04-01-preview", **{"api_key": KEY, "max_retries": 0, **options}
    )


def test_the_azure_client_generates(gateway: str, provider: tuple[Provider, str]) -> None:
    """The model is the deployment of the path, and the key is the gateway's like any other."""
    made = azure(gateway).images.generate(model="gpt-image-2", prompt="A cat")
    assert base64.b64decode(made.data[0].b64_json or "") == PICTURE  # type: ignore[index]
    path, headers, body = provider[0].requests[-1]
    assert path == GENERATIONS
    assert json.loads(body)["model"] == "gpt-image-2"
    assert headers["authorization"] == "Bearer key-of-the-upstream"
    assert "api-key" not in headers


def test_the_azure_client_edits(gateway: str, provider: tuple[Provider, str]) -> None:
    """A form reaches the provider with its file."""
    made = azure(gateway).images.edit(model="gpt-image-2", prompt="A cat", image=("a.png", PICTURE, "image/png"))
    assert base64.b64decode(made.data[0].b64_json or "") == PICTURE  # type: ignore[index]
    path, _, body = provider[0].requests[-1]
    assert path == "/v1/images/edits"
    assert PICTURE in body


def test_a_deployment_names_the_model(gateway: str, provider: tuple[Provider, str]) -> None:
    """A body without a model, as JSON or as a form, gets that of the path; Azure's v1 path needs one."""
    url = f"{gateway}/openai/deployments/gpt-image-2/images/generations?api-version=1"
    assert httpx.post(url, json={"prompt": "A cat"}, headers={"api-key": KEY}).status_code == 200
    assert json.loads(provider[0].requests[-1][2])["model"] == "gpt-image-2"
    assert httpx.post(url, data={"prompt": "A cat"}, files={}, headers={"api-key": KEY}).status_code == 415
    slashed = url.replace("gpt-image-2", "openai/openai/gpt-image-2")
    assert httpx.post(slashed, json={"prompt": "A cat"}, headers={"api-key": KEY}).status_code == 200
    assert json.loads(provider[0].requests[-1][2])["model"] == "openai/gpt-image-2"
    edits = url.replace("generations", "edits")
    answer = httpx.post(edits, data={"prompt": "A cat"}, files={"image": PICTURE}, headers={"api-key": KEY})
    assert answer.status_code == 200, answer.text
    v1 = httpx.post(
        f"{gateway}/openai/v1/images/generations", json={"prompt": "A cat"}, headers={"authorization": f"Bearer {KEY}"}
    )
    assert (v1.status_code, v1.json()["error"]["param"]) == (400, "model")


def test_another_model_than_the_deployment_is_refused(gateway: str, provider: tuple[Provider, str]) -> None:
    """Neither wins."""
    client = azure(gateway, azure_deployment="gpt-image-2")
    with pytest.raises(openai.BadRequestError) as raised:
        client.images.generate(model="gpt-image-1", prompt="A cat")
    assert raised.value.param == "model"
    assert "gpt-image-2" in raised.value.message
    assert provider[0].requests == []


@pytest.mark.parametrize("headers", [{}, {"api-key": "wrong"}, {"authorization": "Bearer wrong", "api-key": KEY}])
def test_a_wrong_key_on_azure_paths(gateway: str, headers: dict[str, str]) -> None:
    """`Authorization` counts where both are sent, as everywhere."""
    url = f"{gateway}/openai/deployments/gpt-image-2/images/generations"
    assert httpx.post(url, json={"prompt": "A cat"}, headers=headers).status_code == 401


def test_other_azure_paths_are_unknown(gateway: str) -> None:
    """Only images are served."""
    answer = httpx.post(f"{gateway}/openai/deployments/gpt/chat/completions", json={}, headers={"api-key": KEY})
    assert answer.status_code == 404


PAYERS = {"openai-organization": "org-1", "openai-project": "proj_2"}


def test_organization_and_project_go_with_the_clients_key(provider: tuple[Provider, str]) -> None:
    """An upstream without a key of its own gets them with the client's."""
    with serving(ImageGateway(config=config(provider[1], api_key=None, keys=()))) as port:
        client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-own", organization="org-1", project="proj_2"
        )
        answer = client.images.with_raw_response.generate(model="gpt-image-2", prompt="A cat")
        assert answer.headers.get("imagegate-changes") is None
        assert {name: provider[0].headers[name] for name in PAYERS} == PAYERS
        shown = httpx.post(
            f"http://127.0.0.1:{port}{GENERATIONS}",
            json={"model": "gpt-image-2", "prompt": "A cat"},
            headers={**PAYERS, "authorization": "Bearer sk-own", "imagegate-explain": "?1"},
        )
        assert shown.json()["headers"]["openai-project"] == "proj_2"
        bad = httpx.post(
            f"http://127.0.0.1:{port}{GENERATIONS}",
            json={"model": "gpt-image-2", "prompt": "A cat"},
            headers={"openai-project": "x" * 300, "authorization": "Bearer sk-own"},
        )
        assert (bad.status_code, bad.json()["error"]["param"]) == (400, "openai-project")


def test_organization_and_project_do_not_go_with_the_gateways_key(gateway: str, provider: tuple[Provider, str]) -> None:
    """The answer says that they were dropped."""
    answer = httpx.post(
        gateway + GENERATIONS,
        json={"model": "gpt-image-2", "prompt": "A cat"},
        headers={**PAYERS, "authorization": f"Bearer {KEY}"},
    )
    assert answer.headers["imagegate-changes"] == "openai-organization;dropped, openai-project;dropped"
    assert not provider[0].headers.keys() & PAYERS.keys()


@pytest.mark.parametrize("path", [GENERATIONS, "/v1/images/edits"])
def test_a_compressed_body_is_refused(gateway: str, provider: tuple[Provider, str], path: str) -> None:
    """The error says why, not that the JSON is broken."""
    body = gzip.compress(json.dumps({"model": "gpt-image-2", "prompt": "A cat"}).encode())
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json", "content-encoding": "gzip"}
    answer = httpx.post(gateway + path, content=body, headers=headers)
    assert answer.status_code == 415
    assert "gzip" in answer.json()["error"]["message"]
    assert provider[0].requests == []
    plain = httpx.post(
        gateway + GENERATIONS,
        json={"model": "gpt-image-2", "prompt": "A cat"},
        headers={"authorization": f"Bearer {KEY}", "content-encoding": "identity"},
    )
    assert plain.status_code == 200


def test_one_model(gateway: str) -> None:
    """`GET /v1/models/{id}`, also with an upstream's name in front, as openai-python asks it; nothing in it is null."""
    client = openai.OpenAI(base_url=f"{gateway}/v1", api_key=KEY, max_retries=0)
    listed = {model.id: model.model_dump() for model in client.models.list()}
    assert client.models.retrieve("gpt-image-2").model_dump() == listed["gpt-image-2"]
    assert client.models.retrieve("openai/gpt-image-2").id == "openai/gpt-image-2"
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("gpt-image-z")
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.retrieve("gpt-image-2")
    assert b"null" not in httpx.get(f"{gateway}/v1/models", headers={"authorization": f"Bearer {KEY}"}).content


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", GENERATIONS, 405)])
def test_what_is_not_served_has_a_request_id(gateway: str, method: str, path: str, status: int) -> None:
    """The client's own where it sends one."""
    first = httpx.request(method, gateway + path)
    assert (first.status_code, first.headers["x-request-id"][:4]) == (status, "req_")
    assert httpx.request(method, gateway + path, headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"
