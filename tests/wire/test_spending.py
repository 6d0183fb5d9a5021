"""Limits and budgets on real sockets: what is refused, what is reserved, and how it ends."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Scope
from tests.waiting import until
from tests.wire.field_support import LARGE, SMALL
from tests.wire.leaving import leave_once
from tests.wire.spending_support import GENERATIONS, PRICE, TOKEN_PRICE, CountingProvider, ask, body, config

from imagegate import ImageGateway, Limits, Principal
from imagegate.cli.commands import main
from imagegate.demo.servers import serving
from imagegate.spending.ledger import Balance, day_of
from imagegate.spending.money import nanos


class Rig(NamedTuple):
    web: httpx.Client
    provider: CountingProvider
    gateway: ImageGateway
    principals: dict[str, Principal]

    def add(self, name: str, groups: dict[str, Limits] | None = None, **limits: Any) -> str:
        """A new key with limits."""
        self.principals[name] = Principal(id=name, limits=Limits(**limits), groups=groups or {})
        return name

    def balance(self, name: str) -> Balance:
        """What a key has spent today."""
        spending = self.gateway.loop_services.spending
        assert spending is not None
        periods = [day_of(time.time())]
        found = asyncio.run(spending.ledger.balances(periods, [f"key:{name}"])) if not spending.ledger.is_shared else {}
        return next(iter(found.values()), Balance())

    def is_now(self, name: str, *, settled: float, held: float = 0.0) -> None:
        """Nothing is reserved any more, and this is what was spent."""
        until(lambda: self.balance(name).reserved == 0, what=f"the end of a reservation: {self.balance(name)}")
        found = self.balance(name)
        assert (found.settled, found.held) == (nanos(settled), nanos(held))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    provider, principals = CountingProvider(), dict[str, Principal]()

    def principal_of(scope: Scope) -> Principal | None:
        return principals.get(Request(scope).headers.get("authorization", "").removeprefix("Bearer "))

    with serving(provider.app) as port:
        store = str(tmp_path_factory.mktemp("spending"))
        whole = config(port, store, console={"enabled": True})
        gateway = ImageGateway(config=whole, access=principal_of, hooks=())
        with serving(gateway) as bound, httpx.Client(base_url=f"http://127.0.0.1:{bound}", timeout=20) as web:
            yield Rig(web, provider, gateway, principals)


@pytest.mark.parametrize(
    ("prompt", "model", "n", "status", "settled", "held"),
    [
        ("A cat", "flat", 2, 200, 2 * PRICE, 0),
        ("tokens", "token", 3, 200, 3 * TOKEN_PRICE, 0),
        ("no usage in the reply", "token", 2, 200, 2 * 0.05, 0),
        ("refuse", "flat", 2, 429, 0, 0),
        ("hard refuse", "flat", 2, 400, 0, 0),
        ("break", "flat", 2, 502, 0, 2 * PRICE),
        ("silent break", "token", 1, 502, 0, 0.05),
        ("A cat", "single", 3, 200, 3 * PRICE, 0),  # three requests
        ("in part", "flat", 3, 400, PRICE, 0),  # one reply, in whole, with one image
    ],
)
def test_how_a_request_is_settled(
    rig: Rig, prompt: str, model: str, n: int, status: int, settled: float, held: float
) -> None:
    key = rig.add(f"settled-{prompt}-{model}", spend_per_day=1.0, requests_per_minute=50)
    reply = ask(rig.web, key, prompt, model, n=n)
    assert reply.status_code == status, reply.text
    rig.is_now(key, settled=settled, held=held)
    assert reply.headers["x-ratelimit-remaining-requests"] == "49"
    assert rig.balance(key).requests == 1


def test_a_stream_and_a_task_are_settled_too(rig: Rig) -> None:
    key = rig.add("forms", spend_per_day=1.0)
    reply = ask(rig.web, key, stream=True)
    assert "image_generation.completed" in reply.text
    rig.is_now(key, settled=PRICE)
    created = ask(rig.web, key, **{"async": True})
    assert created.status_code == 202
    poll_url = created.json()["poll_url"]
    headers = {"authorization": f"Bearer {key}"}
    until(lambda: rig.web.get(poll_url, headers=headers).json()["status"] == "completed", what="the task")
    rig.is_now(key, settled=2 * PRICE)
    refused = ask(rig.web, rig.add("poor", spend_per_day=0.01), **{"async": True})
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "insufficient_quota")


PATHS: dict[str, Any] = {
    "generation": (GENERATIONS, {"json": body()}),
    "stream": (GENERATIONS, {"json": body(stream=True)}),
    "task": (GENERATIONS, {"json": body(**{"async": True})}),
    "keyed": (GENERATIONS, {"json": body(), "headers": {"idempotency-key": "spent"}}),
    "azure": ("/openai/deployments/flat/images/generations", {"json": {"prompt": "A cat"}}),
    "edit": (
        "/v1/images/edits",
        {"data": {"model": "flat", "prompt": "A cat"}, "files": [("image", ("a.png", SMALL, "image/png"))]},
    ),
    "large edit": (
        "/v1/images/edits",
        {
            "data": {"model": "flat", "prompt": "A cat"},
            "files": [("image[]", (f"{place}.png", LARGE, "image/png")) for place in range(7)],
        },
    ),
}


@pytest.mark.parametrize("kind", list(PATHS))
@pytest.mark.parametrize(("limits", "status"), [({"spend_per_day": 0.0}, 402), ({"requests_per_day": 0}, 429)])
def test_a_key_at_its_limit_is_refused_on_every_way_in(rig: Rig, kind: str, limits: Any, status: int) -> None:
    """And can still look: at explanations, models and its own figures."""
    headers = {"authorization": f"Bearer {rig.add('poor-' + kind, **limits)}"}
    path, options = PATHS[kind]
    before = rig.provider.requests
    more = options.get("headers", {})
    refused = rig.web.post(path, **{**options, "headers": {**more, **headers}})
    assert refused.status_code == status, refused.text
    explained = rig.web.post(path, **{**options, "headers": {**more, **headers, "imagegate-explain": "?1"}})
    assert explained.status_code == 200, explained.text
    assert rig.provider.requests == before
    for looked in ("/v1/models", "/v1/usage"):
        assert rig.web.get(looked, headers=headers).status_code == 200


def test_a_key_at_its_limit_still_gets_what_it_has_paid_for(rig: Rig) -> None:
    """Its tasks, its images, and answers that are replayed."""
    key = rig.add("spent", spend_per_day=2 * PRICE)
    headers = {"authorization": f"Bearer {key}"}
    keyed = {**headers, "idempotency-key": "spent"}
    first = rig.web.post(GENERATIONS, json=body(response_format="url"), headers=keyed)
    task = ask(rig.web, key, **{"async": True}).json()["task_id"]
    until(lambda: rig.web.get(f"/v1/tasks/{task}", headers=headers).json()["status"] == "completed", what="the task")
    rig.is_now(key, settled=2 * PRICE)
    for _ in range(2):
        assert ask(rig.web, key).status_code == 402
        replayed = rig.web.post(GENERATIONS, json=body(response_format="url"), headers=keyed)
        assert (replayed.status_code, replayed.content) == (200, first.content)
        assert rig.web.get(first.json()["data"][0]["url"]).content == SMALL
        assert rig.web.get(f"/v1/tasks/{task}", headers=headers).json()["status"] == "completed"
        rig.principals[key] = Principal(id=key, limits=Limits(spend_per_day=0.0, requests_per_day=10))
    rig.is_now(key, settled=2 * PRICE)


@pytest.mark.parametrize("is_priced", [True, False])
def test_without_principals_and_limits_nothing_changes(tmp_path: Path, is_priced: bool) -> None:
    """The same answers as without prices, no fields about limits, and ``/v1/usage`` is the application's own."""
    provider = CountingProvider()

    async def own(request: Request) -> PlainTextResponse:
        return PlainTextResponse("the application's own")

    app = Starlette(routes=[Route("/v1/usage", own)])
    with serving(provider.app) as port:
        whole = config(port, str(tmp_path))
        if not is_priced:
            del whole["prices"]
        app.add_middleware(ImageGateway, config=whole, hooks=())
        with serving(app) as bound, httpx.Client(base_url=f"http://127.0.0.1:{bound}", timeout=20) as web:
            assert web.get("/v1/usage").text == "the application's own"
            for kind, (path, options) in PATHS.items():
                reply = web.post(path, **options)
                assert reply.status_code == (404 if "edit" in kind else 202 if kind == "task" else 200), reply.text
                assert not [name for name in reply.headers if "ratelimit" in name]
            for prompt, status in (("refuse", 429), ("break", 502)):
                assert ask(web, "anything", prompt).status_code == status


def test_a_client_that_leaves_has_its_money_held(rig: Rig) -> None:
    key = rig.add("leaver", spend_per_day=1.0)
    before = rig.provider.requests
    rig.provider.is_holding = True
    leave_once(
        lambda: rig.provider.requests > before,
        f"{rig.web.base_url}/v1/images/generations",
        json=body("held"),
        headers={"authorization": f"Bearer {key}"},
    )
    rig.is_now(key, settled=0, held=PRICE)
    rig.provider.is_holding = False
    assert rig.provider.requests == before + 1


def test_a_replayed_and_a_joined_request_cost_once(rig: Rig) -> None:
    key = rig.add("twins", spend_per_day=PRICE, requests_per_day=1)
    headers = {"authorization": f"Bearer {key}", "idempotency-key": "one"}
    send = lambda: rig.web.post("/v1/images/generations", json=body("slow"), headers=headers)  # noqa: E731
    with ThreadPoolExecutor(4) as threads:
        replies = [each.result() for each in [threads.submit(send) for _ in range(4)]]
    assert [reply.status_code for reply in (*replies, send())] == [200] * 5
    rig.is_now(key, settled=PRICE)


def test_many_at_once_on_a_budget_for_twenty(rig: Rig) -> None:
    """Exactly as many reach the provider as the budget has room for, and the others are not sent."""
    key = rig.add("crowd", groups={"all": Limits(spend_per_month=20 * PRICE)})
    before = rig.provider.total

    async def crowd() -> list[int]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=rig.web.base_url, limits=limits, timeout=30) as web:
            replies = await asyncio.gather(
                *(
                    web.post("/v1/images/generations", json=body(), headers={"authorization": f"Bearer {key}"})
                    for _ in range(100)
                )
            )
        return [reply.status_code for reply in replies]

    statuses = asyncio.run(crowd())
    assert (statuses.count(200), statuses.count(402)) == (20, 80)
    assert rig.provider.total - before == 20
    rig.is_now(key, settled=20 * PRICE)


def test_limits_are_refused_with_their_headers(rig: Rig) -> None:
    key = rig.add("limited", requests_per_day=2, images_per_minute=5)
    assert ask(rig.web, key, n=2).headers["x-ratelimit-remaining-images"] == "3"
    refused = ask(rig.web, key, n=4)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "x-should-retry" not in refused.headers
    assert ask(rig.web, key).status_code == 200
    refused = ask(rig.web, key)
    assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    looked = rig.web.post(
        "/v1/images/generations",
        json=body(),
        headers={"authorization": f"Bearer {key}", "imagegate-explain": "?1"},
    )
    assert looked.status_code == 200, "what is only explained is not counted"
    assert rig.web.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200


def test_what_no_candidate_can_do_is_refused_before_it_is_counted(rig: Rig) -> None:
    """Else a member of a group could use its limits up with requests that cost nothing."""
    key = rig.add("faulty", groups={"shared": Limits(images_per_day=20, spend_per_day=100.0)})
    for n, model, code in (
        (1000, "flat", "integer_above_max_value"),
        (-1000, "flat", "integer_below_min_value"),
        (2, "gpt-image-2", "price_unknown"),
        (2, "unknown", "model_not_found"),
    ):
        assert ask(rig.web, key, "A cat", model, n=n).json()["error"]["code"] == code
    assert ask(rig.web, key).headers["x-ratelimit-remaining-images"] == "19"
    rig.is_now(key, settled=PRICE)


@pytest.mark.parametrize("limit", [1e300, float("inf")])
def test_a_limit_beyond_all_measure_is_none(rig: Rig, limit: float) -> None:
    key = rig.add(f"rich-{limit}", spend_per_day=limit)
    assert ask(rig.web, key).status_code == 200
    rig.is_now(key, settled=PRICE)
    assert rig.web.get("/v1/usage", headers={"authorization": f"Bearer {key}"}).status_code == 200


def test_a_task_ends_though_its_key_is_withdrawn(rig: Rig) -> None:
    """Its limits may be lowered, too: what was admitted is settled."""
    key = rig.add("withdrawn", spend_per_day=1.0)
    assert ask(rig.web, key, "slow", **{"async": True}).status_code == 202
    rig.principals[key] = Principal(id=key, limits=Limits(spend_per_day=0.0))
    assert ask(rig.web, key).status_code == 402
    del rig.principals[key]
    assert ask(rig.web, key).status_code == 401
    rig.is_now(key, settled=PRICE)


def test_one_request_after_the_other_is_one_at_a_time(tmp_path: Path) -> None:
    """Also while the ledger writes down what the last one has cost."""
    provider = CountingProvider()
    with serving(provider.app) as port:
        more = {
            "access": {"limits": {"in_flight": 1, "spend_per_day": 100.0}},
            "spending": {"ledger": f"sqlite:///{tmp_path}/ledger.db"},
        }
        gateway = ImageGateway(config=config(port, str(tmp_path / "images"), **more), hooks=())
        with serving(gateway) as bound, httpx.Client(base_url=f"http://127.0.0.1:{bound}", timeout=20) as web:
            assert {ask(web, "anything").status_code for _ in range(30)} == {200}


def test_requests_at_a_time(rig: Rig) -> None:
    key = rig.add("one", in_flight=1)
    slow = threading.Thread(target=ask, args=(rig.web, key, "held"))
    before, rig.provider.is_holding = rig.provider.requests, True
    slow.start()
    until(lambda: rig.provider.requests > before, what="the first request")
    refused = ask(rig.web, key)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    rig.provider.is_holding = False
    slow.join()
    until(lambda: ask(rig.web, key).status_code == 200, what="a free place")


def test_a_model_without_a_known_bound_has_no_budget(rig: Rig) -> None:
    key = rig.add("unpriced", spend_per_day=1.0)
    before = rig.provider.requests
    refused = ask(rig.web, key, "A cat", "gpt-image-2")  # at another address than its provider's own
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
    assert refused.json()["error"]["code"] == "price_unknown"
    assert rig.provider.requests == before
    assert ask(rig.web, rig.add("free"), "A cat", "gpt-image-2").status_code == 200


def test_a_key_sees_its_own_figures(rig: Rig) -> None:
    key = rig.add("reader", spend_per_day=1.0, in_flight=3)
    headers = {"authorization": f"Bearer {key}"}
    assert rig.web.get("/v1/usage").status_code == 401
    empty = rig.web.get("/v1/usage", headers=headers).json()
    assert (empty["object"], empty["day"]["spent"], empty["day"]["left"]) == ("usage", 0, 1.0)
    assert ask(rig.web, key, n=2).status_code == 200
    rig.is_now(key, settled=2 * PRICE)
    found = rig.web.get("/v1/usage", headers=headers).json()
    assert found["day"].pop("period") == day_of(time.time())
    assert found["day"] == {
        "spent": 2 * PRICE,
        "reserved": 0,
        "held": 0,
        "requests": 1,
        "images": 2,
        "limit": 1.0,
        "left": 0.92,
    }
    assert (found["month"]["spent"], found["month"]["limit"]) == (2 * PRICE, None)
    assert (found["currency"], found["name"], found["limits"]["in_flight"]) == ("USD", "reader", 3)
    assert rig.web.get("/v1/usage/x", headers=headers).status_code == 404
    assert rig.web.get("/console/exchanges", headers=headers).json()["usage"] is True
    shown = rig.web.get("/console/usage", headers=headers).json()
    assert [(row["account"], row["spent"]) for row in shown["accounts"]] == [("key:reader", 2 * PRICE)]
    assert shown["period"] == day_of(time.time())[:7]
    assert rig.web.get("/console/usage").status_code == 401


def test_figures_are_looked_up_once_for_all_who_wait(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that asks for them all the time must not keep the ledger from making reservations."""
    key = rig.add("curious", spend_per_day=1.0)
    spending = rig.gateway.loop_services.spending
    assert spending is not None
    true, questions = spending.ledger.balances, list[Any]()

    async def slowly(*arguments: Any) -> Any:
        questions.append(arguments)
        await asyncio.sleep(0.2)
        return await true(*arguments)

    monkeypatch.setattr(spending.ledger, "balances", slowly)
    with ThreadPoolExecutor(8) as threads:
        look = lambda _: rig.web.get("/v1/usage", headers={"authorization": f"Bearer {key}"}).json()  # noqa: E731
        found = list(threads.map(look, range(8)))
    assert len(questions) < 8
    assert all(each["name"] == "curious" for each in found)
    monkeypatch.undo()
    assert ask(rig.web, key).status_code == 200
    rig.is_now(key, settled=PRICE)
    assert look(0)["day"]["spent"] == PRICE


def test_keys_and_the_gateway_in_a_file_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Limits of TOML, a ledger in SQLite that a second gateway goes on with, and a restart that forgets nothing."""
    provider = CountingProvider()
    access = {
        "keys": ["sk-ada", "sk-bob"],
        "names": ["ada", "bob"],
        "limits": {"spend_per_month": 0.2},
        "groups": {"team": {"spend_per_day": 0.12}},
        "principals": {"ada": {"groups": ["team"], "limits": {"spend_per_day": 0.08}}, "bob": {"groups": ["team"]}},
    }
    spending = {"ledger": f"sqlite:///{tmp_path}/spend.db", "lease": 0.5}
    with serving(provider.app) as port:
        console = {"enabled": True, "operators": ["bob"]}
        whole = json.loads(json.dumps(config(port, str(tmp_path), access=access, spending=spending, console=console)))
        for keys in (["sk-ada"] * 3, ["sk-bob"] * 3):
            gateway = ImageGateway(config=whole, hooks=())
            with serving(gateway) as bound, httpx.Client(base_url=f"http://127.0.0.1:{bound}", timeout=20) as web:
                statuses = [ask(web, key).status_code for key in keys]
                assert statuses == ([200, 200, 402] if keys[0] == "sk-ada" else [200, 402, 402])
                shown = web.get("/console/usage", headers={"authorization": f"Bearer {keys[0]}"}).json()["accounts"]
                seen = {row["account"] for row in shown}
                assert seen == ({"key:ada"} if keys[0] == "sk-ada" else {"key:ada", "key:bob", "group:team", "gateway"})
    assert provider.total == 3
    file = tmp_path / "gate.toml"
    file.write_text(
        f'[[upstreams]]\nname = "p"\nadapter = "openai"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "k"\n'
        '[spending]\nledger = "sqlite:///spend.db"\n'
    )

    def command(*words: str) -> str:
        code = main([*words, "--config", str(file)])
        text = capsys.readouterr().out
        assert code == 0, text
        return text

    rows = {row["account"]: row for row in json.loads(command("usage", "--json"))}
    assert (
        rows["key:ada"]["spent"] + rows["key:bob"]["spent"] == rows["gateway"]["spent"] == rows["group:team"]["spent"]
    )
    assert rows["gateway"]["spent"] == pytest.approx(3 * PRICE)
    assert "group:team" in command("usage", "--period", day_of(time.time()))
    assert command("spend", "held").endswith("0 held, 0 in all\n")


def test_an_operator_decides_what_is_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only what is held, once, and as the provider's bill says."""
    file = tmp_path / "gate.toml"
    provider = CountingProvider()
    with serving(provider.app) as port:
        file.write_text(
            f'[[upstreams]]\nname = "p"\nadapter = "openai"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "k"\n'
            f'models.flat.family = "gpt-image-2"\n[prices.models.flat]\nimage = {PRICE}\n'
            '[access]\nkeys = ["sk-ada"]\nnames = ["ada"]\n[access.principals.ada.limits]\nspend_per_day = 0.08\n'
            '[spending]\nledger = "sqlite:///spend.db"\n[policy]\nbreaker_failures = 0\n'
        )
        with (
            serving(ImageGateway(config=file, hooks=())) as bound,
            httpx.Client(base_url=f"http://127.0.0.1:{bound}", timeout=20) as web,
        ):
            assert [ask(web, "sk-ada", "break").status_code for _ in range(3)] == [502, 502, 402]

            def held() -> list[dict[str, Any]]:
                capsys.readouterr()
                assert main(["spend", "held", "--key", "ada", "--json", "--config", str(file)]) == 0
                found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
                return found

            until(lambda: len(held()) == 2, what="what is held")
            first, second = (each["id"] for each in held())
            assert main(["spend", "settle", first, "--amount", "0.01", "--config", str(file)]) == 0
            assert main(["spend", "settle", first, "--config", str(file)]) == 1
            assert main(["spend", "release", second, "--config", str(file)]) == 0
            assert main(["spend", "release", "unknown", "--config", str(file)]) == 1
            assert held() == []
            assert [ask(web, "sk-ada").status_code for _ in range(2)] == [200, 402]
