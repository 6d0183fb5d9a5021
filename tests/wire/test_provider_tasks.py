"""Questions about a provider's task that go wrong: what ends the task, and what only the question."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.waiting import until
from tests.wire.keeping_support import GENERATIONS, PNG, ended

from imagegate.demo.servers import gateway, serving

CREATED = {"id": "tsk_1", "status": "queued", "progress": 0}


class Provider:
    """Answers POSTs with a task, and questions as it is told: status, document, headers."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any, dict[str, str]]] = []
        self.asked = 0
        self.made = 0
        self.created: dict[str, Any] = CREATED
        self.may_accept = threading.Event()
        self.may_accept.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: dict[str, str] = {}
        status, document = 200, self.created
        if scope["path"] == "/1.png":
            body, kind = PNG, b"image/png"
        else:
            if scope["method"] == "POST":
                self.made += 1
                while not self.may_accept.is_set():
                    await asyncio.sleep(0.01)
            else:
                self.asked += 1
                status, document, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            body, kind = json.dumps(document).encode(), b"application/json"
        more = [(name.encode(), value.encode()) for name, value in headers.items()]
        start = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *more]
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def client(provider: Provider, tmp_path: Path) -> Iterator[httpx.Client]:
    with serving(provider) as port:
        (tmp_path / "imagegate.toml").write_text(f"""
[[upstreams]]
name = "toapis"
base_url = "http://127.0.0.1:{port}"
api_key = "sk-0123456789"
[delivery]
store = "file://{tmp_path.as_posix()}/images"
[policy]
retries = 0
breaker_failures = 0
[tasks]
poll_interval = "50ms"
deadline = "20s"
""")
        with (
            gateway(tmp_path / "imagegate.toml", port=0) as own,
            httpx.Client(base_url=f"http://127.0.0.1:{own}", timeout=30) as client,
        ):
            yield client


def create(client: httpx.Client, **more: Any) -> httpx.Response:
    body = {"model": "gpt-image-1.5-official", "prompt": "A kite", "async": True, **more}
    return client.post(GENERATIONS, json=body)


def test_a_provider_that_takes_its_time(client: httpx.Client, provider: Provider) -> None:
    """The client has its answer before the provider has accepted the request: a task of the gateway's own, which
    becomes what the provider's does."""
    provider.answers = [(200, done("/1.png"), {})]
    provider.may_accept.clear()
    reply = create(client)
    assert (reply.status_code, reply.json()["status"]) == (202, "pending")
    until(lambda: client.get(reply.headers["location"]).json()["status"] == "processing", what="the call")
    provider.may_accept.set()
    over = ended(client, reply.headers["location"])
    assert (over["status"], client.get(over["data"][0]["url"]).content) == ("completed", PNG)
    assert provider.made == 1


def done(*links: str) -> dict[str, Any]:
    return {"id": "tsk_1", "status": "completed", "result": {"data": [{"url": link} for link in links]}}


@pytest.mark.usefixtures("providers_ids")
def test_questions_that_fail_are_asked_again(client: httpx.Client, provider: Provider) -> None:
    """A failure of the question says nothing of the task: the client hears what was known before."""
    provider.answers = [
        (200, {"id": "tsk_1", "status": "in_progress", "progress": 30}, {}),
        (500, {"error": {"message": "Oh."}}, {}),
        (503, {"error": {"message": "Oh."}}, {}),
        (200, done("/1.png"), {}),
    ]
    reply = create(client)
    first = client.get(reply.headers["location"]).json()
    assert (first["status"], first["progress"]) == ("processing", 30)
    over = ended(client, reply.headers["location"])
    assert over["status"] == "completed"
    assert client.get(over["data"][0]["url"]).content == PNG
    assert (provider.made, provider.asked) == (1, 4)


def test_retry_after_is_kept(client: httpx.Client, provider: Provider) -> None:
    """A provider that asks for a pause is not asked before."""
    provider.answers = [(429, {"error": {"message": "Slowly."}}, {"retry-after": "60"})]
    location = create(client).headers["location"]
    for _ in range(5):
        assert client.get(location).json()["status"] == "processing"
        time.sleep(0.06)
    assert provider.asked == 1


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((404, {"error": {"code": 404, "message": "Task not found", "type": "not_found_error"}}, {}), "task_lost"),
        ((400, {"code": "task_not_exist", "message": "task_not_exist", "data": None}, {}), "task_lost"),
        ((200, {"id": "tsk_1", "status": "failed", "error": {"code": "c", "message": "m"}}, {}), "c"),
        ((200, done("/1.png"), {}), "fewer_images"),
        ((200, {"id": "tsk_1", "status": "completed"}, {}), "no_image"),
        ((400, {"error": {"code": "content_policy_violation", "message": "Unsafe."}}, {}), "content_policy_violation"),
    ],
)
def test_ends(client: httpx.Client, provider: Provider, answer: tuple[int, Any, dict[str, str]], code: str) -> None:
    """The provider's word that there will be no picture, or not all, ends the task; it is not asked any more."""
    provider.answers = [answer]
    location = create(client, n=2).headers["location"]
    over = ended(client, location)
    assert (over["status"], over["error"]["code"]) == ("failed", code)
    assert client.get(location).json() == over
    assert provider.asked == 1
    assert client.delete(location).status_code == 409


@pytest.mark.usefixtures("providers_ids")
def test_our_key_is_refused(client: httpx.Client, provider: Provider) -> None:
    """That is no end of the task: the question is an error, until the key is mended."""
    provider.answers = [
        (401, {"error": {"code": 401, "message": "No.", "type": "authentication_error"}}, {}),
        (200, done("/1.png"), {}),
    ]
    location = create(client).headers["location"]
    assert client.get(location).status_code == 401
    assert ended(client, location)["status"] == "completed"


@pytest.mark.usefixtures("providers_ids")
def test_a_picture_that_cannot_be_fetched(client: httpx.Client, provider: Provider) -> None:
    """The question is an error that lists the provider's link; the task is asked for again."""
    private = done("http://10.0.0.1/1.png")
    provider.answers = [(200, private, {}), (200, done("/1.png"), {})]
    location = create(client).headers["location"]
    reply = client.get(location)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "image_fetch_failed")
    assert reply.json()["error"]["imagegate"]["data"] == [{"url": "http://10.0.0.1/1.png"}]
    until(lambda: client.get(location).status_code == 200)
    assert ended(client, location)["status"] == "completed"


def test_an_address_that_our_key_must_not_go_to(client: httpx.Client, provider: Provider) -> None:
    """Such a task stays the gateway's own, and ends as one that cannot be asked for."""
    provider.created = {**CREATED, "poll_url": "https://elsewhere.example/tsk_1"}
    provider.answers = [(200, done("/1.png"), {})]
    over = ended(client, create(client).headers["location"])
    assert (over["status"], over["error"]["imagegate"]["outcome"]) == ("failed", "uncertain")
    assert provider.asked == 0


def test_pictures_at_once(client: httpx.Client, provider: Provider) -> None:
    """A provider that was expected to make a task and answers at once: the client gets its task all the same."""
    provider.created = {"created": 1, "data": [{"url": "/1.png"}]}
    reply = create(client)
    assert (reply.status_code, reply.json()["status"]) == (202, "pending")
    assert ended(client, reply.headers["location"])["status"] == "completed"
