"""Stored keys in a running gateway: remembered for so long, looked up together, and bounded for strangers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Mapping

import pytest

from imagegate import Limits
from imagegate.access.host import AccessUnavailable
from imagegate.access.stored_key import KeySettings, StoredKey, hash_of, new_key
from imagegate.access.stored_keys import StoredKeys


class Table:
    """A table that counts the questions."""

    def __init__(self) -> None:
        self.keys: dict[str, StoredKey] = {}
        self.asked: list[Collection[str]] = []
        self.threads: set[int] = set()
        self.failure: Exception | None = None

    def add(self, name: str, **facts: object) -> bytes:
        key = new_key().encode()
        more = {"prefix": "", "settings": KeySettings(), "created": 0, **facts}
        self.keys[hash_of(key)] = StoredKey(id=f"key_{name}", name=name, **more)  # type: ignore[arg-type]
        return key

    def look_up(self, hashes: Collection[str], now: float) -> Mapping[str, StoredKey]:
        self.asked.append(hashes)
        self.threads.add(threading.get_ident())
        if self.failure is not None:
            raise self.failure
        return {hash_: self.keys[hash_] for hash_ in hashes if hash_ in self.keys}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(table: Table, clock: Clock, *, most: Mapping[str, int] | None = None, **groups: Limits) -> StoredKeys:
    return StoredKeys(table.look_up, lifetime=5.0, groups=groups, clock=clock, **(most or {}))


def test_an_answer_is_remembered_for_its_lifetime() -> None:
    table, clock = Table(), Clock()
    key, stranger = table.add("alice"), new_key().encode()

    async def run() -> None:
        keys = made(table, clock)
        assert keys.known(key) is None
        for moment, asked in ((1000.0, 2), (1004.9, 2), (1005.0, 4)):
            clock.now = moment
            holder = keys.known(key) or await keys.find(key)
            assert holder is not None
            assert holder.name == "alice"
            assert await keys.find(stranger) is None
            assert len(table.asked) == asked
        table.keys.clear()  # revoked
        clock.now = 1010.0
        assert keys.known(key) is None
        assert await keys.find(key) is None
        keys.close()

    asyncio.run(run())
    assert threading.get_ident() not in table.threads
    assert len(table.threads) == 1


def test_a_key_that_ends_is_not_remembered_beyond_its_end() -> None:
    table, clock = Table(), Clock()
    key = table.add("alice", expires=1002)

    async def run() -> None:
        keys = made(table, clock)
        assert await keys.find(key) is not None
        clock.now = 1001.9
        assert keys.known(key) is not None
        clock.now = 1002.0
        assert keys.known(key) is None

    asyncio.run(run())


def test_many_strangers_are_one_question() -> None:
    """However many come at once, there is one question at a time, of a bounded size; beyond that they are told so."""
    table, clock = Table(), Clock()
    key = table.add("alice")

    async def run() -> None:
        keys = made(table, clock, most={"waiting": 1200})
        strangers = [asyncio.create_task(keys.find(new_key().encode())) for _ in range(1199)]
        own = [asyncio.create_task(keys.find(key)) for _ in range(50)]
        late = asyncio.create_task(keys.find(new_key().encode()))
        with pytest.raises(AccessUnavailable):
            await late
        assert await asyncio.gather(*strangers) == [None] * 1199
        assert {holder.name for holder in await asyncio.gather(*own) if holder} == {"alice"}

    asyncio.run(run())
    assert len(table.asked) <= 4
    assert max(map(len, table.asked)) <= 500


def test_strangers_crowd_out_strangers_only() -> None:
    table, clock = Table(), Clock()
    key = table.add("alice")

    async def run() -> None:
        keys = made(table, clock, most={"remembered": 10})
        await keys.find(key)
        await asyncio.gather(*(keys.find(new_key().encode()) for _ in range(50)))
        assert keys.known(key) is not None

    asyncio.run(run())


@pytest.mark.parametrize(
    "text", [b"", b"sk-ig-short", b"sk-" + b"a" * 48, b"sk-ig-" + b"a" * 42 + b"\n", b"x" * 10_000]
)
def test_what_is_no_key_is_not_looked_up(text: bytes) -> None:
    table = Table()
    assert asyncio.run(made(table, Clock()).find(text)) is None
    assert table.asked == []


def test_a_failure_is_told_and_not_remembered(caplog: pytest.LogCaptureFixture) -> None:
    table, clock = Table(), Clock()
    key = table.add("alice")
    table.failure = OSError("postgresql://user:password@host")

    async def run() -> None:
        keys = made(table, clock)
        results = await asyncio.gather(*(keys.find(key) for _ in range(3)), return_exceptions=True)
        assert {type(result) for result in results} == {AccessUnavailable}
        table.failure = None
        assert await keys.find(key) is not None

    asyncio.run(run())
    assert "password" not in caplog.text


def test_an_unknown_group_lets_nobody_in() -> None:
    """Its limits are not known, so that none would hold."""
    table, clock = Table(), Clock()
    key = table.add("alice", settings=KeySettings(groups=("gone",)))
    other = table.add("bob", settings=KeySettings(groups=("team",)))

    async def run() -> None:
        keys = made(table, clock, team=Limits(in_flight=1))
        results = await asyncio.gather(keys.find(key), keys.find(other), return_exceptions=True)
        assert isinstance(results[0], AccessUnavailable)
        assert not isinstance(results[1], BaseException | None)
        assert results[1].groups == {"team": Limits(in_flight=1)}

    asyncio.run(run())


def test_another_event_loop() -> None:
    """What was remembered stays; whoever waited in a loop that has ended is forgotten."""
    table, clock = Table(), Clock()
    key = table.add("alice")
    keys = made(table, clock)

    async def leaves() -> None:
        waiting = asyncio.create_task(keys.find(key))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(leaves())
    keys.enter_loop()
    assert asyncio.run(asyncio.wait_for(keys.find(key), 5)) is not None
    keys.enter_loop()
    assert keys.known(key) is not None
