"""Keys made at run time, at a running gateway: revoked, rotated and limited while it serves, with each database."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tests.postgres import Postgres, postgres_server
from tests.waiting import until
from tests.wire.field_support import SMALL

from imagegate import ImageGateway
from imagegate.access.key_table import KeyTable
from imagegate.access.stored_key import KeySettings, new_key
from imagegate.demo.servers import serving

GENERATIONS: Final = "/v1/images/generations"
BODY: Final = {"model": "gpt-image-2", "prompt": "A cat"}
CACHE: Final = 0.1


class Rig(NamedTuple):
    web: httpx.Client
    table: KeyTable
    sent: list[str]
    """Credentials that the provider got."""
    postgres: Postgres | None

    def post(self, key: str, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}", **more.pop("headers", {})}
        return self.web.post(GENERATIONS, json={**BODY, **more}, headers=headers)

    def get(self, path: str, key: str) -> httpx.Response:
        return self.web.get(path, headers={"authorization": f"Bearer {key}"})


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("keys")
    sent: list[str] = []

    async def answer(request: Request) -> JSONResponse:
        sent.append(request.headers["authorization"])
        return JSONResponse({"created": 1, "data": [{"b64_json": base64.b64encode(SMALL).decode()}]})

    def run(url: str, postgres: Postgres | None) -> Iterator[Rig]:
        with serving(Starlette(routes=[Route(GENERATIONS, answer, methods=["POST"])])) as provider:
            config = {
                "upstreams": [{"name": "openai", "base_url": f"http://127.0.0.1:{provider}", "api_key": "house"}],
                "access": {"store": url, "cache": CACHE, "keys": ["sk-operator"], "names": ["operator"]},
                "delivery": {"store": f"file://{folder}/images"},
                "console": {"enabled": True, "operators": ["operator"]},
            }
            table = KeyTable.at(url)
            with (
                serving(ImageGateway(config=config, hooks=[])) as port,
                httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as web,
            ):
                yield Rig(web, table, sent, postgres)
            table.close()

    if request.param == "sqlite":
        yield from run(f"sqlite:///{folder}/keys.db", None)
    else:
        with postgres_server() as postgres:
            yield from run(postgres.new_database(), postgres)


def test_a_stranger_before_there_is_any_key(rig: Rig) -> None:
    """The gateway makes its tables by itself."""
    reply = rig.post(new_key())
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")


def all_of(reply: httpx.Response) -> Any:
    """Status, body and header fields, but for ids and the time."""
    fields = [(name, value) for name, value in reply.headers.multi_items() if name not in ("x-request-id", "date")]
    return reply.status_code, reply.content, sorted(fields)


def _form(rig: Rig, path: str, key: str, files: int = 1, size: int = 0) -> httpx.Response:
    uploads = [("image[]", (f"{place}.png", SMALL + bytes(size), "image/png")) for place in range(files)]
    return rig.web.post(path, data=BODY, files=uploads, headers={"authorization": f"Bearer {key}"})


WAYS_IN: Final[dict[str, Callable[[Rig, str, str], httpx.Response]]] = {
    "generation": lambda rig, key, task: rig.post(key),
    "stream": lambda rig, key, task: rig.post(key, stream=True),
    "task": lambda rig, key, task: rig.post(key, **{"async": True}),
    "explanation": lambda rig, key, task: rig.post(key, headers={"imagegate-explain": "?1"}),
    "keyed": lambda rig, key, task: rig.post(key, headers={"idempotency-key": "seen"}),
    "edit": lambda rig, key, task: _form(rig, "/v1/images/edits", key),
    "large edit": lambda rig, key, task: _form(rig, "/v1/images/edits", key, 7, 1_500_000),
    "variation": lambda rig, key, task: _form(rig, "/v1/images/variations", key),
    "models": lambda rig, key, task: rig.get("/v1/models", key),
    "model": lambda rig, key, task: rig.get("/v1/models/gpt-image-2", key),
    "task asked for": lambda rig, key, task: rig.get(f"/v1/tasks/{task}", key),
    "task given up": lambda rig, key, task: rig.web.delete(
        f"/v1/tasks/{task}", headers={"authorization": f"Bearer {key}"}
    ),
    "usage": lambda rig, key, task: rig.get("/v1/usage", key),
    "console": lambda rig, key, task: rig.get("/console/exchanges", key),
}


def test_a_foreign_key_sees_nothing_of_anothers(rig: Rig) -> None:
    """What belongs to somebody else is answered as what does not exist, and no idempotency key leads to it."""
    _, mine = rig.table.create("gina", KeySettings())
    _, foreign = rig.table.create("hugo", KeySettings())
    reply = rig.post(mine, response_format="url", headers={"idempotency-key": "mine"})
    link = reply.json()["data"][0]["url"]
    task = rig.post(mine, **{"async": True}).json()["task_id"]
    unknown = f"{task[:-1]}{'A' if task[-1] != 'A' else 'B'}"
    for ask in ("task asked for", "task given up"):
        found = WAYS_IN[ask](rig, foreign, task)
        assert found.status_code == 404
        assert all_of(found) == all_of(WAYS_IN[ask](rig, foreign, unknown))
    until(lambda: rig.get(f"/v1/tasks/{task}", mine).json()["status"] == "completed", what="the task")
    sent = len(rig.sent)
    assert "idempotency-replayed" not in rig.post(foreign, headers={"idempotency-key": "mine"}).headers
    assert len(rig.sent) == sent + 1
    usage = rig.get("/v1/usage", foreign).json()
    assert (usage["name"], usage["day"]["requests"]) == ("hugo", 1)
    # An image is served to whoever has its signed link, and to nobody without.
    path, _, signature = link.partition("?")
    assert rig.get(link, foreign).status_code == rig.web.get(link).status_code == 200
    wrong, absent = (rig.web.get(f"{each}?{signature[:-2]}xx") for each in (path, f"{path[:-12]}{'0' * 8}.png"))
    assert (wrong.status_code, wrong.content) == (absent.status_code, absent.content)


def test_a_revoked_key_answers_as_an_unknown_one(rig: Rig) -> None:
    """On every way in, once what is remembered of it has passed; and nothing of it goes to the provider."""
    _, key = rig.table.create("alice", KeySettings())
    assert rig.post(key).status_code == 200
    assert rig.sent[-1] == "Bearer house"
    task = rig.post(key, **{"async": True}).json()["task_id"]
    until(lambda: rig.get(f"/v1/tasks/{task}", key).json()["status"] == "completed", what="the task")
    _, expired = rig.table.create("old", KeySettings(), expires=int(time.time()) - 1)
    _, rotated = rig.table.create("rotated", KeySettings())
    rig.table.rotate("rotated")
    rig.table.revoke("alice")
    time.sleep(2 * CACHE)
    sent = len(rig.sent)
    for kind, ask in WAYS_IN.items():
        unknown = ask(rig, new_key(), task)
        assert unknown.status_code == 401, kind
        for other in (key, expired, rotated):
            assert all_of(ask(rig, other, task)) == all_of(unknown), kind
    assert len(rig.sent) == sent


def test_what_a_holder_has_survives_rotation(rig: Rig) -> None:
    _, first = rig.table.create("bob", KeySettings())
    _, other = rig.table.create("carol", KeySettings())
    task = rig.post(first, **{"async": True}).json()["task_id"]
    assert "idempotency-replayed" not in rig.post(first, headers={"idempotency-key": "k"}).headers
    _, second = rig.table.rotate("bob")
    time.sleep(2 * CACHE)
    assert rig.post(first).status_code == 401
    assert rig.get(f"/v1/tasks/{task}", second).status_code == 200
    assert rig.get(f"/v1/tasks/{task}", other).status_code == 404
    assert rig.post(second, headers={"idempotency-key": "k"}).headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in rig.post(other, headers={"idempotency-key": "k"}).headers


def test_limits_change_while_it_serves(rig: Rig) -> None:
    _, key = rig.table.create("dave", KeySettings(models=("gpt-image-2",)))
    assert rig.post(key).status_code == 200
    rig.table.set("dave", {"models": ("other-*",)})
    time.sleep(2 * CACHE)
    assert rig.post(key).json()["error"]["code"] == "model_not_found"


def test_the_console_knows_stored_keys(rig: Rig) -> None:
    _, key = rig.table.create("erin", KeySettings())
    rig.post(key)
    own, all_ = rig.get("/console/exchanges", key).json(), rig.get("/console/exchanges", "sk-operator").json()
    assert {entry["key"] for entry in own["exchanges"]} == {"erin"}
    assert not own["everybody"]
    assert all_["everybody"]


@pytest.mark.parametrize("rig", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
def test_without_the_database(rig: Rig) -> None:
    """Stored keys are a 503 while it is away, those of the configuration work on, and it is back as soon as it is."""
    assert rig.postgres is not None
    _, key = rig.table.create("frank", KeySettings())
    assert rig.post(key).status_code == 200
    rig.postgres.stop()
    time.sleep(2 * CACHE)
    away = rig.post(key)
    assert (away.status_code, away.json()["error"]["code"]) == (503, "access_unavailable")
    assert rig.post("sk-operator").status_code == 200
    rig.postgres.start()
    assert rig.post(key).status_code == 200
