"""Another configuration in a running gateway: what may change, and when what it replaces is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from tests.smallest_png import ONE_PIXEL
from tests.waiting import async_until

from imagegate import Config, ConfigError, ImageGateway
from imagegate.config.loader import read_config
from imagegate.config.reloading import check_reload

BODY = {"model": "kites", "prompt": "A kite", "response_format": "b64_json"}


def config(model: str = "kites", **more: Any) -> dict[str, Any]:
    upstream = {"name": "painter", "adapter": "openai", "base_url": "https://painter.test", "api_key": "sk"}
    return {
        "upstreams": [upstream],
        "routes": {model: ["painter/any"]},
        "delivery": {"store": "memory://"},
        **more,
    }


class Running:
    """A gateway whose provider answers when it may."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.asked = asyncio.Event()
        self.answered = 0
        self.gateway = ImageGateway(config=config(), transport=httpx.MockTransport(self._answer), hooks=())
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.gateway), base_url="http://gateway.test")

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.set()
        await self.may_end.wait()
        self.answered += 1
        return httpx.Response(200, json={"created": 1, "data": [{"b64_json": ONE_PIXEL}]})

    async def post(self, **more: Any) -> httpx.Response:
        return await self.client.post("/v1/images/generations", json={**BODY, **more})


@asynccontextmanager
async def running() -> AsyncGenerator[Running]:
    made = Running()
    async with made.client:
        yield made


def test_what_is_replaced_is_closed_after_its_last_exchange() -> None:
    """Not before: the request goes on as it began, and its route is gone for others."""

    async def run() -> None:
        async with running() as made, made.gateway:
            call = asyncio.create_task(made.post())
            await made.asked.wait()
            made.gateway.reload(config("birds"))
            await asyncio.sleep(0.01)
            assert len(made.gateway.retired) == 1
            assert (await made.post()).status_code == 404
            made.may_end.set()
            assert (await call).status_code == 200
            await async_until(lambda: not made.gateway.retired)
            assert (await made.post(model="birds")).status_code == 200

    asyncio.run(run())


def test_the_end_waits_for_tasks_of_every_configuration() -> None:
    """A task that began two configurations ago is finished, not cancelled."""

    async def run() -> None:
        async with running() as made:
            async with made.gateway:
                assert (await made.post(**{"async": True})).status_code == 202
                await made.asked.wait()
                made.gateway.reload(config("birds"))
                made.gateway.reload(config("fish"))
                asyncio.get_running_loop().call_later(0.05, made.may_end.set)
            assert made.answered == 1
            assert made.gateway.retired == []

    asyncio.run(run())


def test_a_refused_configuration_changes_nothing() -> None:
    """Neither one that is wrong in itself, nor one that only a restart can apply."""

    async def run() -> None:
        async with running() as made, made.gateway:
            made.may_end.set()
            for bad in (
                config("birds", policy={"retries": -1}),
                config("birds", prefix="/other"),
                config("birds", routes={"birds": ["nobody/any"]}),
            ):
                with pytest.raises(ConfigError):
                    made.gateway.reload(bad)
            assert made.gateway.retired == []
            assert (await made.post()).status_code == 200

    asyncio.run(run())


CHANGES: dict[str, dict[str, Any]] = {
    "prefix": {"prefix": "/other"},
    "tasks": {"tasks": {"in_flight": 3}},
    "limits": {"limits": {"in_flight": 3}},
    "spending": {"spending": {"reserve": 1.0}},
    "metrics": {"metrics": {"key": "key-of-metrics"}},
    "console": {"console": {"exchanges": 3}},
    "log": {"log": {"prompts": True}},
    "idempotency.ttl": {"idempotency": {"ttl": "1h"}},
    "delivery.store": {"delivery": {"store": "file://elsewhere"}},
    "delivery.link_secret": {"delivery": {"store": "memory://", "link_secret": "secret-of-the-links"}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_only_a_restart_changes_is_named(name: str) -> None:
    """The reason has the key."""
    with pytest.raises(ConfigError, match=rf"^{name}: cannot change"):
        check_reload(read_config(config()), read_config(config(**CHANGES[name])))


def test_every_table_is_decided_on() -> None:
    """A table that is added to the configuration is either fixed or known to be one that can change."""
    can_change = {"upstreams", "routes", "policy", "moderation", "prices"}
    named = {name.partition(".")[0] for name in CHANGES} | {"access"}
    assert {field.encode_name for field in msgspec.structs.fields(Config)} == can_change | named
