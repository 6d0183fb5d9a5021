"""Who may ask for what, on real sockets: strangers, restricted principals, own keys, and what belongs to whom."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Scope
from tests.waiting import until
from tests.wire.field_support import LARGE, SMALL

from imagegate import ImageGateway, Principal
from imagegate.demo.providers import tokenlab
from imagegate.demo.servers import serving
from imagegate.telemetry.record import ExchangeRecord

GENERATIONS: Final = "/v1/images/generations"
EDITS: Final = "/v1/images/edits"
BODY: Final[dict[str, Any]] = {"model": "gpt-image-2", "prompt": "A cat", "size": "1024x1024"}
PRINCIPALS: Final = {
    "ada-1": Principal(id="ada", metadata={"plan": "gold"}, tenant="engines"),
    "ada-2": Principal(id="ada", metadata={"plan": "gold"}, tenant="engines"),
    "bob": Principal(
        id="bob", models=("gpt-image-2",), sizes=("1024x1024",), operations=("generations", "edits"), name="Bob"
    ),
    "cleo": Principal(id="cleo", upstream_keys={"first": "sk-cleos-own-key", "tasks": "sk-demo-cleo"}),
    "dan": Principal(id="dan"),
}


class Rig(NamedTuple):
    web: httpx.Client
    asked: dict[str, list[dict[str, str]]]
    """By upstream, the header fields that it got."""
    records: list[ExchangeRecord]
    questions: list[str]
    """Paths that the application was asked about."""

    def post(self, path: str = GENERATIONS, token: str = "", **options: Any) -> httpx.Response:
        headers = {**({"authorization": f"Bearer {token}"} if token else {}), **options.pop("headers", {})}
        return self.web.post(path, headers=headers, **options)

    def get(self, path: str, token: str = "") -> httpx.Response:
        return self.web.get(path, headers={"authorization": f"Bearer {token}"} if token else {})

    def ended(self, task_id: str, token: str) -> dict[str, Any]:
        """The task once it is over."""

        def state() -> dict[str, Any] | None:
            found: dict[str, Any] = self.get(f"/v1/tasks/{task_id}", token).json()
            return found if found["status"] in ("completed", "failed") else None

        return until(state, what="the end of a task") or {}

    @property
    def sent(self) -> int:
        return sum(map(len, self.asked.values()))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    asked: dict[str, list[dict[str, str]]] = {"first": [], "second": []}
    records: list[ExchangeRecord] = []
    questions: list[str] = []

    def provider(name: str) -> Starlette:
        async def answer(request: Request) -> Response:
            asked[name].append(dict(request.headers))
            await request.body()
            if request.headers["authorization"].endswith("refused"):
                return JSONResponse({"error": {"message": "bad key sk-cleos-own-key"}}, 401)
            return JSONResponse({"created": 1, "data": [{"b64_json": base64.b64encode(SMALL).decode()}]})

        paths = ("/v1/images/generations", "/v1/images/edits")
        return Starlette(routes=[Route(path, answer, methods=["POST"]) for path in paths])

    async def principal_of(scope: Scope) -> Principal | None:
        questions.append(scope["path"])
        token = Request(scope).headers.get("authorization", "").removeprefix("Bearer ")
        if token == "crash":
            raise RuntimeError("no database at 10.0.0.7")
        if token == "sleep":
            await asyncio.sleep(60)
        return PRINCIPALS.get(token)

    class Records:
        def exchange_ended(self, record: ExchangeRecord) -> None:
            records.append(record)

    async def home(request: Request) -> PlainTextResponse:
        return PlainTextResponse("home")

    app = Starlette(routes=[Route("/home", home)])
    with (
        serving(provider("first")) as first,
        serving(provider("second")) as second,
        serving(tokenlab.create_app(task_seconds=0.1)) as tasks,
    ):
        config: dict[str, Any] = {
            "upstreams": [
                {
                    "name": "first",
                    "adapter": "openai",
                    "base_url": f"http://127.0.0.1:{first}",
                    "api_key": "key-of-first",
                    "headers": {"X-Gateway": "g"},
                },
                {
                    "name": "second",
                    "adapter": "openai",
                    "base_url": f"http://127.0.0.1:{second}",
                    "headers": {"Authorization": "Bearer key-of-second"},
                },
                {"name": "bare", "adapter": "openai", "base_url": f"http://127.0.0.1:{second}"},
                {
                    "name": "tasks",
                    "adapter": "tokenlab",
                    "base_url": f"http://127.0.0.1:{tasks}",
                    "api_key": "sk-demo-house",
                },
            ],
            "routes": {"secret-model": ["first/gpt-image-2"], "theirs": ["bare/gpt-image-2"]},
            "delivery": {"store": f"file://{tmp_path_factory.mktemp('access')}"},
            "tasks": {"poll_interval": 0.05},
            "access": {"timeout": 0.2},
            "console": {"enabled": True},
        }
        app.add_middleware(ImageGateway, config=config, access=principal_of, hooks=[Records()])
        with serving(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as web:
            yield Rig(web, asked, records, questions)


def form(model: str, size: int = 59) -> dict[str, Any]:
    content = SMALL if size == 59 else LARGE
    count = 1 if size == 59 else 7  # more than 8 MiB: such forms are read while they are sent
    return {
        "data": {"model": model, "prompt": "A cat", "size": "1024x1024"},
        "files": [("image[]", (f"{place}.png", content, "image/png")) for place in range(count)],
    }


REQUESTS: Final[dict[str, Any]] = {
    "generation": lambda model: (GENERATIONS, {"json": {**BODY, "model": model}}),
    "edit": lambda model: (EDITS, form(model)),
    "large edit": lambda model: (EDITS, form(model, 1_500_000)),
    "stream": lambda model: (GENERATIONS, {"json": {**BODY, "model": model, "stream": True}}),
    "task": lambda model: (GENERATIONS, {"json": {**BODY, "model": model, "async": True}}),
    "broken task": lambda model: (GENERATIONS, {"json": {**BODY, "model": model, "async": True, "callback_url": "x"}}),
    "explanation": lambda model: (
        GENERATIONS,
        {"json": {**BODY, "model": model}, "headers": {"imagegate-explain": "?1"}},
    ),
    "keyed": lambda model: (GENERATIONS, {"json": {**BODY, "model": model}, "headers": {"idempotency-key": model}}),
    "azure": lambda model: (f"/openai/deployments/{model}/images/generations", {"json": {"prompt": "A cat"}}),
}


@pytest.mark.parametrize("kind", list(REQUESTS))
@pytest.mark.parametrize("token", ["", "eve"])
def test_a_stranger_is_refused_everywhere(rig: Rig, kind: str, token: str) -> None:
    sent = rig.sent
    path, options = REQUESTS[kind]("gpt-image-2")
    reply = rig.post(path, token, **options)
    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert reply.json()["error"]["code"] == ("invalid_api_key" if token else "missing_api_key")
    assert rig.sent == sent


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/gpt-image-2", "/v1/tasks/x", "/console/exchanges"])
def test_a_stranger_reads_nothing(rig: Rig, path: str) -> None:
    assert [rig.get(path, token).status_code for token in ("", "eve", "ada-1")][:2] == [401, 401]


@pytest.mark.parametrize("kind", list(REQUESTS))
def test_a_model_that_is_not_allowed_is_an_unknown_one(rig: Rig, kind: str) -> None:
    """Status, headers and words are the same, but for the name; nothing is sent."""
    sent = rig.sent
    seen = []
    for model in ("secret-model", "second/gpt-image-2", "no-such-model", "nowhere/gpt-image-2"):
        path, options = REQUESTS[kind](model.replace("/", "-") if kind == "azure" else model)
        reply = rig.post(path, "bob", **options)
        names = sorted(name for name in reply.headers if name != "content-length")
        text = re.sub(
            r"'[a-z-]+?(?:/gpt-image-2|-gpt-image-2|-model)'", "'MODEL'", reply.json()["error"]["message"], count=1
        )
        seen.append(
            (reply.status_code, names, {**reply.json()["error"], "message": re.sub(" Did you mean.*?[?]", "", text)})
        )
    assert seen[0] == seen[2]
    assert seen[1] == seen[3]
    assert (seen[0][0], seen[0][2]["code"], seen[0][2]["param"]) == (404, "model_not_found", "model")
    assert "secret" not in json.dumps([each[2] for each in seen])
    assert rig.sent == sent
    path, options = REQUESTS[kind]("gpt-image-2")
    if "broken" not in kind and kind != "azure":
        reply = rig.post(path, "bob", **options)
        assert reply.status_code in (200, 202)
        if kind == "task":
            rig.ended(reply.json()["task_id"], "bob")


def test_models_that_are_not_allowed_are_not_listed(rig: Rig) -> None:
    assert [model["id"] for model in rig.get("/v1/models", "bob").json()["data"]] == ["gpt-image-2"]
    assert "secret-model" in {model["id"] for model in rig.get("/v1/models", "ada-1").json()["data"]}
    hidden, unknown = (rig.get(f"/v1/models/{name}", "bob") for name in ("secret-model", "wanted-model"))
    assert (hidden.status_code, rig.get("/v1/models/gpt-image-2", "bob").status_code) == (404, 200)
    assert hidden.text.replace("secret", "wanted") == unknown.text


def test_sizes_and_operations(rig: Rig) -> None:
    """The error names the field and what is allowed, and comes before anything is sent."""
    sent = rig.sent
    variation = rig.post("/v1/images/variations", "bob", **form("gpt-image-2"))
    assert (variation.status_code, variation.json()["error"]["code"]) == (403, "operation_not_allowed")
    assert "Allowed: generations, edits." in variation.json()["error"]["message"]
    for more, param in (({"size": "1536x1024"}, "size"), ({"resolution": "4k"}, "resolution")):
        reply = rig.post(token="bob", json={**BODY, **more})
        assert (reply.status_code, reply.json()["error"]["param"]) == (403, param)
        assert "Allowed sizes: 1024x1024." in reply.json()["error"]["message"]
    large = form("gpt-image-2", 1_500_000)
    large["data"]["size"] = "auto"
    assert rig.post(EDITS, "bob", **large).status_code == 403
    assert rig.sent == sent


def test_a_failure_is_a_503_that_says_nothing(rig: Rig) -> None:
    for token in ("crash", "sleep"):
        reply = rig.post(token=token, json=BODY)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "access_unavailable")
        assert "10.0.0" not in reply.text
        assert reply.headers["retry-after"] == "1"


def test_pages_from_elsewhere_stay_out(rig: Rig) -> None:
    """The function may look at cookies, which a browser sends for any page."""
    pages = [{"origin": "https://elsewhere.example", "content-type": "text/plain"}, {"sec-fetch-site": "cross-site"}]
    for headers in pages:
        reply = rig.web.post(GENERATIONS, content=b"{}", headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "origin_not_allowed")


def test_the_rest_of_the_application_is_untouched(rig: Rig) -> None:
    before = len(rig.questions)
    assert rig.get("/home").text == "home"
    assert rig.get("/home", "crash").text == "home"
    assert len(rig.questions) == before


def test_what_belongs_to_a_principal(rig: Rig) -> None:
    """Tasks and idempotency keys are found with any of the principal's credentials, and with no one else's."""
    made = rig.post(token="ada-1", json={**BODY, "async": True}).json()
    path = f"/v1/tasks/{made['task_id']}"
    rig.ended(made["task_id"], "ada-1")
    found, foreign, unknown = rig.get(path, "ada-2"), rig.get(path, "dan"), rig.get(f"{path[:-4]}AAAA", "dan")
    assert found.status_code == 200
    assert (foreign.status_code, foreign.text) == (404, unknown.text)
    keyed = [rig.post(token=token, json=BODY, headers={"idempotency-key": "k"}) for token in ("ada-1", "ada-2", "dan")]
    assert [reply.headers.get("idempotency-replayed") for reply in keyed] == [None, "true", None]


def test_images_need_their_link_and_nothing_else(rig: Rig) -> None:
    link = rig.post(token="ada-1", json={**BODY, "response_format": "url"}).json()["data"][0]["url"]
    assert httpx.get(link).content == SMALL
    wrong = re.sub(r"(sig(?:nature)?=)[^&]+", r"\1AAAA", link)
    assert wrong != link
    assert {
        httpx.get(wrong, headers={"authorization": f"Bearer {token}"}).status_code for token in ("ada-1", "eve")
    } == {httpx.get(wrong).status_code}


def test_the_console_shows_everyone_their_own(rig: Rig) -> None:
    rig.post(token="dan", json={**BODY, "prompt": "Of Dan"})
    shown = {token: rig.get("/console/exchanges", token).json() for token in ("dan", "cleo")}
    assert "Of Dan" in json.dumps(shown["dan"])
    assert "Of Dan" not in json.dumps(shown["cleo"])
    assert not shown["dan"]["everybody"]


def test_the_record_names_the_principal(rig: Rig) -> None:
    known = len(rig.records)
    rig.post(token="ada-2", json=BODY)
    until(lambda: len(rig.records) > known, what="the record")
    record = rig.records[-1]
    assert (record.principal_id, record.user, record.tenant, record.metadata) == (
        "ada",
        "ada",
        "engines",
        {"plan": "gold"},
    )
    rig.post(token="bob", json=BODY)
    until(lambda: len(rig.records) > known + 1, what="the record")
    assert (rig.records[-1].principal_id, rig.records[-1].user) == ("bob", "Bob")


def test_a_key_of_ones_own_goes_to_its_upstream_only(rig: Rig) -> None:
    for each in rig.asked.values():
        each.clear()
    for token in ("cleo", "dan"):
        for model in ("first/gpt-image-2", "second/gpt-image-2"):
            assert rig.post(token=token, json={**BODY, "model": model}).status_code == 200
    assert [headers["authorization"] for headers in rig.asked["first"]] == [
        "Bearer sk-cleos-own-key",
        "Bearer key-of-first",
    ]
    assert [headers["x-gateway"] for headers in rig.asked["first"]] == ["g", "g"]
    assert [headers["authorization"] for headers in rig.asked["second"]] == ["Bearer key-of-second"] * 2
    shown = rig.post(token="cleo", json=BODY, headers={"imagegate-explain": "?1"})
    assert shown.json()["headers"]["authorization"] == "Bearer [redacted]"
    assert "cleo" not in shown.text


def test_no_credential_of_the_host_goes_to_a_provider(rig: Rig) -> None:
    """An upstream without a key is for those who have their own."""
    sent = rig.sent
    reply = rig.post(token="dan", json={**BODY, "model": "theirs"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "no_upstream_key")
    assert rig.sent == sent


def test_a_key_of_ones_own_follows_its_task(rig: Rig) -> None:
    """The provider knows the task by the key that made it: by the house's it would be lost."""
    made = rig.post(token="cleo", json={**BODY, "model": "tasks/gpt-image-2", "async": True}).json()
    state = rig.ended(made["task_id"], "cleo")
    assert state["status"] == "completed", state
