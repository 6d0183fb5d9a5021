"""What has expired goes, although no request comes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from tests.waiting import async_until

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.protocol.image_format import BY_EXTENSION
from imagegate.stores.base import put
from imagegate.stores.keys import new_key
from imagegate.stores.memory import MemoryStore
from imagegate.stores.sweeping import Sweeper


def old(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"old")
    os.utime(path, (time.time() - 3600, time.time() - 3600))
    return path


def test_an_idle_gateway_removes_what_has_expired(tmp_path: Path) -> None:
    """Pictures and kept replies of an earlier process, before any request has come."""
    images = tmp_path / "images"
    picture, blob = old(images / new_key(BY_EXTENSION["png"])), old(images / ".blobs" / ("a" * 32))
    young, other = images / new_key(BY_EXTENSION["png"]), old(images / "notes.txt")
    young.write_bytes(b"young")
    document = f"""
        [[upstreams]]
        name = "openai"
        api_key = "sk-upstream"
        [delivery]
        store = "file://{images}"
        link_ttl = "60s"
        [tasks]
        ttl = "60s"
        [idempotency]
        ttl = "60s"
    """

    async def run() -> None:
        async with ImageGateway(config=parse_config(document), hooks=()):
            await async_until(lambda: not picture.exists() and not blob.exists())

    asyncio.run(run())
    assert (young.exists(), other.exists()) == (True, True)


def test_sweeps_go_on_and_do_not_keep_each_other() -> None:
    """One that fails runs again, and the others run all the same."""
    runs = [0, 0]

    async def good() -> None:
        runs[0] += 1

    async def bad() -> None:
        runs[1] += 1
        raise OSError("the store cannot be reached")

    async def run() -> None:
        sweeper = Sweeper((bad, good), pause=0.01)
        sweeper.start()
        await async_until(lambda: min(runs) > 3)
        await sweeper.aclose()
        ended = list(runs)
        await asyncio.sleep(0.05)
        assert runs == ended

    asyncio.run(run())


def test_memory_gives_expired_pictures_back() -> None:
    class Clock:
        ahead = 0.0

        def time(self) -> float:
            return time.time() + self.ahead

        def monotonic(self) -> float:
            return time.monotonic() + self.ahead

    clock = Clock()
    store = MemoryStore(ttl=60, clock=clock)

    async def run() -> None:
        key = await put(store, b"picture", BY_EXTENSION["png"])
        await store.sweep()
        assert await store.response(key) is not None
        clock.ahead = 61
        await store.sweep()
        assert await store.response(key) is None

    asyncio.run(run())
