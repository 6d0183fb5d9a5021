"""Users of a host application: what belongs to them whatever their `Authorization` says at the moment."""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Scope
from tests.wire.field_support import SMALL

from imagegate import Config, ImageGateway
from imagegate.config.schema import DeliveryConfig, UpstreamConfig
from imagegate.demo.servers import serving
from imagegate.telemetry.record import ExchangeRecord

GENERATIONS = "/v1/images/generations"
BODY: dict[str, Any] = {"model": "gpt-image-2", "prompt": "A cat"}


def user_of(scope: Scope) -> str | None:
    """The user in a session token such as ``alice.3``, of which there is a new one after each refresh."""
    token = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
    return token.partition(".")[0] or None


async def awaited_user_of(scope: Scope) -> str | None:
    return user_of(scope)


class Records:
    """Keeps the records of exchanges."""

    def __init__(self) -> None:
        self.seen: list[ExchangeRecord] = []

    def exchange_ended(self, record: ExchangeRecord) -> None:
        self.seen.append(record)


@pytest.fixture
def provider() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A provider's URL, and the header fields that it got."""
    asked: list[dict[str, str]] = []

    async def answer(request: Request) -> JSONResponse:
        asked.append(dict(request.headers))
        return JSONResponse({"created": 1, "data": [{"b64_json": base64.b64encode(SMALL).decode()}]})

    with serving(Starlette(routes=[Route(GENERATIONS, answer, methods=["POST"])])) as port:
        yield f"http://127.0.0.1:{port}", asked


def gateway(base_url: str, owner: Any, records: Records) -> ImageGateway:
    config = Config(
        upstreams=(UpstreamConfig(name="openai", base_url=base_url, api_key="key-of-the-upstream"),),
        delivery=DeliveryConfig(store="memory://"),
    )
    return ImageGateway(config=config, owner=owner, hooks=[records])


def as_user(token: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", **more}


@pytest.mark.parametrize("owner", [user_of, awaited_user_of])
def test_what_belongs_to_a_user(provider: tuple[str, list[dict[str, str]]], owner: Any) -> None:
    """A refreshed token finds the user's task and idempotency key; another user's does not."""
    records = Records()
    with (
        serving(gateway(provider[0], owner, records)) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as web,
    ):
        task = web.post(GENERATIONS, json={**BODY, "async": True}, headers=as_user("alice.1")).json()
        path = f"/v1/tasks/{task['task_id']}"
        assert web.get(path, headers=as_user("alice.2")).status_code == 200
        assert web.get(path, headers=as_user("bob.1")).status_code == 404
        assert web.get(path).status_code == 404
        while web.get(path, headers=as_user("alice.2")).json()["status"] not in ("completed", "failed"):
            time.sleep(0.02)
        sent = len(provider[1])
        keyed = [
            web.post(GENERATIONS, json=BODY, headers=as_user(token, **{"idempotency-key": "k"}))
            for token in ("alice.1", "alice.2", "bob.1")
        ]
        assert [reply.headers.get("idempotency-replayed") for reply in keyed] == [None, "true", None]
        assert len(provider[1]) - sent == 2
    users = [record.user for record in records.seen if record.endpoint == "generations"]
    assert users == ["alice"] * 4 + ["bob"]
    assert all(headers["authorization"] == "Bearer key-of-the-upstream" for headers in provider[1])


def test_without_a_user_the_header_counts(provider: tuple[str, list[dict[str, str]]]) -> None:
    """A host that knows no user leaves things as they are."""

    def nobody(scope: Scope) -> Awaitable[str | None] | str | None:
        return None

    with serving(gateway(provider[0], nobody, Records())) as port:
        url = f"http://127.0.0.1:{port}"
        task = httpx.post(url + GENERATIONS, json={**BODY, "async": True}, headers=as_user("alice.1")).json()
        assert httpx.get(f"{url}/v1/tasks/{task['task_id']}", headers=as_user("alice.1")).status_code == 200
        assert httpx.get(f"{url}/v1/tasks/{task['task_id']}", headers=as_user("alice.2")).status_code == 404
