"""Tests of a service that mounts the gateway, without a key and without a network.

Run:  pip install "imagegate[server]" fastapi pytest respx;  pytest test_a_service.py
"""

import base64
import json

import httpx
import respx
from fastapi import FastAPI
from fastapi.testclient import TestClient

from imagegate import Config, ImageGateway
from imagegate.config.schema import DeliveryConfig, UpstreamConfig
from imagegate.testing import offline

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
BODY = {"model": "gpt-image-2", "prompt": "A red kite"}

app = FastAPI()
app.add_middleware(
    ImageGateway,
    config=Config(
        upstreams=(UpstreamConfig(name="openai", api_key="sk-of-the-test"),), delivery=DeliveryConfig(store="memory://")
    ),
)


@respx.mock
def test_with_respx() -> None:
    """The provider answers with a link, which the gateway fetches for a client that wants base64."""
    made = respx.post("https://api.openai.com/v1/images/generations").respond(
        json={"created": 1, "data": [{"url": "https://cdn.example.com/1.png"}]}
    )
    fetched = respx.get("https://cdn.example.com/1.png").respond(content=PIXEL)
    with offline(), TestClient(app) as client:
        answer = client.post("/v1/images/generations", json=BODY)
    assert answer.json()["data"] == [{"b64_json": base64.b64encode(PIXEL).decode()}]
    assert json.loads(made.calls.last.request.content) == BODY
    assert made.calls.last.request.headers["authorization"] == "Bearer sk-of-the-test"
    assert fetched.call_count == 1


def test_with_a_mock_transport() -> None:
    """What the provider refuses reaches the client, and nothing is sent twice."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(400, json={"error": {"message": "No kites.", "code": "moderation_blocked"}})

    with offline(httpx.MockTransport(answer)), TestClient(app) as client:
        refused = client.post("/v1/images/generations", json=BODY)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "moderation_blocked")
    assert len(requests) == 1
