"""A Redis that forgets, refuses, evicts, hangs or is replaced, under two gateways: one POST for each key and task.

The gateways reach Redis through a line that can be laid to another server, as a failover does it.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.relay import Relay
from tests.waiting import until
from tests.wire.edit_support import Process
from tests.wire.keeping_support import EDITS, GENERATIONS, Origin, Redis, ended, generation, held_edit, redis_server
from tests.wire.shared_support import Both, create, found, in_thread, kill

from imagegate.demo.servers import serving

pytestmark = pytest.mark.redis
LEASE = 2.0
"""Seconds: long enough that a process that has to wait for the CPU is not taken for dead."""


class World:
    """Two gateway processes, the provider that counts, and the Redis between them."""

    def __init__(self, folder: Path, both: Both, redis: Redis, line: Relay, stack: contextlib.ExitStack) -> None:
        self.folder, self.both, self.redis, self.line, self._stack = folder, both, redis, line, stack
        self.origin = both.origin
        self.first, self.one = both.gateway("2s")
        self.second, self.other = both.gateway("2s")

    def new_redis(self) -> Redis:
        folder = self.folder / f"redis-{time.monotonic_ns()}"
        folder.mkdir()
        return self._stack.enter_context(redis_server(folder))

    def switch(self, redis: Redis) -> None:
        """The gateways reach another Redis from now on."""
        self.line.lead_to(redis.port)
        self.redis.stop()
        self.redis = redis

    def replace_first(self) -> Process:
        """A gateway in place of one that was killed."""
        self.first, self.one = self.both.gateway("2s")
        return self.first


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("memory")
    origin = Origin()
    with contextlib.ExitStack() as stack:
        (folder / "redis").mkdir()
        redis = stack.enter_context(redis_server(folder / "redis"))
        line = Relay(redis.port)
        stack.callback(line.close)
        port = stack.enter_context(serving(origin))
        yield World(folder, Both(folder, origin, port, f"redis://127.0.0.1:{line.port}/0", stack), redis, line, stack)
        origin.gate.set()
        origin.link_gate.set()


@pytest.fixture(autouse=True)
def closed_gates(world: World) -> Iterator[None]:
    world.origin.gate.clear()
    world.origin.link_gate.clear()
    yield
    world.origin.gate.set()
    world.origin.link_gate.set()


def restarted_empty(world: World) -> Callable[[], None]:
    return world.redis.forget


def flushed(world: World) -> Callable[[], None]:
    def flush() -> None:
        with world.redis.client() as client:
            client.flushall()

    return flush


def restarted_from_a_snapshot(world: World) -> Callable[[], None]:
    """It is older than what is at work."""
    with world.redis.client() as client:
        client.save()

    def restart() -> None:
        world.redis.forget()
        with world.redis.client() as client:
            client.config_set("save", "")
            assert client.exists("{imagegate}:server")

    return restart


def failed_over(world: World) -> Callable[[], None]:
    """To a replica that has not heard of what is at work."""
    replica = world.new_redis()
    with replica.client() as client:
        client.replicaof("127.0.0.1", world.redis.port)
        until(lambda: client.info("replication").get("master_link_status") == "up", what="the replica")
        until(lambda: client.exists("{imagegate}:server"), what="the replica's data")
        client.replicaof("NO", "ONE")
    return lambda: world.switch(replica)


def evicted(world: World) -> Callable[[], None]:
    """Redis needs room for other things, and drops what it can."""
    with world.redis.client() as client:
        kept = set(client.keys("{imagegate}:key:*"))

    def evict() -> None:
        numbers = itertools.count()

        def have_all_been_missing() -> bool:
            """Each for a moment at least: a process that lives writes its own again."""
            with client.pipeline(transaction=True) as commands:
                for _ in range(50):
                    commands.set(f"other:{next(numbers)}", b"x" * 4000)
                commands.execute()
            kept.intersection_update(client.keys("{imagegate}:key:*"))
            return not kept

        with world.redis.client() as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.config_set("maxmemory", "3mb")
            until(have_all_been_missing, what="the eviction of every key")
            client.config_set("maxmemory", "0")

    return evict


LOSSES = (restarted_empty, flushed, restarted_from_a_snapshot, failed_over, evicted)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_what_is_at_work_is_paid_once(world: World, loss: Callable[[World], Callable[[], None]]) -> None:
    """A call and a task are at the provider, and a task waits, when Redis forgets them. A retry of the call, which
    comes to the other process at once, gets the answer to the first one; both tasks end well."""
    name = loss.__name__
    lose = loss(world)
    headers = {"idempotency-key": name}
    asked = generation(f"hold call {name}")
    first = in_thread(lambda: world.one.post(GENERATIONS, json=asked, headers=headers))
    sent = create(world.one, generation(f"hold task {name}"))
    waiting = create(world.one, held_edit(world.both.port, f"waiting {name}"), EDITS)
    until(lambda: world.origin.made(f"hold call {name}") and world.origin.made(f"hold task {name}"))
    until(lambda: world.other.get(sent).json()["status"] == "processing")
    lose()
    second = in_thread(lambda: world.other.post(GENERATIONS, json=asked, headers=headers))
    time.sleep(1.6 * LEASE)
    world.origin.gate.set()
    world.origin.link_gate.set()
    replies = [first(), second()]
    assert [reply.status_code for reply in replies] == [200, 200], replies[1].text
    assert replies[0].content == replies[1].content
    for task in (sent, waiting):
        until(lambda task=task: found(world.other, task)["status"] == "completed", what="the image")
    made = [world.origin.made(f"{what} {name}") for what in ("hold call", "hold task", "waiting")]
    assert made == [1, 1, 1]


@pytest.mark.parametrize("loss", [restarted_empty, failed_over], ids=lambda loss: loss.__name__)
def test_what_was_answered_is_written_again(world: World, loss: Callable[[World], Callable[[], None]]) -> None:
    """A client that lost the answer when Redis did gets it, through any process, as long as its maker lives."""
    name = f"answered {loss.__name__}"
    lose = loss(world)
    headers = {"idempotency-key": name}
    first = world.one.post(GENERATIONS, json=generation(name), headers=headers)
    task = create(world.one, generation(f"task {name}"))
    assert ended(world.one, task)["status"] == "completed"
    lose()
    second = world.other.post(GENERATIONS, json=generation(name), headers=headers)
    assert (second.content, second.headers["idempotency-replayed"]) == (first.content, "true")
    assert found(world.other, task)["status"] == "completed"
    assert (world.origin.made(name), world.origin.made(f"task {name}")) == (1, 1)


def test_killed_after_redis_had_forgotten(world: World) -> None:
    """What the dead process had said again counts: its call is uncertain, and its waiting task is done."""
    headers = {"idempotency-key": "killed"}
    asked = generation("hold killed")
    lost = in_thread(lambda: world.one.post(GENERATIONS, json=asked, headers=headers))
    sent = create(world.one, generation("hold killed task"))
    waiting = create(world.one, held_edit(world.both.port, "waiting killed"), EDITS)
    until(lambda: world.origin.made("hold killed") and world.origin.made("hold killed task"))
    world.redis.forget()
    until(lambda: _knows(world, waiting) and _keys(world, b"sent"), what="the renewals")
    kill(world.first)
    assert isinstance(lost(), httpx.HTTPError)
    reply = world.other.post(GENERATIONS, json=asked, headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "interrupted")
    world.origin.link_gate.set()
    assert found(world.other, waiting)["status"] == "completed"
    assert found(world.other, sent)["error"]["code"] == "task_interrupted"
    made = [world.origin.made(prompt) for prompt in ("hold killed", "hold killed task", "waiting killed")]
    assert made == [1, 1, 1]
    world.replace_first()


def _knows(world: World, task: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return world.other.get(task).status_code == 200
    return False


def _keys(world: World, state: bytes) -> bool:
    with world.redis.client() as client:
        return any(client.hget(key, "state") == state for key in client.scan_iter("{imagegate}:key:*"))


def test_out_of_memory(world: World) -> None:
    """Redis refuses to write for some leases while a call and a task are at the provider and end. Nothing new is sent
    without it, and what has ended is there as soon as Redis has room."""
    headers = {"idempotency-key": "full"}
    asked = generation("hold full")
    first = in_thread(lambda: world.one.post(GENERATIONS, json=asked, headers=headers))
    task = create(world.one, generation("hold full task"))
    until(lambda: world.origin.made("hold full") and world.origin.made("hold full task"))
    with world.redis.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1")
        second = in_thread(lambda: world.other.post(GENERATIONS, json=asked, headers=headers))
        assert second().status_code == 503, "it does not wait for an end that cannot be told"
        new = world.other.post(GENERATIONS, json=generation("never"), headers={"idempotency-key": "new"})
        assert (new.status_code, new.json()["error"]["code"]) == (503, "idempotency_store_unavailable")
        assert world.other.post(GENERATIONS, json={**generation("never"), "async": True}).status_code == 503
        world.origin.gate.set()
        assert first().status_code == 200
        time.sleep(LEASE)
        client.config_set("maxmemory", "0")
    again = world.other.post(GENERATIONS, json=asked, headers=headers)
    assert again.content == first().content
    assert ended(world.other, task)["status"] == "completed"
    made = [world.origin.made(prompt) for prompt in ("hold full", "hold full task", "never")]
    assert made == [1, 1, 0]


def test_a_redis_that_hangs(world: World) -> None:
    """For longer than a lease; then nobody is taken for dead whose renewals it did not take."""
    headers = {"idempotency-key": "hangs"}
    asked = generation("hold hangs")
    first = in_thread(lambda: world.one.post(GENERATIONS, json=asked, headers=headers))
    task = create(world.one, generation("hold hangs task"))
    until(lambda: world.origin.made("hold hangs") and world.origin.made("hold hangs task"))
    with hanging(world.redis):
        second = in_thread(lambda: world.other.post(GENERATIONS, json=asked, headers=headers))
        time.sleep(1.6 * LEASE)
    time.sleep(1.2 * LEASE)
    world.origin.gate.set()
    assert [first().status_code, second().status_code] == [200, 200]
    assert ended(world.other, task)["status"] == "completed"
    assert (world.origin.made("hold hangs"), world.origin.made("hold hangs task")) == (1, 1)


@contextlib.contextmanager
def hanging(redis: Redis) -> Generator[None]:
    redis.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        redis.signal(signal.SIGCONT)


def test_a_process_that_was_stopped_while_redis_forgot(world: World) -> None:
    """It was silent for so long that the other one has paid: it finds out before it sends, and so does its task."""
    name = "suspended"
    headers = {"idempotency-key": name}
    asked = held_edit(world.both.port, name)
    first = in_thread(lambda: world.one.post(EDITS, json=asked, headers=headers))
    until(lambda: _keys(world, b"held"))
    world.first.process.send_signal(signal.SIGSTOP)
    try:
        world.redis.forget()
        second = in_thread(lambda: world.other.post(EDITS, json=asked, headers=headers))
        time.sleep(LEASE)
        world.origin.link_gate.set()
        assert second().status_code == 200
        world.redis.forget()
    finally:
        world.first.process.send_signal(signal.SIGCONT)
    assert first().status_code in (200, 503)
    again = world.one.post(EDITS, json=asked, headers=headers)
    assert again.headers["idempotency-replayed"] == "true"
    assert _image(again) == _image(second())  # the links begin with the address that was asked
    assert world.origin.made(name) == 1


def _image(reply: httpx.Response) -> str:
    return urlsplit(reply.json()["data"][0]["url"]).path


@pytest.mark.parametrize(("loss", "end"), [(restarted_empty, signal.SIGKILL), (evicted, signal.SIGSTOP)])
def test_a_process_that_can_tell_redis_nothing_any_more(
    world: World, loss: Callable[[World], Callable[[], None]], end: signal.Signals
) -> None:
    """It had sent its request, then it ended, or stopped, and Redis forgot it: the marks in the shared directory say
    what neither can."""
    name = f"hold untold {loss.__name__} {end.name}"
    asked = generation(name)
    first = in_thread(lambda: world.one.post(GENERATIONS, json=asked, headers={"idempotency-key": name}))
    until(lambda: world.origin.made(name))
    forget = loss(world)
    world.first.process.send_signal(end)
    try:
        forget()
        second = in_thread(lambda: world.other.post(GENERATIONS, json=asked, headers={"idempotency-key": name}))
        if end is signal.SIGKILL:
            assert (second().status_code, second().json()["error"]["code"]) == (502, "interrupted")
        else:
            time.sleep(1.5 * LEASE)
    finally:
        world.origin.gate.set()
        if end is signal.SIGKILL:
            world.first.process.wait()
            world.replace_first()
        else:
            world.first.process.send_signal(signal.SIGCONT)
    if end is signal.SIGSTOP:
        assert second().json()["data"] == first().json()["data"]
    again = world.one.post(GENERATIONS, json=asked, headers={"idempotency-key": name})
    assert (again.status_code, again.headers["idempotency-replayed"]) == (second().status_code, "true")
    assert world.origin.made(name) == 1
