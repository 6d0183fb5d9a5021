"""Retries, fallback, breakers, limits and deadlines on real sockets: a provider gets exactly the POSTs that it may."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.waiting import until
from tests.wire import faults
from tests.wire.edit_support import picture
from tests.wire.faults import (
    CHUNKED,
    FAULTS,
    GOOD,
    HALF,
    PNG,
    SOON,
    Behaviour,
    Connection,
    Request,
    Rig,
    leave,
    own,
    rig,
    says,
    writes,
)

RETRIES = 2


class Flaky:
    """A provider that answers each request in the next of these ways, and in the last one for ever."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self._behaviours = behaviours
        self._asked = 0

    async def __call__(self, connection: Connection, request: Request) -> None:
        mine = self._behaviours[min(self._asked, len(self._behaviours) - 1)]
        self._asked += 1
        await mine(connection, request)


MADE = says(200, GOOD)
LATER = says(429, own(code="rate_limit_exceeded"), "retry-after: 0")
BROKEN = says(500, own())
RESET = writes(end="reset")

HISTORIES: dict[str, tuple[Behaviour, ...]] = {
    "second-time-lucky": (LATER, MADE),
    "third-time-lucky": (BROKEN, LATER, MADE),
    "too-late": (BROKEN, BROKEN, BROKEN, MADE),
    "reset-at-last": (BROKEN, RESET, MADE),
    "wrong-at-last": (LATER, says(400, own()), MADE),
    "made-of-parts": (MADE, BROKEN, MADE, MADE),
    "parts-run-out": (MADE, MADE, *[BROKEN] * 9),
    "parts-reset": (MADE, MADE, BROKEN, RESET, MADE),
}


@pytest.fixture(scope="module")
def retrying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A gateway that asks again twice, and soon."""
    behaviours: dict[str, Behaviour] = {name: fault.behaviour for name, fault in FAULTS.items()}
    behaviours |= {name: Flaky(*history) for name, history in HISTORIES.items()}
    behaviours |= {"flaky": Flaky(BROKEN, MADE), "flaky-too": BROKEN}
    routes = '"flaky.both" = ["flaky/any", "flaky-too/any"]'
    with rig(behaviours, tmp_path_factory.mktemp("retrying"), routes=routes, policy=SOON) as running:
        yield running


@pytest.mark.parametrize("name", FAULTS)
def test_one_candidate(retrying: Rig, name: str) -> None:
    """What was not sent or refused for the moment is asked again, no more often than configured; nothing else is."""
    fault = FAULTS[name]
    before = retrying.upstream.posts.copy()
    reply = retrying.post(f"{name}.alone")
    assert fault.status == reply.status_code, reply.text[:500]
    retries = RETRIES if fault.again else 0
    assert +Counter({name: fault.posts * (1 + retries)}) == retrying.upstream.posts - before
    record = retrying.record_of(reply)
    assert (record.retries, record.fallbacks, record.attempts) == (retries, 0, 1 + retries)
    assert ("false" if fault.outcome == "uncertain" else None) == reply.headers.get("x-should-retry")


@pytest.mark.parametrize("name", FAULTS)
def test_two_candidates(retrying: Rig, name: str) -> None:
    """Another candidate comes before asking again, so that the first one gets the request once."""
    fault = FAULTS[name]
    before = retrying.upstream.posts.copy()
    reply = retrying.post(f"{name}.two")
    assert +Counter({name: fault.posts, "good": int(fault.elsewhere)}) == retrying.upstream.posts - before
    record = retrying.record_of(reply)
    assert (record.retries, record.fallbacks) == (0, int(fault.elsewhere))
    assert ("good" if fault.elsewhere else name) == reply.headers["imagegate-upstream"] == record.upstream


@pytest.mark.parametrize(
    ("name", "status", "posts"),
    [
        ("second-time-lucky", 200, 2),
        ("third-time-lucky", 200, 3),
        ("too-late", 500, 3),
        ("reset-at-last", 502, 2),
        ("wrong-at-last", 400, 2),
    ],
)
def test_a_provider_that_is_not_always_the_same(retrying: Rig, name: str, status: int, posts: int) -> None:
    """Each answer is judged by itself: an uncertain or final one ends what refusals had begun."""
    before = retrying.upstream.posts.copy()
    reply = retrying.post(f"{name}.alone")
    assert (status, Counter({name: posts})) == (reply.status_code, retrying.upstream.posts - before)
    assert retrying.record_of(reply).retries == posts - 1
    if status == 200:
        assert httpx.get(reply.json()["data"][0]["url"]).content == PNG
    assert ("false" if status == 502 else None) == reply.headers.get("x-should-retry")


def test_the_first_candidate_has_another_turn(retrying: Rig) -> None:
    """When all have refused, they are asked again in their order, and the reply names who answered."""
    before = retrying.upstream.posts.copy()
    reply = retrying.post("flaky.both")
    assert (reply.status_code, reply.headers["imagegate-upstream"]) == (200, "flaky")
    posts = retrying.upstream.posts - before
    assert posts["flaky"] == 2
    assert 1 <= posts["flaky-too"] <= 1 + RETRIES  # whose jitter is up first
    record = retrying.record_of(reply)
    assert record.retries == posts.total() - 2
    assert record.fallbacks >= 1


@pytest.mark.parametrize(
    ("name", "status", "posts", "made"),
    [("made-of-parts", 200, 4, 3), ("parts-run-out", 500, 5, 2), ("parts-reset", 502, 4, 2)],
)
def test_parts_that_were_refused_are_asked_for_again(
    retrying: Rig, name: str, status: int, posts: int, made: int
) -> None:
    """Parts that were made are kept, the others obey the same policy, and the second candidate makes none of them."""
    before = retrying.upstream.posts.copy()
    reply = retrying.post(f"{name}.parts.two", n=3)
    assert (status, Counter({name: posts})) == (reply.status_code, retrying.upstream.posts - before), reply.text
    data = reply.json()["data"] if status == 200 else retrying.error_of(reply)["imagegate"]["data"]
    assert [httpx.get(image["url"]).content for image in data] == [PNG] * made
    assert ("false" if status != 200 else None) == reply.headers.get("x-should-retry")


@pytest.mark.parametrize("name", ["reset-after-body", "close-in-reply", "cut-json", "504-html"])
def test_sdk_and_gateway_together_pay_once(retrying: Rig, name: str) -> None:
    """The official SDK retries twice and so does the gateway; what may have been made is still ordered once."""
    before = retrying.upstream.posts.copy()
    with openai.OpenAI(base_url=f"{retrying.url}/v1", api_key="any") as client, pytest.raises(openai.APIStatusError):
        client.images.generate(model=f"{name}.two", prompt="A kite", response_format="url")
    assert Counter({name: 1}) == retrying.upstream.posts - before


LARGE = b'{"created":1,"data":[{"b64_json":"' + base64.b64encode(PNG + bytes(2_000_000))
WITH_LENGTH = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9000000\r\n\r\n"


@pytest.mark.parametrize("end", ["close", "silence"])
@pytest.mark.parametrize("start", [WITH_LENGTH + LARGE, CHUNKED + b"%x\r\n%s\r\n" % (len(LARGE), LARGE)])
def test_sdk_does_not_ask_again_for_an_answer_that_broke_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes, end: str
) -> None:
    """SDKs repeat requests whose answer is hung up on. What was passed on as it came is no JSON instead, and no 502."""
    monkeypatch.setattr(faults, "REPLY_LIMIT", 16_000_000)
    limit = "3s" if end == "silence" else "30s"
    with rig({"cut": writes(start, end=end)}, tmp_path, tables={"cut": f'read_timeout = "{limit}"'}) as running:
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="any") as client, pytest.raises(json.JSONDecodeError):
            client.images.generate(model="cut.alone", prompt="A kite", response_format="b64_json")
        assert Counter({"cut": 1}) == running.upstream.posts
        until(lambda: running.collector.records)
        (record,) = running.collector.records
        assert (record.status, record.outcome, record.outcome_class) == (200, "uncertain", "uncertain")


class Uploading:
    """A provider that takes files by an upload API before the order, and fails at either in the given ways."""

    def __init__(self, uploads: Behaviour, orders: Behaviour) -> None:
        self._uploads = uploads
        self._orders = orders
        self.asked: Counter[str] = Counter()

    async def __call__(self, connection: Connection, request: Request) -> None:
        kind = "uploads" if request.path.endswith("/uploads/images") else "orders"
        self.asked[kind] += 1
        await (self._uploads if kind == "uploads" else self._orders)(connection, request)


TAKEN = says(200, {"success": True, "data": {"url": "https://files.example.com/a.png"}})


@pytest.mark.parametrize(
    ("uploads", "orders", "status", "asked"),
    [
        (Flaky(RESET, TAKEN), MADE, 200, {"uploads": 2, "orders": 1}),
        (RESET, MADE, 502, {"uploads": 2}),
        (TAKEN, RESET, 502, {"uploads": 1, "orders": 1}),
        (TAKEN, Flaky(BROKEN, MADE), 200, {"uploads": 1, "orders": 2}),
    ],
)
def test_uploads_cost_nothing(
    tmp_path: Path, uploads: Behaviour, orders: Behaviour, status: int, asked: dict[str, int]
) -> None:
    """A file may be uploaded again after a reset, the order that names it may not; a link that there is, is kept."""
    provider = Uploading(uploads, orders)
    tables = {"links": 'adapter = "toapis"'}
    routes = 'drawn = "links/gpt-image-1.5-official"'
    policy = 'retries = 1\nbackoff = "2ms"'
    with rig({"links": provider}, tmp_path, routes=routes, tables=tables, policy=policy) as running:
        form = {"model": "drawn", "prompt": "A kite", "response_format": "url"}
        files = {"image": ("a.png", picture(), "image/png")}
        reply = httpx.post(f"{running.url}/v1/images/edits", data=form, files=files, timeout=20)
        assert (status, asked) == (reply.status_code, provider.asked), reply.text
        is_order = "orders" in asked and status != 200
        assert ("false" if is_order else None) == reply.headers.get("x-should-retry")


# Breakers


class Held:
    """A provider whose requests wait until they are told to end."""

    def __init__(self) -> None:
        self.is_held = True
        self.at_work = 0

    async def __call__(self, connection: Connection, request: Request) -> None:
        await connection.body(request)
        self.at_work += 1
        while self.is_held:
            await asyncio.sleep(0.002)
        self.at_work -= 1
        await connection.json(200, GOOD)


@pytest.fixture(scope="module")
def breaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A gateway whose breakers open at the third failure. One kind is open for long, the other hardly."""
    behaviours: dict[str, Behaviour] = {
        "down": BROKEN,
        "gone": RESET,
        "parts-down": BROKEN,
        "limited": says(429, own(), "retry-after: 9"),
        "strict": says(400, own()),
    }
    policy = 'retries = 0\nbreaker_failures = 3\nbreaker_pause = "10m"'
    with rig(behaviours, tmp_path_factory.mktemp("breaking"), policy=policy) as running:
        yield running


@pytest.mark.parametrize(("name", "status"), [("down", 500), ("gone", 502)])
def test_an_upstream_that_keeps_failing_is_left_alone(breaking: Rig, name: str, status: int) -> None:
    """After three failures it gets nothing: the next candidate does, or the client hears when to come again."""
    before = breaking.upstream.posts.copy()
    assert [breaking.post(f"{name}.alone").status_code for _ in range(3)] == [
        FAULTS["500"].status
    ] * 3 or name == "gone"
    reply = breaking.post(f"{name}.alone")
    error = breaking.error_of(reply)
    assert (reply.status_code, error["code"], reply.headers.get("x-should-retry")) == (
        503,
        "upstream_unavailable",
        None,
    )
    assert 0 < int(reply.headers["retry-after"]) <= 600
    assert breaking.post(f"{name}.two").headers["imagegate-upstream"] == "good"
    assert Counter({name: 3, "good": 1}) == breaking.upstream.posts - before
    assert breaking.collector.breakers.count((name, "open")) == 1
    record = breaking.record_of(reply)
    assert (record.attempts, record.outcome, record.upstream) == (0, "not_sent", name)


def test_every_part_counts(breaking: Rig) -> None:
    """Three parts of one request that fail are three failures."""
    assert breaking.post("parts-down.parts", n=3).status_code == 500
    assert ("parts-down", "open") in breaking.collector.breakers
    assert breaking.post("parts-down.alone").status_code == 503


@pytest.mark.parametrize(("name", "status"), [("limited", 429), ("strict", 400)])
def test_limits_and_mistakes_open_nothing(breaking: Rig, name: str, status: int) -> None:
    """They say nothing about the provider's health."""
    before = breaking.upstream.posts[name]
    assert [breaking.post(f"{name}.alone").status_code for _ in range(6)] == [status] * 6
    assert breaking.upstream.posts[name] == before + 6
    assert name not in dict(breaking.collector.breakers)


def test_a_probe_closes_the_breaker(tmp_path: Path) -> None:
    """After the pause one request goes through; while it fails everything stays as it is, and its success ends it."""
    policy = 'retries = 0\nbreaker_failures = 1\nbreaker_pause = "20ms"'
    with rig({"back": Flaky(BROKEN, BROKEN, MADE)}, tmp_path, policy=policy) as running:
        assert running.post("back.alone").status_code == 500
        until(lambda: running.post("back.alone").status_code == 200)
        assert running.upstream.posts["back"] == 3
        until(lambda: len(running.collector.breakers) == 5)
        states = [state for _, state in running.collector.breakers]
        assert states == ["open", "half_open", "open", "half_open", "closed"]


# Limits


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def limited(held: Held, tmp_path: Path) -> Iterator[Rig]:
    """Upstreams of one place, or of two requests in a minute; nobody waits long for one."""
    policy = 'retries = 0\nqueue_timeout = "30ms"'
    tables = {"held": "max_in_flight = 1", "scarce": "requests_per_minute = 2"}
    with rig({"held": held, "scarce": MADE}, tmp_path, policy=policy, tables=tables) as running:
        yield running
        held.is_held = False


async def posted(running: Rig, *models: str, **members: Any) -> list[httpx.Response]:
    async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
        document = {"prompt": "A kite", "response_format": "url", **members}
        posts = [client.post("/v1/images/generations", json={"model": model, **document}) for model in models]
        return await asyncio.gather(*posts)


def test_a_full_upstream_is_passed_over(limited: Rig, held: Held) -> None:
    """The next candidate is asked at once; where there is none, the request waits a little and is then refused."""

    async def test() -> None:
        first = asyncio.create_task(posted(limited, "held.alone"))
        while not held.at_work:
            await asyncio.sleep(0.002)
        other, refused = await posted(limited, "held.two", "held.alone")
        assert (other.status_code, other.headers["imagegate-upstream"]) == (200, "good")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "upstream_busy")
        assert refused.headers["retry-after"] == "1"
        record = limited.collector.of(refused.headers["x-request-id"])
        assert (record.attempts, record.outcome) == (0, "not_sent")
        assert record.queue_seconds > 0
        held.is_held = False
        assert [reply.status_code for reply in await first] == [200]
        assert limited.upstream.posts["held"] == 1

    asyncio.run(test())


def test_a_rate_is_kept(limited: Rig) -> None:
    """The third request of a minute goes elsewhere or is refused, with the time until the next turn."""
    assert [limited.post("scarce.alone").status_code for _ in range(3)] == [200, 200, 503]
    refused = limited.post("scarce.alone")
    assert 1 < int(refused.headers["retry-after"]) <= 60
    assert limited.post("scarce.two").headers["imagegate-upstream"] == "good"
    assert limited.upstream.posts["scarce"] == 2


def test_places_are_waited_for(tmp_path: Path) -> None:
    """Twelve requests and the parts of three more at an upstream of two places: all made, never three at a time."""
    at_work, most = 0, 0

    async def count(connection: Connection, request: Request) -> None:
        nonlocal at_work, most
        await connection.body(request)
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0.005)
        at_work -= 1
        await connection.json(200, GOOD)

    tables = {"narrow": "max_in_flight = 2"}
    with rig({"narrow": count}, tmp_path, tables=tables, policy='queue_timeout = "30s"') as running:

        async def test() -> None:
            whole, parts = await asyncio.gather(
                posted(running, *["narrow.alone"] * 12), posted(running, *["narrow.parts"] * 3, n=3)
            )
            assert [reply.status_code for reply in whole] == [200] * 12
            assert [len(reply.json()["data"]) for reply in parts] == [3] * 3

        asyncio.run(test())
        assert (most, running.upstream.posts["narrow"]) == (2, 21)


# Deadlines


HOLDS: dict[str, Behaviour] = {
    "silent": writes(end="silence"),
    "half": writes(HALF, end="silence"),
    "busy": LATER,
    "task": says(200, {"id": "task-7", "status": "queued"}),
}


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A gateway with little time for all attempts together, and all the time for each."""
    policy = 'deadline = "2s"\nretries = 9\nbackoff = "1h"\nlongest_wait = "1h"\nbreaker_failures = 0'
    with rig(HOLDS, tmp_path_factory.mktemp("hurried"), policy=policy, tasks='poll_interval = "20ms"') as running:
        yield running


@pytest.mark.parametrize("name", ["silent", "half", "task"])
def test_the_deadline_ends_a_call(hurried: Rig, name: str) -> None:
    """The provider may have made it: 504, nobody else is asked, the call is given up, and a task's id is told."""
    before = hurried.upstream.posts.copy()
    reply = hurried.post(f"{name}.two")
    error = hurried.error_of(reply)
    assert (reply.status_code, error["code"], reply.headers["x-should-retry"]) == (504, "upstream_timeout", "false")
    assert ("task-7" if name == "task" else None) == error["imagegate"].get("upstream_task_id")
    assert Counter({name: 1}) == hurried.upstream.posts - before
    if name != "task":
        assert hurried.upstream.left[name].wait(20)


def test_no_retry_begins_that_the_deadline_would_end(hurried: Rig) -> None:
    """The refusal is told at once instead, and may be tried again."""
    before = hurried.upstream.posts.copy()
    reply = hurried.post("busy.alone")
    assert reply.status_code == 429
    assert hurried.upstream.posts["busy"] - before["busy"] <= 2  # one retry fits in where the jitter is next to none
    assert reply.headers.get("x-should-retry") is None


# Clients that leave


def test_a_client_leaves_between_two_tries(tmp_path: Path) -> None:
    """The retry that was to come does not, and the record says so."""
    policy = 'retries = 1\nbackoff = "1h"\nlongest_wait = "1h"\ndeadline = "10h"'
    with rig({"busy": LATER}, tmp_path, policy=policy) as running:
        record = leave(running, "busy.alone", "left-in-a-pause", lambda: running.upstream.posts["busy"])
        assert (record.status, record.error_code, record.attempts) == (499, "client_disconnected", 1)
        assert running.upstream.posts["busy"] == 1


def test_a_client_leaves_the_queue(tmp_path: Path, held: Held) -> None:
    """Its place in the queue is nobody's, and it is never asked for."""
    tables = {"held": "max_in_flight = 1"}
    with rig({"held": held}, tmp_path, tables=tables, policy='queue_timeout = "10m"') as running:

        async def test() -> None:
            first = asyncio.create_task(posted(running, "held.alone"))
            while not held.at_work:
                await asyncio.sleep(0.002)
            waiting = asyncio.create_task(posted(running, "held.alone"))
            while running.collector.started < 2:
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.5)  # so that it is in the queue, where nothing tells of it
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await asyncio.to_thread(until, lambda: [record.status for record in running.collector.records] == [499])
            held.is_held = False
            assert [reply.status_code for reply in await first] == [200]

        asyncio.run(test())
        assert running.upstream.posts["held"] == 1
        assert running.collector.records[0].queue_seconds > 0


# Routes


def test_refusals_of_the_account_go_elsewhere_where_the_policy_says_so(tmp_path: Path) -> None:
    """An empty account at one provider is no reason to fail; what is against the rules is refused once."""
    behaviours: dict[str, Behaviour] = {
        "empty": says(402, own()),
        "forbidden": says(403, {"id": "1", "name": "content_moderation", "errors": ["Your request was flagged."]}),
        "unknown": says(404, own()),
    }
    with rig(behaviours, tmp_path, policy="fall_back_on = [402, 403]\nretries = 3") as running:
        assert running.post("empty.two").headers["imagegate-upstream"] == "good"
        assert running.post("empty.alone").status_code == 402
        assert running.post("forbidden.two").status_code == 403
        assert running.post("unknown.two").status_code == 404
        assert running.upstream.posts == {"empty": 2, "forbidden": 1, "unknown": 1, "good": 1}


def test_weighted_candidates_stand_in_for_each_other(tmp_path: Path) -> None:
    """Whoever is drawn first, a request that it refuses is made by the other."""
    routes = 'shared = [{ to = "down/any", weight = 5 }, { to = "good/any" }]'
    with rig({"down": BROKEN}, tmp_path, routes=routes) as running:
        replies = [running.post("shared") for _ in range(40)]
        assert {(reply.status_code, reply.headers["imagegate-upstream"]) for reply in replies} == {(200, "good")}
        assert running.upstream.posts["good"] == 40
        assert 0 < running.upstream.posts["down"] <= 40
