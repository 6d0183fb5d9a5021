"""The answers of docs/questions.md are what the gateway does, on real sockets."""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.waiting import until

from imagegate import ConfigError, ImageGateway
from imagegate.server.in_thread import serving
from imagegate.testing import Answer, FakeUpstream, png

pytestmark = pytest.mark.server

PICTURE = png(16, 16)
MADE = Answer(document={"created": 1, "data": [{"b64_json": b64encode(PICTURE).decode()}]})
GENERATIONS = "/v1/images/generations"
ASKED = {"model": "openai/gpt-image-1.5", "prompt": "x"}
PAGE = (Path(__file__).parent.parent / "docs" / "questions.md").read_text("utf-8")


def config(provider: FakeUpstream, store: str = "memory://", **more: Any) -> dict[str, Any]:
    upstream = {"name": "openai", "base_url": provider.url, "api_key": "key-of-the-gateway", **more.pop("upstream", {})}
    return {"upstreams": [upstream], "delivery": {"store": store}, **more}


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeUpstream]:
    with FakeUpstream(MADE) as started:
        yield started


@pytest.fixture(scope="module")
def client(provider: FakeUpstream) -> Iterator[httpx.Client]:
    """Of a gateway without keys."""
    with (
        serving(ImageGateway(config=config(provider))) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as it,
    ):
        yield it


def test_a_client_without_keys_is_its_authorization(client: httpx.Client, provider: FakeUpstream) -> None:
    mine = {"Authorization": "Bearer mine"}
    task = client.post(GENERATIONS, json={**ASKED, "async": True}, headers=mine).headers["location"]
    others: list[dict[str, str]] = [{"Authorization": "Bearer another"}, {}]
    assert [client.get(task, headers=headers).status_code for headers in (mine, *others)] == [200, 404, 404]
    until(lambda: provider.posts)  # the task may not have begun
    assert {each.headers["authorization"] for each in provider.posts} == {"Bearer key-of-the-gateway"}


def test_clients_without_authorization_are_their_address(provider: FakeUpstream) -> None:
    """They share tasks with all others that send none, and idempotency keys with those from the same address."""
    named = {"Idempotency-Key": "shared"}
    with serving(ImageGateway(config=config(provider))) as port:
        first, same, other = (
            httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(local_address=address))
            for address in ("127.0.0.1", "127.0.0.1", "127.0.0.2")
        )
        with first, same, other:
            answers = [each.post(GENERATIONS, json=ASKED, headers=named) for each in (first, same, other)]
            assert ["idempotency-replayed" in answer.headers for answer in answers] == [False, True, False]
            task = first.post(GENERATIONS, json={**ASKED, "async": True}).headers["location"]
            assert other.get(task).status_code == 200


def test_web_pages_are_kept_out(client: httpx.Client) -> None:
    for name, value, code in (
        ("Origin", "https://evil.example", "origin_not_allowed"),
        ("Host", "evil.example", "host_not_allowed"),
    ):
        refused = client.post(GENERATIONS, json=ASKED, headers={name: value})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, code)
        assert code in PAGE


def test_no_upstream_without_a_key_beside_keys(provider: FakeUpstream) -> None:
    with pytest.raises(ConfigError, match="api_key"):
        ImageGateway(config=config(provider, upstream={"api_key": None}, access={"keys": ["client-key"]}))


def test_spelling_of_the_same_body(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "spelling", "Content-Type": "application/json"}
    bodies = (
        '{"model": "openai/gpt-image-1.5", "prompt": "x", "n": 1}',
        '{"n":1,"prompt":"\\u0078",  "model":"openai/gpt-image-1.5"}',
    )
    first, second = (client.post(GENERATIONS, content=body, headers=headers) for body in bodies)
    assert "idempotency-replayed" not in first.headers
    form = {name: (None, value) for name, value in (("model", ASKED["model"]), ("prompt", "x"), ("n", "1"))}
    third = client.post(GENERATIONS, files=form, headers={"Idempotency-Key": "spelling"})
    assert [each.headers["idempotency-replayed"] for each in (second, third)] == ["true", "true"]
    assert first.content == second.content == third.content
    other = client.post(GENERATIONS, json=ASKED, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")


def test_a_cancelled_task(provider: FakeUpstream) -> None:
    """The first task holds the only place at the provider, so that nothing of the second was sent."""
    go_on = threading.Event()

    def slowly(_: Any) -> Answer:
        go_on.wait(10)
        return MADE

    with FakeUpstream(handler=slowly) as slow:
        gateway = ImageGateway(config=config(slow, upstream={"max_in_flight": 1}))
        with serving(gateway) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            asked = {**ASKED, "async": True}
            sent, waiting = (client.post(GENERATIONS, json=asked).headers["location"] for _ in range(2))
            until(lambda: bool(slow.posts))
            refused = client.delete(sent)
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "task_not_cancellable")
            cancelled = client.delete(waiting).json()
            assert cancelled["error"] == {
                "message": "The task was cancelled before anything was sent.",
                "type": "upstream_error",
                "param": None,
                "code": "task_cancelled",
                "imagegate": {"status": 409, "outcome": "not_sent"},
            }
            assert (cancelled["status"], cancelled["cancelled"], cancelled["data"]) == ("failed", True, [])
            assert client.get(waiting).json() == client.delete(waiting).json() == cancelled
            go_on.set()
            until(lambda: client.get(sent).json()["status"] == "completed")
            over = client.delete(sent)
            assert (over.status_code, over.json()["error"]["code"]) == (409, "task_not_cancellable")
        assert len(slow.posts) == 1


def test_stream_with_async(client: httpx.Client) -> None:
    refused = client.post(GENERATIONS, json={**ASKED, "stream": True, "async": True})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"], error["code"]) == (400, "stream", "unsupported_parameter")


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_links(kind: str, provider: FakeUpstream, tmp_path: Path) -> None:
    store = "memory://" if kind == "memory" else f"file://{tmp_path}"
    gateway = ImageGateway(config=config(provider, store))
    with serving(gateway) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        link = client.post(GENERATIONS, json={**ASKED, "response_format": "url"}).json()["data"][0]["url"]
        got, head = client.get(link), client.head(link)
        assert (got.content, head.content) == (PICTURE, b"")
        assert head.headers["content-length"] == str(len(PICTURE))
        for condition in ({"If-None-Match": got.headers["etag"]}, {"If-Modified-Since": got.headers["last-modified"]}):
            assert client.get(link, headers=condition).status_code == 304
        part, beyond = (client.get(link, headers={"Range": f"bytes={span}"}) for span in ("0-3", "9999-"))
        if kind == "file":
            assert (part.status_code, part.content, beyond.status_code) == (206, PICTURE[:4], 416)
        else:
            assert (part.status_code, part.content, beyond.status_code) == (200, PICTURE, 200)
        assert (client.post(link).status_code, client.get(link.partition("?")[0]).status_code) == (405, 404)
        assert client.get(link + "0").json()["error"]["code"] == "link_invalid"


def test_the_console_keeps_no_keys(provider: FakeUpstream) -> None:
    options: dict[str, Any] = {"access": {"keys": ["key-one", "key-two"]}, "console": {"exchanges": 1}}
    with serving(ImageGateway(config=config(provider, **options), alone=True)) as port:
        one, two = ({"Authorization": f"Bearer {key}"} for key in ("key-one", "key-two"))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            for prompt in ("first", "last"):
                client.post(GENERATIONS, json={**ASKED, "prompt": prompt}, headers=one)
            shown = client.get("/console/exchanges", headers=one)
            assert [each["prompt"] for each in shown.json()["exchanges"]] == ["last"]
            assert "key-of-the-gateway" not in shown.text
            assert "Bearer" not in shown.text
            assert client.get("/console/exchanges", headers=two).json()["exchanges"] == []
            assert client.get("/console/exchanges").status_code == 401
