"""Tasks over real sockets: made for every provider, asked for, cancelled, told of."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from tests.conftest import Running
from tests.waiting import until
from tests.wire.edit_support import picture, sha, taps
from tests.wire.keeping_support import (
    EDITS,
    GENERATIONS,
    PNG,
    Origin,
    Receiver,
    ended,
    generation,
    held_edit,
    write_config,
)

from imagegate import ExchangeRecord, ImageGateway
from imagegate.demo.servers import gateway, local_providers, serving
from imagegate.demo.servers import write_config as write_demo_config

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


class Here:
    """A gateway in this process, with the provider that counts."""

    def __init__(self, url: str, origin: Origin, port: int, folder: Path, ear: Ear) -> None:
        self.url = url
        self.origin = origin
        self.port = port
        self.folder = folder
        self.heard = ear.heard
        self.records = ear.records
        self.client = httpx.Client(base_url=url, timeout=30)

    def create(self, body: dict[str, Any], path: str = GENERATIONS, **headers: str) -> httpx.Response:
        return self.client.post(path, json={**body, "async": True}, headers=headers)


class Ear:
    """Hears of tasks."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, float]] = []
        self.records: list[ExchangeRecord] = []

    def exchange_ended(self, record: ExchangeRecord) -> None:
        self.records.append(record)

    def task_changed(self, state: str, seconds: float) -> None:
        self.heard.append((state, seconds))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("tasks")
    origin, ear = Origin(), Ear()
    with serving(origin) as port:
        config = write_config(folder, port, tasks=f'callback_secret = "{SECRET}"\n')
        with serving(ImageGateway(config=config, hooks=[ear])) as own:
            found = Here(f"http://127.0.0.1:{own}", origin, port, folder, ear)
            yield found
            found.client.close()
            origin.gate.set()
            origin.link_gate.set()


Client = Callable[..., httpx.Client]


@pytest.fixture
def connect() -> Iterator[Client]:
    """Makes clients that are closed after the test; a port or an address."""
    with contextlib.ExitStack() as stack:

        def client(where: int | str) -> httpx.Client:
            url = where if isinstance(where, str) else f"http://127.0.0.1:{where}"
            return stack.enter_context(httpx.Client(base_url=url, timeout=30))

        yield client


@pytest.fixture(autouse=True)
def closed_gates(here: Here) -> Iterator[None]:
    here.origin.gate.clear()
    here.origin.link_gate.clear()
    yield
    here.origin.gate.set()
    here.origin.link_gate.set()


def test_life_of_a_task(here: Here) -> None:
    """The answer is 202 in the documented shape; the task is at work, then has links to pictures in the store."""
    reply = here.create(generation("hold a cat", n=2))
    assert reply.status_code == 202
    made = reply.json()
    assert set(made) == {"created", "task_id", "status", "poll_url", "data"}
    assert (made["status"], made["data"]) == ("pending", [])
    assert made["poll_url"] == reply.headers["location"] == f"/v1/tasks/{made['task_id']}"
    assert reply.headers["retry-after"].isdecimal()
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["imagegate-upstream"] == "openai"
    until(lambda: here.origin.made("hold a cat"))
    asked = here.client.get(made["poll_url"] + "/")
    assert (asked.json()["status"], asked.headers["cache-control"]) == ("processing", "no-store")
    assert asked.headers["retry-after"].isdecimal()
    here.origin.gate.set()
    over = ended(here.client, made["poll_url"])
    assert (over["status"], len(over["data"]), over["task_id"]) == ("completed", 2, made["task_id"])
    assert over["usage"]["total_tokens"] > 0
    for image in over["data"]:
        assert here.client.get(image["url"]).content == PNG
    assert here.origin.posts[-1].get("async") is None
    until(lambda: here.heard)
    assert here.heard[-1][0] == "completed"


def test_changes_are_told_but_not_async(here: Here) -> None:
    """What is rewritten stands in the header of the 202; `async` and the form of the answer are kept promises."""
    reply = here.create(generation("a cat", size="1792x1024", response_format="b64_json"))
    assert reply.headers["imagegate-changes"] == 'size;from="1792x1024";to="1536x1024"'
    over = ended(here.client, reply.headers["location"])
    assert "url" in over["data"][0]


@pytest.mark.parametrize("path", [EDITS, "/v1/images/variations"])
def test_files_outlive_their_request(here: Here, path: str) -> None:
    """An edit's upload is there when the task sends it, after the client's request has ended."""
    content = picture(77)
    form = {"model": "gpt-image-1.5", "prompt": f"hold {path}", "async": "true"}
    reply = here.client.post(path, data=form, files={"image": ("a.png", content, "image/png")})
    assert reply.status_code == 202, reply.text
    here.origin.gate.set()
    assert ended(here.client, reply.headers["location"])["status"] == "completed"
    assert sha(here.origin.posts[-1]["file"]) == sha(content)


def test_errors_before_anything_is_sent_are_the_answer(here: Here) -> None:
    """A request that cannot be honoured is no task."""
    before = len(here.origin.posts)
    reply = here.create({**generation("x"), "model": "nobody-has-this"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    reply = here.create(generation("x", size="64:1"))
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "size")
    assert len(here.origin.posts) == before


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"async": "yes"}, "async"),
        ({"async": True, "stream": True}, "stream"),
        ({"callback_url": "https://example.com/"}, "callback_url"),
        ({"async": False, "callback_url": "https://example.com/"}, "callback_url"),
        ({"async": True, "callback_url": 7}, "callback_url"),
        ({"async": True, "callback_url": "ftp://example.com/"}, "callback_url"),
        ({"async": True, "callback_url": "http://10.0.0.1/"}, "callback_url"),
        ({"async": True, "callback_url": "http://169.254.169.254/latest"}, "callback_url"),
    ],
)
def test_refused(here: Here, body: dict[str, Any], param: str) -> None:
    """What cannot be a task is a 400 that names the member."""
    reply = here.client.post(GENERATIONS, json={**generation("x"), **body})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), reply.text


def test_callbacks_that_are_not_set_up(tmp_path: Path, here: Here) -> None:
    """Without a secret a callback is a 400 that says what to set."""
    config = write_config(tmp_path, here.port)
    with gateway(config, port=0) as port:
        body = {**generation("x"), "async": True, "callback_url": "https://example.com/"}
        reply = httpx.post(f"http://127.0.0.1:{port}{GENERATIONS}", json=body)
    assert reply.status_code == 400
    assert "tasks.callback_secret" in reply.json()["error"]["message"]


def test_explained(here: Here) -> None:
    """A look at a task sends nothing and makes none."""
    before = len(here.origin.posts)
    body = {**generation("x"), "async": True, "callback_url": "https://example.com/"}
    reply = here.client.post(GENERATIONS, json=body, headers={"imagegate-explain": "?1"})
    assert (reply.status_code, "callback_url" in reply.json()["body"]) == (200, False)
    assert len(here.origin.posts) == before


def test_failures_are_ends(here: Here) -> None:
    """A refusal and an uncertain end stand in the task, with what is known about the money."""
    over = ended(here.client, here.create(generation("refuse 400")).headers["location"])
    assert (over["status"], over["data"]) == ("failed", [])
    assert (over["error"]["message"], over["error"]["imagegate"]["outcome"]) == ("No.", "rejected")
    over = ended(here.client, here.create(generation("drop it")).headers["location"])
    assert (over["status"], over["error"]["imagegate"]["outcome"]) == ("failed", "uncertain")
    assert here.origin.made("drop it") == 1


def plain(reply: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """An answer without what is another one each time."""
    headers = {name: value for name, value in reply.headers.items() if name not in ("date", "x-request-id")}
    return reply.status_code, reply.content, headers


def test_ids_that_are_none(here: Here, tmp_path: Path, running: Running, connect: Client) -> None:
    """Malformed, forged, unknown, expired, another gateway's and another client's: nobody can tell them apart."""
    task_id = here.create(generation("a cat"), authorization="Bearer one").json()["task_id"]
    body = {"model": "toapis/gpt-image-1.5-official", "prompt": "A kite", "async": True}
    foreign = httpx.post(running.url + GENERATIONS, json=body).json()["task_id"]
    config = write_config(tmp_path, here.port, tasks='ttl = "1ms"')
    with gateway(config, port=0) as port:
        short = connect(port)
        expired = short.post(GENERATIONS, json={**generation("x"), "async": True}).json()["task_id"]
        time.sleep(1.1)  # ids count whole seconds
        answers = [plain(short.get(f"/v1/tasks/{expired}"))]
    last = task_id[-1]
    bad = ["x", "task_", "task_" + "A" * 60, "%00", "t" * 3000, task_id[:-1], task_id + "A", task_id.upper()]
    bad += [foreign, task_id[:-1] + ("A" if last != "A" else "B"), task_id[:20] + "é" + task_id[21:]]
    for text in bad:
        answers.append(plain(here.client.get(f"/v1/tasks/{text}", headers={"authorization": "Bearer one"})))
        answers.append(plain(here.client.get(f"/v1/tasks/{text}")))
        answers.append(plain(here.client.delete(f"/v1/tasks/{text}")))
    for key in ("", "Bearer two", "Bearer onee"):
        headers = {"authorization": key} if key else {}
        answers.append(plain(here.client.get(f"/v1/tasks/{task_id}", headers=headers)))
        answers.append(plain(here.client.delete(f"/v1/tasks/{task_id}", headers=headers)))
    assert answers[0][0] == 404
    assert json.loads(answers[0][1])["error"]["code"] == "task_not_found"
    assert [answer for answer in answers if answer != answers[0]] == []
    own = here.client.get(f"/v1/tasks/{task_id}", headers={"authorization": "Bearer one"})
    assert own.status_code == 200


def test_cancel_before_it_is_sent(here: Here) -> None:
    """A task that waits for its reference image is cancelled, and never sent."""
    location = here.create(held_edit(here.port, "never"), EDITS).headers["location"]
    assert here.client.get(location).json()["status"] == "pending"
    reply = here.client.delete(location)
    assert reply.status_code == 200
    document = reply.json()
    assert (document["status"], document["cancelled"], document["error"]["code"]) == ("failed", True, "task_cancelled")
    here.origin.link_gate.set()
    assert here.client.delete(location).json()["cancelled"]
    assert ended(here.client, location)["cancelled"]
    assert here.origin.made("never") == 0


def test_cancel_what_is_paid_for(here: Here) -> None:
    """What the provider is at, or has done, is not cancelled: it would be paid for all the same."""
    location = here.create(generation("hold it")).headers["location"]
    until(lambda: here.origin.made("hold it"))
    reply = here.client.delete(location)
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "task_not_cancellable")
    here.origin.gate.set()
    assert ended(here.client, location)["status"] == "completed"
    assert here.client.delete(location).status_code == 409


def test_client_that_leaves_before_it_knows_the_task(here: Here) -> None:
    """Nobody could ask for such a task, so it is not done."""
    known = len(here.records)
    with pytest.raises(httpx.ReadTimeout):
        here.client.post(EDITS, json={**held_edit(here.port, "gone"), "async": True}, timeout=0.3)
    until(lambda: any(record.status == 499 for record in here.records[known:]), what="the record of the request")
    here.origin.link_gate.set()
    over = ended(here.client, here.create(generation("after that")).headers["location"])
    assert over["status"] == "completed"
    assert here.origin.made("gone") == 0


def test_webhook(here: Here) -> None:
    """The end is told, signed, and once more with the same id where the receiver did not take it."""
    receiver = Receiver(refusals=1)
    with serving(receiver) as port:
        body = generation("tell me", callback_url=f"http://127.0.0.1:{port}/hook")
        location = here.create(body).headers["location"]
        over = ended(here.client, location)
        until(lambda: len(receiver.events) == 2, what="the second try")
    (first, _), (second, content) = receiver.events
    assert first["webhook-id"] == second["webhook-id"]
    told = json.loads(content)
    assert (told["type"], told["data"]) == ("task.completed", over)
    signed = f"{second['webhook-id']}.{second['webhook-timestamp']}.".encode() + content
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert second["webhook-signature"] == f"v1,{expected}"
    assert abs(int(second["webhook-timestamp"]) - time.time()) < 60


@pytest.mark.parametrize("model", ["tokenlab/gpt-image-2", "toapis/gpt-image-1.5-official"])
def test_tasks_of_providers(running: Running, connect: Client, model: str) -> None:
    """The id says where to ask: any gateway with the same secret does, once a question, and stores pictures once."""
    client = connect(running.url)
    name = model.partition("/")[0]
    app = running.providers[name]
    reply = client.post(GENERATIONS, json={"model": model, "prompt": "A red kite", "async": True})
    assert reply.status_code == 202, reply.text
    over = ended(client, reply.headers["location"])
    assert (over["status"], len(over["data"])) == ("completed", 1)
    assert over["data"][0]["url"].startswith(running.url)
    assert client.get(over["data"][0]["url"]).headers["content-type"] == "image/png"
    received = len(app.state.received)
    assert client.get(reply.headers["location"]).json() == over
    assert len(app.state.received) == received


def test_failed_task_of_a_provider(running: Running, connect: Client) -> None:
    """What the provider says about its failure is the task's error."""
    client = connect(running.url)
    body = {"model": "tokenlab/gpt-image-2", "prompt": "something forbidden", "async": True}
    over = ended(client, client.post(GENERATIONS, json=body).headers["location"])
    assert over["status"] == "failed"
    assert over["error"]["code"] in ("content_policy_violation", "moderation_blocked")


def test_split_request_is_one_task(running: Running, connect: Client) -> None:
    """Several requests to a provider with tasks are one task of the gateway's own."""
    client = connect(running.url)
    body = {"model": "dall-e-3", "prompt": "A kite", "n": 3, "async": True}
    over = ended(client, client.post(GENERATIONS, json=body).headers["location"])
    assert (over["status"], len(over["data"])) == ("completed", 3)


@pytest.mark.usefixtures("providers_ids")
def test_progress_and_cancelling_at_providers(tmp_path: Path, connect: Client) -> None:
    """TokenLab gives queued tasks up, ToAPIs none; its progress is told. Any gateway with the secret answers."""
    with local_providers(task_seconds=30) as (apps, ports):
        write_demo_config(tmp_path / "a.toml", ports, store=tmp_path / "images")
        text = (tmp_path / "a.toml").read_text().replace("[tasks]\n", '[tasks]\nsecret = "0123456789abcdef"\n')
        (tmp_path / "a.toml").write_text(text)
        (tmp_path / "b.toml").write_text(text.replace("/images", "/others"))
        with gateway(tmp_path / "a.toml", port=0) as one, gateway(tmp_path / "b.toml", port=0) as other, taps(apps):
            first, second = connect(one), connect(other)
            body = {"model": "toapis/gpt-image-1.5-official", "prompt": "A kite", "async": True}
            location = first.post(GENERATIONS, json=body).headers["location"]
            document = second.get(location).json()
            assert document["status"] == "processing"
            assert 0 <= document["progress"] < 100
            refused = second.delete(location)
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "task_not_cancellable")
            body = {"model": "tokenlab/gpt-image-2", "prompt": "A kite", "async": True}
            location = first.post(GENERATIONS, json=body).headers["location"]
            gone = second.delete(location)
            assert (gone.status_code, gone.json()["cancelled"]) == (200, True), gone.text
            assert second.get(location).json()["cancelled"]
            assert ended(first, location)["cancelled"]


def test_a_thousand_tasks(here: Here) -> None:
    """All at work in one process at a time, all completed, each sent once."""

    async def all_of_them() -> list[str]:
        connector = aiohttp.TCPConnector(limit=100)
        async with aiohttp.ClientSession(here.url, connector=connector) as session:

            async def create(number: int) -> str:
                body = {**generation(f"hold {number:04} of many"), "async": True}
                async with session.post(GENERATIONS, json=body) as reply:
                    assert reply.status == 202, await reply.text()
                    return reply.headers["location"]

            async def over(location: str) -> str:
                while True:
                    async with session.get(location) as reply:
                        document = await reply.json()
                    if document["status"] in ("completed", "failed"):
                        return str(document["status"])
                    await asyncio.sleep(0.5)

            locations = await asyncio.gather(*(create(number) for number in range(1000)))
            while sum(post["prompt"].endswith("of many") for post in here.origin.posts) < 1000:
                await asyncio.sleep(0.05)
            here.origin.gate.set()
            return await asyncio.gather(*map(over, locations))

    states = asyncio.run(all_of_them())
    assert states == ["completed"] * 1000
    prompts = [post["prompt"] for post in here.origin.posts if post["prompt"].endswith("of many")]
    assert len(prompts) == len(set(prompts)) == 1000


def test_too_many_tasks(tmp_path: Path, here: Here, connect: Client) -> None:
    """Beyond the limit tasks are refused, and nothing is sent."""
    config = write_config(tmp_path, here.port, tasks="in_flight = 1")
    with gateway(config, port=0) as port:
        client = connect(port)
        location = client.post(GENERATIONS, json={**generation("hold one"), "async": True}).headers["location"]
        reply = client.post(GENERATIONS, json={**generation("hold two"), "async": True})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "overloaded")
        here.origin.gate.set()
        assert ended(client, location)["status"] == "completed"
    assert here.origin.made("hold two") == 0
