"""Task stores and stores of answers do as a model of them does: in memory and, where it is installed, in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.waiting import TIMEOUT
from tests.wire.keeping_support import Redis, redis_server

from imagegate.errors import ImagegateError
from imagegate.idempotency.base import Claim, ReplaysUnavailable, Slot
from imagegate.idempotency.keys import KeptReply, KeyReused
from imagegate.idempotency.memory import MemoryReplays
from imagegate.idempotency.redis import RedisReplays
from imagegate.stores.blobs import FileBlobs, pieces_of, whole
from imagegate.stores.redis_client import RedisClient, is_redis_url
from imagegate.stores.redis_memory import Recent
from imagegate.stores.unavailable import StoreUnavailable
from imagegate.tasks import redis as tasks_in_redis
from imagegate.tasks.base import TaskStore, TaskUnreadable
from imagegate.tasks.memory import MemoryTaskStore
from imagegate.tasks.outcomes import cancelled, internal, interrupted
from imagegate.tasks.records import RECORD_VERSION, ProviderTask, TaskRecord, document, may_become, public_state
from imagegate.tasks.redis import RedisTaskStore

needs_redis = pytest.mark.redis


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redis_server(tmp_path_factory.mktemp("redis")) as found:
        yield found


def record(number: str, **more: Any) -> TaskRecord:
    return TaskRecord(number=number, created=1.0, task_id=f"task_{number}", **more)


STEPS = st.lists(st.sampled_from(["add", "sent", "note", "complete", "fail", "cancel", "discard", "renew"]), max_size=8)


async def follow(store: TaskStore, steps: list[str], number: str) -> list[Any]:
    """What each step answers, and the state after it."""
    seen: list[Any] = []
    base = record(number)
    for step in steps:
        answer: Any = None
        if step == "add":
            await store.add(base)
        elif step == "sent":
            answer = await store.mark_sent(base)
        elif step == "note":
            await store.note(base)
        elif step == "complete":
            answer = await store.finish(base.completed([], {}))
        elif step == "fail":
            answer = await store.finish(base.failed(interrupted()))
        elif step == "cancel":
            answer = await store.cancel(base.failed(cancelled()))
        elif step == "discard":
            await store.discard(base)
        else:
            await store.renew([])
        found = await store.get(number)
        seen.append((step, answer, found.state if found else None))
    return seen


def check(seen: list[Any]) -> None:
    """The rules of the states, whatever was asked for."""
    state: str | None = None
    for step, answer, after in seen:
        if state is not None and after is not None and after != state:
            assert may_become(state, after), (state, step, after)  # type: ignore[arg-type]
        if step == "cancel":
            assert answer == (state == "queued")
        if step == "sent" and state in ("completed", "failed"):
            assert answer is False
        state = after


@given(STEPS)
def test_memory_keeps_to_the_states(steps: list[str]) -> None:
    """A task never leaves an end, and is never sent after one."""

    async def run() -> list[Any]:
        return await follow(MemoryTaskStore(ttl=60), ["add", *steps], "a")

    check(asyncio.run(run()))


async def settled(store: TaskStore, lease: float) -> None:
    """Returns when nothing can turn up any more that Redis does not know."""
    until = time.monotonic() + lease + 0.05
    while time.monotonic() < until:
        await store.renew([])
        await asyncio.sleep(0.01)


async def taken_by(store: TaskStore, count: int, *held: TaskRecord) -> dict[str, TaskRecord]:
    """As many abandoned tasks, once the store gives them to this process, which renews what it holds."""
    found: dict[str, TaskRecord] = {}
    async with asyncio.timeout(TIMEOUT):
        while len(found) < count:
            assert await store.renew([*held, *found.values()]) == []
            found |= {each.number: each for each in await store.abandoned()}
            await asyncio.sleep(0.01)
    return found


@needs_redis
def test_redis_keeps_to_the_states(redis: Redis) -> None:
    """The same, step by step, in Lua."""
    numbers = iter(range(10**6))

    @settings(max_examples=60)
    @given(STEPS)
    def property_of(steps: list[str]) -> None:
        async def run() -> list[Any]:
            store = RedisTaskStore(RedisClient(redis.url), ttl=60, lease=0.05)
            try:
                await settled(store, 0.05)
                return await follow(store, ["add", *steps], f"s{next(numbers)}")
            finally:
                await store.aclose()

        check(asyncio.run(run()))

    property_of()


@needs_redis
def test_dead_and_seemingly_dead_holders(redis: Redis) -> None:
    """What a silent process held is another one's; the first one finds out before it sends."""
    redis.forget()

    async def run() -> None:
        first, second = (RedisTaskStore(RedisClient(redis.url), ttl=60, lease=0.5) for _ in range(2))
        await settled(first, 0.5)
        one, two, three = record("d1"), record("d2"), record("d3", callback_url="https://example.com")
        for each in (one, two, three):
            await first.add(each)
        assert await first.mark_sent(two)
        assert await first.cancel(three.failed(cancelled()))  # somebody must still tell its end
        assert not await second.mark_sent(one)
        assert [found.number for found in await second.abandoned()] == ["d3"]
        for _ in range(30):
            assert await first.renew([one, two]) == []
            assert await second.renew([three]) == []
            assert await second.abandoned() == []
            await asyncio.sleep(0.02)
        taken = await taken_by(second, 2, three)
        assert {number: found.state for number, found in taken.items()} | {"d3": "failed"} == {
            "d1": "queued",
            "d2": "sent",
            "d3": "failed",
        }
        assert taken["d1"].takes == 1
        assert not await first.mark_sent(one)
        sent = two.with_state("sent")
        assert await first.renew([one, sent]) == ["d1"]  # what was sent, nobody else can know the end of
        assert await second.mark_sent(one)
        assert not await first.finish(one.failed(internal(sent=False)))
        assert await second.finish(one.completed([], {}))
        assert await second.finish(two.failed(interrupted()))
        assert await first.renew([sent]) == []
        assert not await first.finish(two.failed(interrupted()))
        assert await first.finish(two.completed([], {}))
        assert not await second.finish(two.failed(interrupted()))
        found = await second.get("d2")
        assert found is not None and found.state == "completed"
        await second.finish(TaskRecord(**{**_members(three.failed(cancelled())), "told": True}))
        await settled(first, 0.5)
        assert await first.abandoned() == []
        await first.add(record("d4"))
        await first.release(record("d4"))
        for holder in (second, first, second):  # given on in order, again and again
            (given,) = await holder.abandoned()
            assert (given.number, given.takes) == ("d4", 1)
            await holder.release(given)
        await first.aclose()
        await second.aclose()

    asyncio.run(run())


def _members(found: TaskRecord) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__struct_fields__}


@needs_redis
def test_redis_that_lost_its_memory(redis: Redis) -> None:
    """Who holds a task says so again."""

    async def run() -> None:
        store = RedisTaskStore(RedisClient(redis.url), ttl=60, lease=0.3)
        held = record("m1")
        await store.add(held)
        redis.stop()
        with pytest.raises(StoreUnavailable):
            await store.get("m1")
        redis.start()
        with pytest.raises(StoreUnavailable):  # it may turn up
            await store.get("m1")
        with pytest.raises(StoreUnavailable):
            await store.get("m2")
        await settled(store, 0.3)
        assert await store.get("m2") is None
        assert await store.renew([held]) == []
        assert (await store.get("m1")) == held
        redis.stop()
        redis.start()
        assert await store.mark_sent(held)
        redis.stop()
        redis.start()
        assert await store.finish(held.completed([], {}))
        found = await store.get("m1")
        assert found is not None
        assert found.state == "completed"
        await store.aclose()
        gone = RedisTaskStore(RedisClient("redis://127.0.0.1:1/0"), ttl=60, lease=30)
        with pytest.raises(StoreUnavailable):
            await gone.add(held)
        await gone.aclose()

    asyncio.run(run())


async def begun(store: RedisReplays, claim: Claim) -> KeptReply | Slot:
    """What a claim comes to, once the store is sure."""
    while (found := await store.begin(claim)) == "unsure":
        await asyncio.sleep(0.01)
    return found


async def told(store: RedisReplays, claim: Claim) -> KeptReply | Slot:
    """What is known of the slot, once nothing is at work on it any more."""
    while (found := await store.begin(claim)) == "elsewhere":
        await asyncio.sleep(0.01)
    return found


@needs_redis
def test_slots_in_redis(redis: Redis) -> None:
    """Held, sent, done; a dead holder's slot is free before it has sent, and told of as uncertain afterwards."""

    async def run() -> None:
        first, second = (RedisReplays(RedisClient(redis.url), lease=4) for _ in range(2))
        reply = KeptReply(status=200, body="{}", size=2)
        mine, theirs = Claim("a", "p", 60), Claim("a", "p", 60)
        assert await begun(first, mine) == "mine"
        assert await first.begin(mine) == "mine"  # asked again after a broken connection
        assert await second.begin(theirs) == "elsewhere"
        with pytest.raises(KeyReused):
            await second.begin(Claim("a", "q", 60))
        assert not await second.mark_sent(theirs)
        assert await first.mark_sent(mine)
        await first.finish(mine, reply)
        assert await second.begin(theirs) == reply
        await second.release(theirs)
        assert await second.begin(theirs) == reply

        mine, theirs, others = Claim("b", "p", 60), Claim("b", "p", 60), Claim("b", "q", 60)
        assert await begun(first, mine) == "mine"
        await asyncio.sleep(2)
        await first.renew([mine])
        await asyncio.sleep(3)
        assert await second.begin(theirs) == "elsewhere"
        await asyncio.sleep(3)
        assert await second.begin(others) == "mine"
        assert not await first.mark_sent(mine)
        await second.release(others)
        assert await first.begin(mine) == "mine"

        assert await first.mark_sent(mine)
        mine.sent = True
        await asyncio.sleep(2)
        await first.renew([mine])
        await asyncio.sleep(3)
        assert await second.begin(theirs) == "elsewhere"
        found = await told(second, theirs)
        assert isinstance(found, KeptReply)
        assert (found.status, found.facts.outcome) == (502, "uncertain")
        assert not await second.mark_sent(theirs)
        await first.finish(mine, reply)  # it was only silent
        assert await second.begin(theirs) == reply
        await first.aclose()
        await second.aclose()
        gone = RedisReplays(RedisClient("redis://127.0.0.1:1/0"), lease=1)
        with pytest.raises(ReplaysUnavailable):
            await gone.begin(mine)
        await gone.aclose()

    asyncio.run(run())


@needs_redis
def test_a_redis_that_is_new(redis: Redis) -> None:
    """Nothing can turn up there that a process holds, so nobody waits for a lease; one that another Redis came before
    is not new."""
    redis.forget()

    async def run() -> None:
        first, second = (RedisReplays(RedisClient(redis.url), lease=600) for _ in range(2))
        assert await begun(first, Claim("a", "p", 600)) == "mine"
        assert await first.has_forgotten()
        await first.renew([])
        assert not await first.has_forgotten()
        redis.forget()
        assert await second.begin(Claim("b", "p", 600)) == "unsure"
        assert await first.has_forgotten()  # from now on it is known that it is not
        await asyncio.sleep(2.5)
        assert await second.begin(Claim("c", "p", 600)) == "unsure"
        await first.aclose()
        await second.aclose()

    asyncio.run(run())


@needs_redis
def test_records_that_cannot_be_read(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged record, and one of a newer gateway, keep no other back: they stay where they are, are told of once,
    and use up nothing. A gateway that can read them takes them over."""
    redis.forget()
    told: list[str] = []

    async def run() -> None:
        dead, reader = (
            RedisTaskStore(RedisClient(redis.url), ttl=60, lease=0.2, on_unreadable=told.append) for _ in range(2)
        )
        await settled(dead, 0.2)
        for number in ("damaged", "odd state", "newer", "good", "older"):
            await dead.add(record(number))
        with redis.client() as client:
            client.hset("{imagegate}:task:damaged", "record", "{")
            client.hset("{imagegate}:task:odd state", "state", "paused")
            client.hset("{imagegate}:task:newer", "version", RECORD_VERSION + 1)
            client.hdel(
                "{imagegate}:task:older", "version", "from", "added", "noted"
            )  # as it was before there were any
        taken = await taken_by(reader, 2)
        assert taken.keys() == {"good", "older"}
        assert {name.rpartition(":")[2] for name in told} == {"damaged", "odd state", "newer"}
        assert await reader.mark_sent(taken["older"])
        for number in ("damaged", "odd state", "newer"):
            with pytest.raises(TaskUnreadable):
                await reader.get(number)
        for _ in range(30):
            assert await reader.renew(list(taken.values())) == []
            assert await reader.abandoned() == []
            await asyncio.sleep(0.02)
        assert len(told) == 3
        monkeypatch.setattr(tasks_in_redis, "RECORD_VERSION", RECORD_VERSION + 1)
        with redis.client() as client:
            client.hset("{imagegate}:task:damaged", "record", b'{"number": "damaged", "created": 1}')
        again = await taken_by(reader, 2, *taken.values())
        assert {number: found.takes for number, found in again.items()} == {"damaged": 1, "newer": 1}
        assert len(told) == 4  # the odd one is once more
        await dead.aclose()
        await reader.aclose()

    asyncio.run(run())


@needs_redis
def test_answers_that_cannot_be_read(redis: Redis) -> None:
    """They are answers all the same, so nothing is sent again."""
    told: list[str] = []

    async def run() -> None:
        store = RedisReplays(RedisClient(redis.url), lease=0.05, on_unreadable=told.append)
        for slot, field, value in (("damaged", "reply", "{"), ("newer", "version", "2")):
            claim = Claim(slot, "p", 60)
            assert await begun(store, claim) == "mine"
            assert await store.mark_sent(claim)
            await store.finish(claim, KeptReply(status=200, body="{}", size=2))
            with redis.client() as client:
                client.hset("{imagegate}:key:" + slot, field, value)
            found = await store.begin(Claim(slot, "p", 60))
            assert isinstance(found, KeptReply)
            assert (found.status, found.facts.error_code) == (410, "idempotency_reply_gone")
            assert told.pop() == "{imagegate}:key:" + slot
            with redis.client() as client:
                assert client.hget("{imagegate}:key:" + slot, field) == value.encode()
        await store.aclose()

    asyncio.run(run())


def damage(redis: Redis, key: str, field: str, value: bytes) -> None:
    """Put something into a field; no field: in place of the hash."""
    with redis.client() as client:
        if field:
            client.hset(key, field, value)
        else:
            client.delete(key)
            client.sadd(key, value)


DAMAGE = (("", b"x"), ("version", b"soon"), ("version", b"\xff"), ("takes", b"many"), ("record", b"[" * 100_000))


@needs_redis
@pytest.mark.parametrize(("field", "value"), DAMAGE, ids=[f"{field}-{value[:4]!r}" for field, value in DAMAGE])
def test_no_damage_to_a_task_reaches_its_neighbours(redis: Redis, field: str, value: bytes) -> None:
    """Whatever stands in its place in Redis: they are renewed, ended and taken over, and so is its own end kept."""
    redis.forget()
    key = "{imagegate}:task:damaged"

    async def run() -> None:
        first, second = (RedisTaskStore(RedisClient(redis.url), ttl=60, lease=0.2) for _ in range(2))
        await settled(first, 0.2)
        mine = [record("good"), record("damaged"), record("other")]
        for each in mine:
            await first.add(each)
        damage(redis, key, field, value)
        assert await first.renew(mine) == []
        with contextlib.suppress(TaskUnreadable):
            await second.get("damaged")
        assert await first.finish(mine[1].completed([], {}))
        with redis.client() as client:
            client.delete(key)
        await first.add(mine[1])
        damage(redis, key, field, value)
        taken: dict[str, TaskRecord] = {}
        async with asyncio.timeout(TIMEOUT):
            while not {"good", "other"} <= taken.keys():
                await second.renew(list(taken.values()))
                taken |= {each.number: each for each in await second.abandoned()}
                await asyncio.sleep(0.02)
        assert await second.renew(list(taken.values())) == []
        await first.aclose()
        await second.aclose()

    asyncio.run(run())


@needs_redis
@pytest.mark.parametrize("is_sent", [False, True])
def test_no_damage_to_a_slot_reaches_its_neighbours(redis: Redis, is_sent: bool) -> None:
    """Something else stands in place of a slot: nothing is sent under its key, and others keep their leases; the
    answer of what was sent is kept."""

    async def run() -> None:
        first, second = (RedisReplays(RedisClient(redis.url), lease=3) for _ in range(2))
        claims = [Claim(f"{name} {is_sent}", "p", 60) for name in ("good", "damaged", "other")]
        for claim in claims:
            assert await begun(first, claim) == "mine"
            if is_sent:
                assert await first.mark_sent(claim)
                claim.sent = True
        damage(redis, "{imagegate}:key:" + claims[1].slot, "", b"x")
        for _ in range(6):
            await first.renew(claims)
            await asyncio.sleep(0.1)
        assert await second.begin(Claim(claims[0].slot, "p", 60)) == "elsewhere"
        assert await second.begin(Claim(claims[2].slot, "p", 60)) == "elsewhere"
        found = await second.begin(Claim(claims[1].slot, "p", 60))
        assert isinstance(found, KeptReply)
        assert found.status == 410
        if not is_sent:
            assert not await first.mark_sent(claims[1])
        await first.release(Claim(claims[1].slot, "p", 60))
        reply = KeptReply(status=200, body="{}", size=2)
        await first.finish(claims[1], reply)
        assert await second.begin(Claim(claims[1].slot, "p", 60)) == reply
        await first.aclose()
        await second.aclose()

    asyncio.run(run())


@needs_redis
@pytest.mark.parametrize("field", ["", "seen", "restarted", "made"])
def test_what_is_known_of_a_server_is_damaged(redis: Redis, field: str) -> None:
    """Then it counts as a server that may have forgotten something, and goes on."""
    redis.forget()

    async def run() -> None:
        tasks = RedisTaskStore(RedisClient(redis.url), ttl=60, lease=0.2)
        answers = RedisReplays(RedisClient(redis.url), lease=0.2)
        await settled(tasks, 0.2)
        damage(redis, "{imagegate}:server", field, b"nan")
        await settled(tasks, 0.2)
        await tasks.add(record("one"))
        assert await tasks.mark_sent(record("one"))
        claim = Claim("server " + field, "p", 60)
        assert await begun(answers, claim) == "mine"
        assert await answers.mark_sent(claim)
        await tasks.aclose()
        await answers.aclose()

    asyncio.run(run())


@needs_redis
def test_a_record_that_redis_knows_an_older_one_of(redis: Redis) -> None:
    """As a replica may: a renewal says that it was sent, and which task the provider has made of it."""

    async def run() -> None:
        store = RedisTaskStore(RedisClient(redis.url), ttl=60, lease=0.3)
        await store.add(record("r1"))
        sent = record("r1", state="sent", provider=ProviderTask(upstream="u", id="t"))
        assert await store.renew([sent]) == []
        assert await store.get("r1") == sent
        other = RedisTaskStore(RedisClient(redis.url), ttl=60, lease=0.3)
        await store.add(record("r2"))
        with redis.client() as client:
            client.hset("{imagegate}:task:r2", "holder", "of another process")
        assert await store.renew([record("r2", state="sent")]) == []  # which has not sent it
        assert (await other.get("r2")) == record("r2", state="sent")
        assert await other.renew([record("r2")]) == ["r2"]
        await store.aclose()
        await other.aclose()

    asyncio.run(run())


@needs_redis
def test_ends_that_redis_does_not_know(redis: Redis) -> None:
    """A replica may know what has ended or was given up as still at work: whoever ended it says so again."""
    redis.forget()

    async def run() -> None:
        store = RedisTaskStore(RedisClient(redis.url), ttl=60, lease=0.2)
        replays = RedisReplays(RedisClient(redis.url), lease=0.2)
        claims = [Claim(slot, "p", 60) for slot in ("answered", "refused")]
        for number in ("ended", "discarded"):
            await store.add(record(number))
            assert await store.mark_sent(record(number))
        for claim in claims:
            assert await begun(replays, claim) == "mine"
            assert await replays.mark_sent(claim)
        await store.renew([])
        await replays.renew([])
        with redis.client() as client:
            names = [key for key in client.scan_iter() if client.type(key) == b"hash" and b"server" not in key]
            before = {key: client.hgetall(key) for key in names}
            reply = KeptReply(status=200, body="{}", size=2)
            await store.finish(record("ended").completed([], {}))
            await store.discard(record("discarded"))
            await replays.finish(claims[0], reply)
            await replays.release(claims[1])
            for key, fields in before.items():
                client.delete(key)
                client.hset(key, mapping=fields)
            client.hset("{imagegate}:server", "run", "another")
            assert await store.has_forgotten()
            assert await replays.has_forgotten()
            await store.renew([])
            await replays.renew([])
            assert client.exists("{imagegate}:task:discarded", "{imagegate}:key:refused") == 0
        found = await store.get("ended")
        assert found is not None
        assert found.state == "completed"
        assert await replays.begin(Claim("answered", "p", 60)) == reply
        await settled(store, 0.5)
        assert await store.abandoned() == []
        await store.aclose()
        await replays.aclose()

    asyncio.run(run())


@needs_redis
@pytest.mark.parametrize(
    ("policy", "memory", "warns"),
    [("volatile-lru", "100mb", True), ("allkeys-lru", "0", False), ("noeviction", "1gb", False)],
)
def test_a_redis_that_evicts(
    redis: Redis, caplog: pytest.LogCaptureFixture, policy: str, memory: str, warns: bool
) -> None:
    """The log says so, once for each server."""
    redis.forget()

    async def run() -> None:
        with redis.client() as client:
            client.config_set("maxmemory", memory)
            client.config_set("maxmemory-policy", policy)
        store = RedisTaskStore(RedisClient(redis.url), ttl=60, lease=0.2)
        replays = RedisReplays(RedisClient(redis.url), lease=0.2)
        for _ in range(2):
            await store.renew([])
            await replays.renew([])
        await store.aclose()
        await replays.aclose()

    asyncio.run(run())
    assert sum(policy in line.getMessage() for line in caplog.records) == (2 if warns else 0)


def test_what_a_process_remembers() -> None:
    """The newest items, bounded in number and in bytes, and no longer than they are good for."""
    recent = Recent[str](count=2, size=10)
    for key in "abc":
        recent.add(key, key.upper(), size=1, ttl=60)
    assert [(key, item) for key, item, _ in recent] == [("b", "B"), ("c", "C")]
    recent.add("d", "D", size=9, ttl=60)
    assert [key for key, _, _ in recent] == ["c", "d"]
    recent.add("d", "E", size=2, ttl=-1)
    assert [key for key, _, _ in recent] == ["c"]
    assert (recent.get("c"), recent.get("d"), recent.get("x")) == ("C", None, None)
    recent.add("e", "too large", size=11, ttl=60)
    assert list(recent) == []


def test_memory_makes_room(tmp_path: Path) -> None:
    """Tasks that are over give way to newer ones, those at work never; answers leave the fact behind."""

    async def run() -> None:
        store = MemoryTaskStore(ttl=60, capacity=3)
        for number in "abcde":
            await store.add(record(number))
        for number in "abc":
            assert await store.finish(record(number).completed([], {}))
        assert [bool(await store.get(number)) for number in "abcde"] == [False, False, True, True, True]
        assert not await store.mark_sent(record("a"))
        assert await store.renew([record("d")]) == ()
        assert await store.abandoned() == ()
        await store.release(record("d"))
        await store.aclose()
        assert await store.get("d") is None

        blobs = FileBlobs(tmp_path / "blobs", ttl=60)
        replays = MemoryReplays(blobs, max_bytes=10)
        first = KeptReply(status=200, blob=await blobs.put(pieces_of(b"12345678")), size=8)
        mine = Claim("a", "p", 60)
        assert await replays.begin(mine) == "mine"
        await replays.finish(mine, first)
        assert await replays.begin(mine) == first
        with pytest.raises(KeyReused):
            await replays.begin(Claim("a", "q", 60))
        await replays.finish(Claim("b", "p", 60), KeptReply(status=200, body="12345", size=5))
        gone = await replays.begin(mine)
        assert isinstance(gone, KeptReply)
        assert gone.status == 410
        with pytest.raises(FileNotFoundError):
            await whole(blobs.read(first.blob))
        await replays.aclose()

    asyncio.run(run())


class Slow(FileBlobs):
    """Removes a file when it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ttl=60)
        self.may_remove = asyncio.Event()

    async def remove(self, key: str) -> None:
        await self.may_remove.wait()
        await super().remove(key)


def test_an_answer_that_is_kept_while_its_predecessor_is_removed(tmp_path: Path) -> None:
    """The file of the one that has expired takes its time to go; the new one is kept all the same."""

    async def run() -> None:
        blobs = Slow(tmp_path / "blobs")
        replays = MemoryReplays(blobs, max_bytes=1000)
        key = await blobs.put(pieces_of(b"old"))
        await replays.finish(Claim("a", "p", 0.01), KeptReply(status=200, blob=key, size=3))
        await asyncio.sleep(0.02)
        new = KeptReply(status=200, body="new", size=3)
        other = asyncio.create_task(replays.finish(Claim("b", "p", 60), new))  # expires the first
        await asyncio.sleep(0)
        again = asyncio.create_task(replays.finish(Claim("a", "p", 60), new))
        await asyncio.sleep(0)
        blobs.may_remove.set()
        await asyncio.gather(other, again)
        assert await replays.begin(Claim("a", "p", 60)) == await replays.begin(Claim("b", "p", 60)) == new
        with pytest.raises(FileNotFoundError):
            await whole(blobs.read(key))

    asyncio.run(run())


def test_ends_expire() -> None:
    """After their time."""

    async def run() -> None:
        store = MemoryTaskStore(ttl=0.01)
        await store.add(record("a"))
        await store.finish(record("a").completed([], {}))
        await asyncio.sleep(0.02)
        assert await store.get("a") is None

    asyncio.run(run())


def test_documents() -> None:
    """What clients get of a task in each state."""
    assert document(record("a", progress=40.0))["progress"] == 40.0
    assert public_state(record("a", state="sent")) == "processing"
    error = ImagegateError("No.", code="c")
    shown = document(record("a").failed(error))
    assert (shown["status"], shown["error"]["message"], shown["error"]["imagegate"]["status"]) == ("failed", "No.", 500)
    assert "progress" not in shown


@pytest.mark.parametrize("private", [True, False])
def test_blobs(tmp_path: Path, private: bool) -> None:
    """Whole or not at all; read in pieces; a directory of the process's own goes with it."""

    async def run() -> None:
        blobs = FileBlobs(None if private else tmp_path / "blobs", ttl=60)
        content = bytes(range(256)) * 4000
        key = await blobs.put(pieces_of(content))
        assert await whole(blobs.read(key)) == content

        async def broken() -> Any:
            yield b"a"
            raise OSError("no")

        with pytest.raises(OSError, match="no"):
            await blobs.put(broken())
        home = blobs._home()
        assert [file.name for file in home.iterdir()] == [key]
        for bad in ("../x", "", "a" * 32):
            with pytest.raises(FileNotFoundError):
                await whole(blobs.read(bad))
            await blobs.remove(bad)
        await blobs.remove(key)
        assert list(home.iterdir()) == []
        await blobs.aclose()
        assert home.exists() is not private
        if private:
            shutil.rmtree(home, ignore_errors=True)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("redis://localhost:6379/0", True),
        ("redis://localhost", True),
        ("rediss://:password@host:6379/3", True),
        ("redis://host:port/0", False),
        ("redis://", False),
        ("http://host", False),
        ("redis://host/a", False),
        ("redis://[host", False),
    ],
)
def test_addresses(address: str, good: bool) -> None:
    assert is_redis_url(address) is good
