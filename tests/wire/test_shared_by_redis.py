"""Two gateway processes and one Redis: tasks and keys are shared, and the death of one loses and doubles nothing."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.waiting import until
from tests.wire.edit_support import gateway_process, picture
from tests.wire.keeping_support import (
    EDITS,
    GENERATIONS,
    LARGE,
    PNG,
    Origin,
    Receiver,
    Redis,
    ended,
    generation,
    held_edit,
    redis_server,
)
from tests.wire.shared_support import SECRET, Both, create, found, in_thread, kill, silence

from imagegate import ImageGateway
from imagegate.demo.servers import local_providers, serving
from imagegate.demo.servers import write_config as write_demo_config

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redis_server(tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest.fixture
def both(redis: Redis, tmp_path: Path) -> Iterator[Both]:
    origin = Origin()
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(serving(origin))
        yield Both(tmp_path, origin, port, redis.url, stack)
        origin.gate.set()
        origin.link_gate.set()


def test_shared_and_killed(both: Both, redis: Redis) -> None:
    """A task of one process is asked for through the other. The maker is killed: what it had sent has failed, and is
    not sent again; what it had not sent is done by the other one, with its files and callbacks."""
    first, maker = both.gateway("4s")
    _, other = both.gateway("4s")
    receiver = Receiver()
    with serving(receiver) as hook:
        done = create(maker, generation("a cat"))
        over = ended(other, done)
        assert (over["status"], other.get(over["data"][0]["url"]).content) == ("completed", PNG)
        sent = create(maker, generation("hold sent", callback_url=f"http://127.0.0.1:{hook}/"))
        until(lambda: both.origin.made("hold sent"))
        assert other.get(sent).json()["status"] == "processing"
        unsent = create(maker, held_edit(both.port, "not sent"), EDITS)
        inline = "data:image/png;base64," + base64.b64encode(picture(3)).decode()
        with_files = create(
            maker,
            {**held_edit(both.port, "files"), "images": [{"image_url": inline}, *held_edit(both.port, "")["images"]]},
            EDITS,
        )
        assert other.get(unsent).json()["status"] == "pending"
        kill(first)
        over = ended(other, sent)
        assert (over["status"], over["error"]["code"]) == ("failed", "task_interrupted")
        assert over["error"]["imagegate"]["outcome"] == "uncertain"
        both.origin.link_gate.set()
        taken = ended(other, unsent)
        assert taken["status"] == ended(other, with_files)["status"] == "completed"
        # Links begin with the address that the request came to; any process with the store answers them.
        link = taken["data"][0]["url"]
        assert link.startswith(str(maker.base_url))
        assert other.get(link.removeprefix(str(maker.base_url).rstrip("/"))).content == PNG
        assert (both.origin.made("not sent"), both.origin.made("files"), both.origin.made("hold sent")) == (1, 1, 1)
        assert next(post for post in both.origin.posts if post["prompt"] == "files")["files"] == 2
        until(lambda: receiver.events, what="the webhook of the failed task")
    told = json.loads(receiver.events[0][1])
    assert (told["type"], told["data"]["task_id"]) == ("task.failed", sent.rpartition("/")[2])
    everything = redis.everything()
    assert b";base64," not in everything
    assert base64.b64encode(PNG)[:64] not in everything
    assert b"sk-provider" not in everything


def test_keys_are_shared(both: Both, redis: Redis) -> None:
    """Requests with one key to two processes are one; the answer outlives both."""
    first, one = both.gateway()
    _, other = both.gateway()
    headers = {"idempotency-key": "shared"}
    body = generation("large hold") | {"prompt": "hold shared"}
    asking = [in_thread(lambda c=c: c.post(GENERATIONS, json=body, headers=headers)) for c in (one, other, one, other)]
    until(lambda: both.origin.made("hold shared"))
    time.sleep(0.5)
    both.origin.gate.set()
    replies = [result() for result in asking]
    assert [reply.status_code for reply in replies] == [200] * 4
    assert len({reply.content for reply in replies}) == 1
    assert both.origin.made("hold shared") == 1
    assert other.post(GENERATIONS, json=generation("x"), headers=headers).status_code == 409
    large = {"idempotency-key": "large"}
    made = one.post(GENERATIONS, json=generation("large"), headers=large)
    assert base64.b64decode(made.json()["data"][0]["b64_json"]) == LARGE
    first.process.terminate()
    first.process.wait(timeout=20)
    _, third = both.gateway()
    again = third.post(GENERATIONS, json=generation("large"), headers=large)
    assert (again.content, again.headers["idempotency-replayed"]) == (made.content, "true")
    assert (both.origin.made("large"), both.origin.made("hold shared")) == (1, 1)
    assert base64.b64encode(LARGE)[:64] not in redis.everything()


def test_killed_with_keys(both: Both) -> None:
    """What a dead process had sent under a key is never sent again; what it had not sent leaves the key free."""
    first, one = both.gateway()
    _, other = both.gateway()
    sent, unsent = {"idempotency-key": "sent"}, {"idempotency-key": "unsent"}
    body = held_edit(both.port, "unsent with key")
    lost = [
        in_thread(lambda: one.post(GENERATIONS, json=generation("hold with key"), headers=sent)),
        in_thread(lambda: one.post(EDITS, json=body, headers=unsent)),
    ]
    until(lambda: both.origin.made("hold with key"))
    time.sleep(0.3)
    kill(first)
    assert all(isinstance(result(), httpx.HTTPError) for result in lost)
    reply = other.post(GENERATIONS, json=generation("hold with key"), headers=sent)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "interrupted")
    assert reply.headers["x-should-retry"] == "false"
    both.origin.link_gate.set()
    assert other.post(EDITS, json=body, headers=unsent).status_code == 200
    both.origin.gate.set()
    assert other.post(GENERATIONS, json=generation("hold with key"), headers=sent).json() == reply.json()
    assert (both.origin.made("hold with key"), both.origin.made("unsent with key")) == (1, 1)


def test_terminated(both: Both) -> None:
    """A process that ends in order gives what it has not sent to the other one at once, and tells what it had sent."""
    first, maker = both.gateway()
    _, other = both.gateway()
    unsent = create(maker, held_edit(both.port, "handed over"), EDITS)
    sent = create(maker, generation("hold to the end"))
    until(lambda: both.origin.made("hold to the end"))
    quick = create(maker, generation("quick"))
    first.process.terminate()
    first.process.wait(timeout=30)
    assert ended(other, quick)["status"] == "completed"
    over = ended(other, sent)
    assert (over["status"], over["error"]["code"]) == ("failed", "task_interrupted")
    both.origin.link_gate.set()
    assert ended(other, unsent)["status"] == "completed"
    assert (both.origin.made("handed over"), both.origin.made("hold to the end")) == (1, 1)


def test_redis_restarted(both: Both, redis: Redis) -> None:
    """While Redis is away errors are clear and nothing is sent without it; what was at work is known again after."""
    _, client = both.here()
    running = create(client, generation("hold over it"))
    until(lambda: both.origin.made("hold over it"))
    waiting = create(client, held_edit(both.port, "before it"), EDITS)
    keyed = in_thread(
        lambda: client.post(GENERATIONS, json=generation("hold keyed"), headers={"idempotency-key": "over"})
    )
    until(lambda: both.origin.made("hold keyed"))
    redis.stop()
    for attempt in (
        lambda: client.get(running),
        lambda: client.post(GENERATIONS, json={**generation("no task"), "async": True}),
        lambda: client.post(GENERATIONS, json=generation("no key"), headers={"idempotency-key": "down"}),
    ):
        reply = attempt()
        assert reply.status_code == 503, reply.text
        assert reply.json()["error"]["code"] in ("task_store_unavailable", "idempotency_store_unavailable")
        assert "retry-after" in reply.headers
        assert "127.0.0.1" not in reply.text
    assert client.post(GENERATIONS, json=generation("plain")).status_code == 200
    both.origin.gate.set()
    assert keyed().status_code == 200
    redis.start()
    assert found(client, running)["status"] == "completed"
    both.origin.link_gate.set()
    assert found(client, waiting)["status"] == "completed"
    again = client.post(GENERATIONS, json=generation("hold keyed"), headers={"idempotency-key": "over"})
    assert again.content == keyed().content
    assert (both.origin.made("no task"), both.origin.made("no key")) == (0, 0)
    assert [both.origin.made(text) for text in ("hold over it", "before it", "hold keyed")] == [1, 1, 1]


def test_cancelled_through_another_process(both: Both) -> None:
    """The maker does not send what another process was told to give up."""
    _, maker = both.here()
    _, other = both.here()
    location = create(maker, held_edit(both.port, "given up"), EDITS)
    assert other.delete(location).json()["cancelled"]
    both.origin.link_gate.set()
    time.sleep(0.5)
    assert maker.get(location).json()["cancelled"]
    assert both.origin.made("given up") == 0


def test_seemingly_dead(both: Both) -> None:
    """A process that is only silent finds out that its tasks are another one's, before it sends anything."""
    first, maker = both.here("300ms")
    unsent = create(maker, held_edit(both.port, "taken"), EDITS)
    long = create(maker, held_edit(both.port, "taken long " + "x" * 20_000), EDITS)
    sent = create(maker, generation("hold and silence"))
    until(lambda: both.origin.made("hold and silence"))
    silence(first)
    _, other = both.here("300ms")
    over = ended(other, sent)
    assert (over["status"], over["error"]["code"]) == ("failed", "task_interrupted")
    both.origin.link_gate.set()
    both.origin.gate.set()
    for location in (unsent, long):
        assert ended(other, location)["status"] == "completed"
    until(lambda: ended(other, sent)["status"] == "completed", what="the picture that was paid for")
    assert [both.origin.made(text) for text in ("taken", "taken long " + "x" * 20_000, "hold and silence")] == [1, 1, 1]


@pytest.mark.parametrize(("prompt", "has_answered"), [("hold suspended", True), ("hold refuse 400", False)])
def test_suspended_beyond_its_lease(both: Both, prompt: str, has_answered: bool) -> None:
    """Another process ends its task as uncertain. Awake again, it tells what it has been answered, by webhook too,
    whether the provider's answer came while it was suspended or comes after it."""
    both.origin.refusals[prompt] = 9
    first, maker = both.gateway("3s")
    _, other = both.gateway("3s")
    receiver = Receiver()
    with serving(receiver) as hook:
        body = generation(prompt, callback_url=f"http://127.0.0.1:{hook}/")
        location, kept = create(maker, body), create(maker, generation(prompt))
        until(lambda: both.origin.made(prompt) == 2)
        first.process.send_signal(signal.SIGSTOP)
        for each in (location, kept):
            assert ended(other, each)["error"]["code"] == "task_interrupted"
        until(lambda: len(receiver.events) == 1, what="the webhook of the failed task")
        if has_answered:
            both.origin.gate.set()
            time.sleep(0.1)
        first.process.send_signal(signal.SIGCONT)
        if not has_answered:
            time.sleep(2)  # it renews its leases, and goes on
            both.origin.gate.set()
        until(lambda: len(receiver.events) == 2, what="the webhook of what is known")
        for each in (location, kept):
            until(lambda each=each: ended(other, each).get("error", {}).get("code") != "task_interrupted")
            over = ended(other, each)
            if "refuse" in prompt:
                assert (over["status"], over["error"]["imagegate"]["status"]) == ("failed", 400)
            else:
                assert other.get(over["data"][0]["url"]).content == PNG
    assert both.origin.made(prompt) == 2
    names = [headers["webhook-id"] for headers, _ in receiver.events]
    assert len(set(names)) == 2


def test_files_that_are_gone(both: Both) -> None:
    """Then nothing is sent, and the task says so."""
    first, maker = both.here("300ms")
    inline = "data:image/png;base64," + base64.b64encode(picture(3)).decode()
    body = held_edit(both.port, "no files")
    body["images"].append({"image_url": inline})
    location = create(maker, body, EDITS)
    silence(first)
    for file in (both.folder / "images" / ".blobs").iterdir():
        file.unlink()
    _, other = both.here("300ms")
    over = ended(other, location)
    assert (over["status"], over["error"]["code"]) == ("failed", "task_files_gone")
    assert over["error"]["imagegate"]["outcome"] == "not_sent"
    both.origin.link_gate.set()
    time.sleep(0.2)
    assert both.origin.made("no files") == 0


KEYLESS = """
[[upstreams]]
name = "keyless"
adapter = "openai"
base_url = "http://127.0.0.1:{port}"

[upstreams.models.takes-files]
family = "gpt-image-1"
[upstreams.models.takes-files.edits.references]
forms = ["files"]

[routes]
"either" = ["keyless/takes-files", "openai/takes-files"]
"""
"""A second upstream, which is asked with the client's own key; and a route that tries it first."""


@pytest.mark.parametrize(
    ("model", "is_done"), [("takes-files", True), ("either", True), ("keyless/takes-files", False)]
)
def test_whose_key_pays(both: Both, redis: Redis, model: str, is_done: bool) -> None:
    """A client's key is never kept, so another process says that nothing was sent where every candidate needs it;
    other upstreams of the configuration do not count, nor does a candidate where another one has a key of its own."""
    more = KEYLESS.format(port=both.port)
    first, maker = both.here("300ms", more)
    headers = {"authorization": "Bearer sk-clients-own"}
    prompt = f"own key {model}"
    body = {**held_edit(both.port, prompt), "model": model, "async": True}
    reply = maker.post(EDITS, json=body, headers=headers)
    assert reply.status_code == 202, reply.text
    assert b"sk-clients-own" not in redis.everything()
    silence(first)
    _, other = both.here("300ms", more)
    other.headers.update(headers)
    if is_done:
        both.origin.link_gate.set()
        assert ended(other, reply.headers["location"])["status"] == "completed"
    else:
        assert ended(other, reply.headers["location"])["error"]["code"] == "task_not_begun"
        both.origin.link_gate.set()
        time.sleep(0.2)
    assert both.origin.made(prompt) == int(is_done)


@pytest.mark.parametrize("is_mounted", [True, False])
def test_a_gateway_that_is_not_asked_for_tasks(both: Both, is_mounted: bool) -> None:
    """It takes abandoned tasks over all the same: from its start-up on, or, where its application runs no lifespan
    for it, from its first request of any kind."""
    first, maker = both.here("300ms")
    create(maker, held_edit(both.port, f"abandoned {is_mounted}"), EDITS)
    silence(first)
    other = ImageGateway(config=both.config("300ms"), grace=0.2)

    @contextlib.asynccontextmanager
    async def closing(_: Starlette) -> AsyncIterator[None]:
        yield
        await other.aclose()

    app = Starlette(routes=[Mount("/images-api", other)], lifespan=closing) if is_mounted else other
    both.origin.link_gate.set()
    with serving(app) as port:
        if is_mounted:
            assert httpx.get(f"http://127.0.0.1:{port}/images-api/v1/models").status_code == 200
        until(lambda: both.origin.made(f"abandoned {is_mounted}"))
    assert both.origin.made(f"abandoned {is_mounted}") == 1


def test_one_record_that_cannot_be_read(both: Both, redis: Redis) -> None:
    """Its neighbours are taken over, and what is at work goes on; whoever asks for it is told to come again."""
    first, maker = both.here("300ms")
    tasks = [create(maker, held_edit(both.port, f"neighbour {number}"), EDITS) for number in range(3)]
    with redis.client() as client:
        name = next(
            key for key in client.scan_iter("{imagegate}:task:*") if b"neighbour 1" in client.hget(key, "record")
        )
        client.hset(name, "record", "{")
    silence(first)
    _, other = both.here("300ms")
    running = create(other, held_edit(both.port, "at work"), EDITS)
    reply = other.get(tasks[1])
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "task_unreadable")
    with redis.client() as client:
        until(lambda: client.hget(name, "parked"), what="the other process")
    both.origin.link_gate.set()
    for task in (tasks[0], tasks[2], running):
        assert ended(other, task)["status"] == "completed"
    made = [both.origin.made(prompt) for prompt in ("neighbour 0", "neighbour 1", "neighbour 2", "at work")]
    assert made == [1, 0, 1, 1]
    with redis.client() as client:
        assert client.hget(name, "record") == b"{"


def test_providers_task_outlives_its_maker(redis: Redis, tmp_path: Path) -> None:
    """A task that a provider has accepted, and that somebody is to be told of, is followed by another process."""
    receiver = Receiver()
    with contextlib.ExitStack() as stack:
        apps, ports = stack.enter_context(local_providers(task_seconds=4))
        hook = stack.enter_context(serving(receiver))
        gateways = []
        for name, own_process in (("one", True), ("two", False)):
            write_demo_config(tmp_path / name / "imagegate.toml", ports, store=tmp_path / "images")
            text = (tmp_path / name / "imagegate.toml").read_text()
            tasks = f'[tasks]\nstore = "{redis.url}"\nlease = "1s"\ncallback_secret = "whsec_{SECRET}"\n'
            text = text.replace("[tasks]\n", tasks).replace("[delivery]", '[delivery]\nfetch_allow = ["127.0.0.1"]')
            (tmp_path / name / "imagegate.toml").write_text(text)
            config = tmp_path / name / "imagegate.toml"
            if own_process:
                first = stack.enter_context(gateway_process(config, IMAGEGATE_GRACE="1"))
                url = first.url
            else:
                url = f"http://127.0.0.1:{stack.enter_context(serving(ImageGateway(config=config, grace=1)))}"
            gateways.append(stack.enter_context(httpx.Client(base_url=url, timeout=30)))
        maker, other = gateways
        body = {"model": "toapis/gpt-image-1.5-official", "prompt": "A kite"}
        location = create(maker, {**body, "callback_url": f"http://127.0.0.1:{hook}/"})
        time.sleep(0.3)
        kill(first)
        over = ended(other, location)
        assert (over["status"], len(over["data"])) == ("completed", 1), over
        # The link names the address that the task was made at; behind a balancer, or with public_url, all have one.
        link = over["data"][0]["url"].removeprefix(first.url)
        assert other.get(link).headers["content-type"] == "image/png"
        until(lambda: receiver.events, what="the webhook")
        posts = [one for one in apps["toapis"].state.received if one.method == "POST"]
    assert len(posts) == 1
