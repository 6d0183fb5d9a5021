"""When a bucket is left alone, and when it is used again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from tests.waiting import async_until

from imagegate.stores.errors import StoreFull, StoreRefused, StoreTrouble
from imagegate.stores.health import BucketHealth, StoreState


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


class Bucket:
    """Takes probes, or fails them."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        self.probes: list[int] = []
        self.states: list[StoreState] = []
        self.health = BucketHealth(self._probe, failures=3, first_pause=0.01)
        self.health.listen(self.states.append)

    async def _probe(self, size: int) -> None:
        self.probes.append(size)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error

    async def until_usable(self) -> None:
        await async_until(lambda: self.health.state == "usable")


def test_the_first_picture_waits_for_one_probe() -> None:
    bucket = Bucket()

    async def work() -> None:
        await asyncio.gather(*(bucket.health.check() for _ in range(20)))
        await bucket.health.check()
        assert (bucket.probes, bucket.states) == ([1], [])

    run(work())


@pytest.mark.parametrize("error", [StoreRefused("refused"), StoreTrouble("silent"), StoreFull("full")])
def test_a_first_probe_that_fails_keeps_all_pictures_back(error: OSError) -> None:
    """And further ones let them in, as soon as the bucket works."""
    bucket = Bucket()
    bucket.error = error

    async def work() -> None:
        for _ in range(3):
            with pytest.raises(type(error) if isinstance(error, StoreFull) else OSError, match=str(error)):
                await bucket.health.check()
        bucket.error = None
        await bucket.until_usable()
        await bucket.health.check()
        await bucket.health.aclose()

    run(work())
    assert bucket.states == ["full" if isinstance(error, StoreFull) else "unavailable", "usable"]


def test_one_refusal_and_three_troubles() -> None:
    """Trouble counts in a row only; what says nothing of the bucket, such as a cancelled picture, never does."""
    bucket = Bucket()

    async def work() -> None:
        await bucket.health.check()
        for _ in range(2):
            bucket.health.failed(StoreTrouble("503"), 10)
            bucket.health.failed(StoreTrouble("503"), 10)
            bucket.health.failed(OSError("the picture was aborted"), 10)
            bucket.health.worked()
            await bucket.health.check()
        for _ in range(3):
            bucket.health.failed(StoreTrouble("503"), 10)
        with pytest.raises(OSError, match="503"):
            await bucket.health.check()
        await bucket.until_usable()
        bucket.health.failed(StoreRefused("403"), 10)
        with pytest.raises(OSError, match="403"):
            await bucket.health.check()
        await bucket.health.aclose()

    run(work())
    assert bucket.states == ["unavailable", "usable", "unavailable"]


def test_after_one_trouble_nothing_is_bought_without_a_probe() -> None:
    """A bucket that fails from now on has cost one picture, not three."""
    bucket = Bucket()

    async def work() -> None:
        await bucket.health.check()
        bucket.health.failed(StoreTrouble("503"), 10)
        await bucket.health.check()  # it was a single one
        bucket.error = StoreTrouble("504")
        bucket.health.failed(StoreTrouble("503"), 10)
        with pytest.raises(OSError, match="504"):
            await bucket.health.check()
        bucket.error = None
        await bucket.until_usable()
        await bucket.health.aclose()

    run(work())
    assert bucket.states == ["unavailable", "usable"]


def test_a_full_bucket_is_probed_with_as_much_as_it_refused() -> None:
    bucket = Bucket()

    async def work() -> None:
        await bucket.health.check()
        bucket.health.failed(StoreFull("full"), 3_000_000)
        with pytest.raises(StoreFull):
            await bucket.health.check()
        await bucket.until_usable()
        bucket.health.failed(StoreFull("full"), 300_000_000)
        await bucket.until_usable()
        await bucket.health.aclose()

    run(work())
    assert bucket.probes[1:] == [3_000_000, 4 * 1024 * 1024]


def test_another_event_loop_goes_on() -> None:
    """Probes end with their event loop, and another one begins with the next picture."""
    bucket = Bucket()
    bucket.error = StoreRefused("403")

    async def refused() -> None:
        with pytest.raises(OSError, match="403"):
            await bucket.health.check()

    async def again() -> None:
        await refused()
        bucket.error = None
        await bucket.until_usable()
        await bucket.health.aclose()

    run(refused())
    run(again())
    assert bucket.states == ["unavailable", "usable"]
