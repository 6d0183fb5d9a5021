"""Task stores and stores of answers do as a model of them does: in memory and, where it is installed, in Redis."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.keeping_support import Redis, redis_server

from imagegate.errors import ImagegateError
from imagegate.idempotency.base import ReplaysUnavailable
from imagegate.idempotency.keys import KeptReply, KeyReused
from imagegate.idempotency.memory import MemoryReplays
from imagegate.idempotency.redis import RedisReplays
from imagegate.stores.blobs import FileBlobs, pieces_of, whole
from imagegate.stores.redis_client import RedisClient, is_redis_url
from imagegate.stores.unavailable import StoreUnavailable
from imagegate.tasks.base import TaskStore
from imagegate.tasks.memory import MemoryTaskStore
from imagegate.tasks.outcomes import cancelled, interrupted
from imagegate.tasks.records import TaskRecord, document, may_become, public_state
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


@needs_redis
def test_redis_keeps_to_the_states(redis: Redis) -> None:
    """The same, step by step, in Lua."""
    numbers = iter(range(10**6))

    @settings(max_examples=60)
    @given(STEPS)
    def property_of(steps: list[str]) -> None:
        async def run() -> list[Any]:
            store = RedisTaskStore(RedisClient(redis.url), ttl=60, lease=30)
            try:
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
        first, second = (RedisTaskStore(RedisClient(redis.url), ttl=60, lease=0.2) for _ in range(2))
        one, two, three = record("d1"), record("d2"), record("d3", callback_url="https://example.com")
        for each in (one, two, three):
            await first.add(each)
        assert await first.mark_sent(two)
        assert await first.cancel(three.failed(cancelled()))  # somebody must still tell its end
        assert not await second.mark_sent(one)
        assert [found.number for found in await second.abandoned()] == ["d3"]
        await asyncio.sleep(0.15)
        assert await first.renew([one, two]) == []
        await asyncio.sleep(0.15)
        assert await second.renew([three]) == []
        assert await second.abandoned() == []
        await asyncio.sleep(0.1)
        assert await second.renew([three]) == []
        await asyncio.sleep(0.1)
        taken = {found.number: found for found in await second.abandoned()}
        assert {number: found.state for number, found in taken.items()} | {"d3": "failed"} == {
            "d1": "queued",
            "d2": "sent",
            "d3": "failed",
        }
        assert taken["d1"].takes == 1
        assert not await first.mark_sent(one)
        assert not await first.finish(two.completed([], {}))
        assert await first.renew([one, two]) == ["d1", "d2"]
        assert await second.mark_sent(one)
        assert await second.finish(one.completed([], {}))
        assert await second.finish(two.failed(interrupted()))
        await second.finish(TaskRecord(**{**_members(three.failed(cancelled())), "told": True}))
        await asyncio.sleep(0.3)
        assert await first.abandoned() == []
        await first.add(record("d4"))
        await first.release(record("d4"))
        assert [found.number for found in await second.abandoned()] == ["d4"]
        await first.aclose()
        await second.aclose()

    asyncio.run(run())


def _members(found: TaskRecord) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__struct_fields__}


@needs_redis
def test_redis_that_lost_its_memory(redis: Redis) -> None:
    """Who holds a task says so again."""

    async def run() -> None:
        store = RedisTaskStore(RedisClient(redis.url), ttl=60, lease=30)
        held = record("m1")
        await store.add(held)
        redis.stop()
        with pytest.raises(StoreUnavailable):
            await store.get("m1")
        redis.start()
        assert await store.get("m1") is None
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


@needs_redis
def test_slots_in_redis(redis: Redis) -> None:
    """Held, sent, done; a dead holder's slot is free before it has sent, and told of as uncertain afterwards."""

    async def run() -> None:
        first, second = (RedisReplays(RedisClient(redis.url), lease=0.8) for _ in range(2))
        reply = KeptReply(status=200, body="{}", size=2)
        assert await first.begin("a", "p", ttl=60) == "mine"
        assert await first.begin("a", "p", ttl=60) == "mine"  # asked again after a broken connection
        assert await second.begin("a", "p", ttl=60) == "elsewhere"
        with pytest.raises(KeyReused):
            await second.begin("a", "q", ttl=60)
        assert not await second.mark_sent("a", "p", ttl=60)
        assert await first.mark_sent("a", "p", ttl=60)
        await first.finish("a", "p", reply, ttl=60)
        assert await second.begin("a", "p", ttl=60) == reply
        await second.release("a")
        assert await second.begin("a", "p", ttl=60) == reply

        assert await first.begin("b", "p", ttl=60) == "mine"
        await asyncio.sleep(0.4)
        await first.renew(["b"])
        await asyncio.sleep(0.6)
        assert await second.begin("b", "p", ttl=60) == "elsewhere"
        await asyncio.sleep(0.6)
        assert await second.begin("b", "q", ttl=60) == "mine"
        assert not await first.mark_sent("b", "p", ttl=60)
        await second.release("b")
        assert await first.begin("b", "p", ttl=60) == "mine"

        assert await first.mark_sent("b", "p", ttl=60)
        await asyncio.sleep(0.4)
        await first.renew(["b"])
        await asyncio.sleep(0.6)
        assert await second.begin("b", "p", ttl=60) == "elsewhere"
        await asyncio.sleep(0.6)
        found = await second.begin("b", "p", ttl=60)
        assert isinstance(found, KeptReply)
        assert (found.status, found.facts.outcome) == (502, "uncertain")
        await first.finish("b", "p", reply, ttl=60)
        assert await second.begin("b", "p", ttl=60) == found
        await first.aclose()
        await second.aclose()
        gone = RedisReplays(RedisClient("redis://127.0.0.1:1/0"), lease=1)
        with pytest.raises(ReplaysUnavailable):
            await gone.begin("a", "p", ttl=60)
        await gone.aclose()

    asyncio.run(run())


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
        assert await replays.begin("a", "p", ttl=60) == "mine"
        await replays.finish("a", "p", first, ttl=60)
        assert await replays.begin("a", "p", ttl=60) == first
        with pytest.raises(KeyReused):
            await replays.begin("a", "q", ttl=60)
        await replays.finish("b", "p", KeptReply(status=200, body="12345", size=5), ttl=60)
        gone = await replays.begin("a", "p", ttl=60)
        assert isinstance(gone, KeptReply)
        assert gone.status == 410
        with pytest.raises(FileNotFoundError):
            await whole(blobs.read(first.blob))
        await replays.aclose()

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
