"""Idempotency keys over real sockets: joined, replayed, refused; the provider counts."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import openai
import pytest
from tests.waiting import until
from tests.wire.edit_support import picture
from tests.wire.keeping_support import (
    EDITS,
    GENERATIONS,
    LARGE,
    PNG,
    Origin,
    ended,
    generation,
    write_config,
)
from tests.wire.leaving import leave_once

from imagegate import ExchangeRecord, ImageGateway
from imagegate.demo.servers import gateway, serving


class Ear:
    def __init__(self) -> None:
        self.records: list[ExchangeRecord] = []

    def exchange_ended(self, record: ExchangeRecord) -> None:
        self.records.append(record)


class Here:
    """A gateway in this process, with the provider that counts."""

    def __init__(self, url: str, origin: Origin, port: int, folder: Path, ear: Ear) -> None:
        self.url, self.origin, self.port, self.folder, self.ear = url, origin, port, folder, ear
        self.client = httpx.Client(base_url=url, timeout=30)

    def post(self, body: dict[str, Any], key: str, path: str = GENERATIONS, **headers: str) -> httpx.Response:
        return self.client.post(path, json=body, headers={"idempotency-key": key, **headers})


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("keys")
    origin, ear = Origin(), Ear()
    with (
        serving(origin) as port,
        serving(ImageGateway(config=write_config(folder, port), hooks=[ear])) as own,
    ):
        found = Here(f"http://127.0.0.1:{own}", origin, port, folder, ear)
        yield found
        found.client.close()
        origin.gate.set()
        origin.link_gate.set()


@pytest.fixture(autouse=True)
def closed_gates(here: Here) -> Iterator[None]:
    here.origin.gate.clear()
    here.origin.link_gate.clear()
    yield
    here.origin.gate.set()
    here.origin.link_gate.set()


def in_threads(work: Callable[[int], httpx.Response], count: int) -> Callable[[], list[httpx.Response]]:
    """Starts them; the result waits for all."""
    found: dict[int, httpx.Response] = {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: work(n)})) for n in range(count)]
    for thread in threads:
        thread.start()

    def result() -> list[httpx.Response]:
        for thread in threads:
            thread.join(timeout=60)
        return [found[n] for n in range(count)]

    return result


def test_two_thousand_requests_with_fifty_keys(here: Here) -> None:
    """Fifty POSTs, and each client has the answer to its own request."""

    async def all_of_them() -> list[tuple[int, bytes]]:
        connector = aiohttp.TCPConnector(limit=400)
        async with aiohttp.ClientSession(here.url, connector=connector) as session:

            async def ask(number: int) -> tuple[int, bytes]:
                key = number % 50
                headers = {"idempotency-key": f"of-fifty-{key}"}
                async with session.post(GENERATIONS, json=generation(f"fifty {key}"), headers=headers) as reply:
                    assert reply.status == 200, await reply.text()
                    return key, await reply.read()

            return await asyncio.gather(*map(ask, range(2000)))

    answers = asyncio.run(all_of_them())
    assert len(answers) == 2000
    assert len(set(answers)) == 50  # usage counts, so no two answers of the provider are the same
    posts = Counter(post["prompt"] for post in here.origin.posts if post["prompt"].startswith("fifty "))
    assert posts == Counter({f"fifty {key}": 1 for key in range(50)})
    until(lambda: sum(bool(record.idempotent) for record in here.ear.records) >= 1950, what="all records")
    assert sum(bool(record.idempotent) for record in here.ear.records) == 1950


def test_replay(here: Here) -> None:
    """The same bytes, the header that says so, and what is said about the exchange."""
    body = generation("again", size="1792x1024")
    first, second = here.post(body, "k1"), here.post(body, "k1")
    assert first.status_code == second.status_code == 200
    assert first.content == second.content
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    for name in ("imagegate-upstream", "imagegate-changes", "content-type", "content-length"):
        assert first.headers.get(name) == second.headers.get(name)
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert here.origin.made("again") == 1
    until(lambda: here.ear.records[-1].idempotent == "replayed")
    assert here.ear.records[-1].attempts == 0


def test_parts_of_one_request(here: Here) -> None:
    """They are sent at the same time, under one key: each once, and none is taken for another call's."""
    asked = generation("parts", model="openai/dall-e-3", n=4)
    first, second = here.post(asked, "parts"), here.post(asked, "parts")
    assert (first.status_code, len(first.json()["data"])) == (200, 4)
    assert (second.content, second.headers["idempotency-replayed"]) == (first.content, "true")
    assert here.origin.made("parts") == 4


def test_joined(here: Here) -> None:
    """Requests that come while the first is at work get its answer."""
    result = in_threads(lambda _: here.post(generation("hold together"), "k2"), 5)
    until(lambda: here.origin.made("hold together"))
    time.sleep(0.1)
    here.origin.gate.set()
    replies = result()
    assert [reply.status_code for reply in replies] == [200] * 5
    assert len({reply.content for reply in replies}) == 1
    assert {reply.headers["imagegate-upstream"] for reply in replies} == {"openai"}
    assert here.origin.made("hold together") == 1


def test_key_reused(here: Here) -> None:
    """Another body is a 409, in flight and afterwards; another client's key and another endpoint's are others."""
    result = in_threads(lambda _: here.post(generation("hold mine"), "k3"), 1)
    until(lambda: here.origin.made("hold mine"))
    reply = here.post(generation("other"), "k3")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert reply.json()["error"]["param"] == "Idempotency-Key"
    here.origin.gate.set()
    result()
    assert here.post(generation("other"), "k3").status_code == 409
    assert here.origin.made("other") == 0
    assert here.post(generation("other"), "k3", authorization="Bearer another").status_code == 200
    inline = f"data:image/png;base64,{base64.b64encode(picture(5)).decode()}"
    edit = {"model": "gpt-image-1.5", "prompt": "x", "images": [{"image_url": inline}]}
    assert here.post(edit, "k3", EDITS).status_code == 200


def test_forms(here: Here) -> None:
    """The files count, not the boundary between them."""

    def post(content: bytes, prompt: str = "form") -> httpx.Response:
        data = {"model": "gpt-image-1.5", "prompt": prompt}
        files = {"image": ("a.png", content, "image/png")}
        return here.client.post(EDITS, data=data, files=files, headers={"idempotency-key": "k4"})

    first, second = post(picture(5)), post(picture(5))
    assert (first.status_code, second.headers["idempotency-replayed"]) == (200, "true"), first.text
    assert first.content == second.content
    assert post(picture(6)).status_code == post(picture(5), "another").status_code == 409
    assert here.origin.made("form") == 1


def test_a_large_form_is_read_whole(here: Here) -> None:
    """With a key a form does not go upstream before all of it is known."""
    content = picture(8) + bytes(9_000_000)

    def post() -> httpx.Response:
        data = {"model": "gpt-image-1.5", "prompt": "large form"}
        files = {"image": ("a.png", content, "image/png")}
        return here.client.post(EDITS, data=data, files=files, headers={"idempotency-key": "k5"})

    assert (post().status_code, post().status_code) == (200, 200)
    assert here.origin.made("large form") == 1


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_what_was_not_made_is_not_kept(here: Here, status: int) -> None:
    """A refusal leaves the key free: the next try may succeed."""
    prompt = f"refuse {status} once"
    first = here.post(generation(prompt), f"refused-{status}")
    assert first.status_code == status
    second = here.post(generation(prompt), f"refused-{status}")
    assert (second.status_code, "idempotency-replayed" in second.headers) == (200, False)
    assert here.origin.made(prompt) == 2


def test_mistakes_are_not_kept(here: Here) -> None:
    """What was refused by the gateway itself is no use of the key."""
    assert here.post(generation("x", size="64:1"), "k6").status_code == 400
    assert here.post(generation("mended"), "k6").status_code == 200


def test_what_may_have_been_paid_for_is_kept(here: Here) -> None:
    """An uncertain end is replayed: the provider is never asked a second time."""
    first, second = here.post(generation("drop k"), "k7"), here.post(generation("drop k"), "k7")
    assert first.status_code == second.status_code == 502
    assert first.json() == second.json()
    assert (first.headers["x-should-retry"], second.headers["x-should-retry"]) == ("false", "false")
    assert second.headers["idempotency-replayed"] == "true"
    assert here.origin.made("drop k") == 1
    until(lambda: here.ear.records[-1].idempotent == "replayed")
    assert here.ear.records[-1].outcome == "uncertain"


def test_clients_that_leave(here: Here) -> None:
    """The work goes on when all have left, since a key was given; its files as well."""
    form: dict[str, Any] = {"data": {"model": "gpt-image-1.5", "prompt": "hold for later"}}
    files = {"image": ("a.png", picture(9), "image/png")}
    made = lambda: here.origin.made("hold for later")  # noqa: E731
    leave_once(made, f"{here.url}{EDITS}", **form, files=files, headers={"idempotency-key": "k8"})
    here.origin.gate.set()
    reply = here.client.post(EDITS, **form, files=files, headers={"idempotency-key": "k8"})
    assert reply.status_code == 200
    assert (here.origin.made("hold for later"), here.origin.left) == (1, 0)


def test_calls_that_go_on_count(here: Here, tmp_path: Path) -> None:
    """Calls whose clients have left count as in flight, and what they pay for is told when they end."""
    ear = Ear()
    gateway = ImageGateway(config=write_config(tmp_path, here.port, more="[limits]\nin_flight = 2\n"), hooks=[ear])
    with serving(gateway) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        for number in range(2):
            headers = {"idempotency-key": f"left-{number}"}
            prompt = f"hold left {number}"
            url = f"http://127.0.0.1:{port}{GENERATIONS}"
            leave_once(lambda p=prompt: here.origin.made(p), url, json=generation(prompt), headers=headers)
        until(lambda: len(ear.records) == 2)
        refused = client.post(GENERATIONS, json=generation("too many"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        here.origin.gate.set()
        until(lambda: client.post(GENERATIONS, json=generation("enough")).status_code == 200)
        for number in range(2):
            headers = {"idempotency-key": f"left-{number}"}
            reply = client.post(GENERATIONS, json=generation(f"hold left {number}"), headers=headers)
            assert reply.headers["idempotency-replayed"] == "true"
        until(lambda: len([record for record in ear.records if record.idempotent]) == 2)
    behind = [record for record in ear.records if record.in_background]
    assert [(record.status, record.outcome_class, record.images_made) for record in behind] == [(200, "ok", 1)] * 2
    calls = [call.outcome for record in ear.records for call in record.calls]
    assert calls.count("ok") == 2 + here.origin.made("enough")
    assert here.origin.made("hold left 0") == here.origin.made("hold left 1") == 1
    assert here.origin.made("too many") == 0


def test_without_a_key_the_provider_is_hung_up_on(here: Here) -> None:
    """Nobody wants the result then."""
    made = lambda: here.origin.made("hold nobody")  # noqa: E731
    leave_once(made, f"{here.url}{GENERATIONS}", json=generation("hold nobody"))
    until(lambda: here.origin.left == 1)


def test_large_answers(here: Here) -> None:
    """Base64 is replayed byte for byte, from a file."""
    first, second = here.post(generation("large"), "k9"), here.post(generation("large"), "k9")
    assert base64.b64decode(second.json()["data"][0]["b64_json"]) == LARGE
    assert first.content == second.content
    kept = here.folder / "images" / ".blobs"
    # Files that are still written go away under their first name.
    until(lambda: len(first.content) in [len(file.read_bytes()) for file in kept.iterdir() if not file.suffix])


def test_streams(here: Here) -> None:
    """The events of a stream are recorded and replayed, joined while they come."""
    first = here.post(generation("a stream", stream=True), "k10")
    second = here.post(generation("a stream", stream=True), "k10")
    assert first.headers["content-type"].startswith("text/event-stream")
    assert b"image_generation.completed" in first.content
    assert (first.content, second.headers["content-type"]) == (second.content, first.headers["content-type"])
    assert here.origin.made("a stream") == 1


def test_tasks_with_keys(here: Here) -> None:
    """The same key makes one task, whose id every try gets."""
    body = generation("task with key", **{"async": True})
    first, second = here.post(body, "k11"), here.post(body, "k11")
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert first.headers["location"] == second.headers["location"]
    assert ended(here.client, first.headers["location"])["status"] == "completed"
    assert here.origin.made("task with key") == 1


@pytest.mark.parametrize("key", ["", "a" * 256, "a\tb", "ä"])
def test_keys_that_cannot_be_used(here: Here, key: str) -> None:
    """A 400 that names the header; nothing is sent."""
    reply = here.client.post(GENERATIONS, json=generation("bad key"), headers={b"idempotency-key": key.encode()})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_idempotency_key")
    assert here.origin.made("bad key") == 0


def test_two_keys(here: Here) -> None:
    """Only one can be meant."""
    headers = [("idempotency-key", "a"), ("idempotency-key", "b")]
    assert here.client.post(GENERATIONS, json=generation("bad key"), headers=headers).status_code == 400


def test_explained(here: Here) -> None:
    """A look uses no key up."""
    assert here.post(generation("look"), "k12", **{"imagegate-explain": "?1"}).status_code == 200
    assert here.post(generation("really"), "k12").status_code == 200


def test_retries_of_the_official_sdk(here: Here) -> None:
    """The SDK sends the key with each of its tries; a refused one is sent again, a key makes one picture."""
    with openai.OpenAI(base_url=f"{here.url}/v1", api_key="k", max_retries=2) as client:
        for _ in range(2):
            made = client.images.generate(
                model="gpt-image-1.5", prompt="refuse 503 by sdk", extra_headers={"Idempotency-Key": "sdk"}
            )
            assert base64.b64decode((made.data or [])[0].b64_json or "") == PNG
    assert here.origin.made("refuse 503 by sdk") == 2


@contextlib.contextmanager
def another(here: Here, folder: Path, idempotency: str) -> Iterator[httpx.Client]:
    with (
        gateway(write_config(folder, here.port, idempotency=idempotency), port=0) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        yield client


def test_answers_that_had_to_make_room(here: Here, tmp_path: Path) -> None:
    """What is known of them is that they were: nothing is paid a second time."""
    with another(here, tmp_path, "max_bytes = 2000000") as client:
        for name in ("one", "two"):
            headers = {"idempotency-key": name}
            assert client.post(GENERATIONS, json=generation(f"large {name}"), headers=headers).status_code == 200

        def is_gone() -> bool:  # which happens behind the second one's answer
            return client.post(GENERATIONS, json=generation("large one"), headers={"idempotency-key": "one"}).is_error

        until(is_gone)
        gone = client.post(GENERATIONS, json=generation("large one"), headers={"idempotency-key": "one"})
        kept = client.post(GENERATIONS, json=generation("large two"), headers={"idempotency-key": "two"})
    assert (gone.status_code, gone.json()["error"]["code"]) == (410, "idempotency_reply_gone")
    assert gone.headers["x-should-retry"] == "false"
    assert kept.status_code == 200
    assert here.origin.made("large one") == 1


def test_expiry(here: Here, tmp_path: Path) -> None:
    """After its time a key is a new one."""
    with another(here, tmp_path, 'ttl = "100ms"') as client:

        def is_new() -> bool:
            reply = client.post(GENERATIONS, json=generation("short"), headers={"idempotency-key": "a"})
            return "idempotency-replayed" not in reply.headers

        assert is_new()
        time.sleep(0.2)
        until(is_new)
    assert here.origin.made("short") == 2


def test_derived_keys(here: Here, tmp_path: Path) -> None:
    """Where the operator wants it, equal requests of a client are one without a key."""
    with another(here, tmp_path, "derive = true") as client:
        same = [client.post(GENERATIONS, json=generation("derived")) for _ in range(2)]
        assert same[1].headers["idempotency-replayed"] == "true"
        assert same[0].content == same[1].content
        headers = {"authorization": "Bearer another"}
        assert (
            "idempotency-replayed" not in client.post(GENERATIONS, json=generation("derived"), headers=headers).headers
        )
    assert here.origin.made("derived") == 2
    for _ in range(2):
        here.client.post(GENERATIONS, json=generation("not derived"))
    assert here.origin.made("not derived") == 2
