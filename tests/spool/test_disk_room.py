"""Room on a disk that is promised before anything is written there."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from imagegate.errors import Overloaded
from imagegate.spool.budget import Budget
from imagegate.spool.disk_room import DiskFull, DiskRoom, bytes_free
from imagegate.spool.upload import Upload

MIB = 1024 * 1024


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


class Disk:
    """A disk of 10 MiB, and the clock that tells how old a look at it is."""

    def __init__(self, free: float = 10 * MIB) -> None:
        self.free = free
        self.looks = 0
        self.now = 0.0
        self.threads: set[threading.Thread] = set()
        self.room = DiskRoom(lambda: "/", free=self._look, clock=lambda: self.now)

    def _look(self, _: str | Path) -> float:
        self.looks += 1
        self.threads.add(threading.current_thread())
        return self.free


def test_no_more_is_promised_than_is_free() -> None:
    disk = Disk()

    async def work() -> None:
        first = await disk.room.reserve(6 * MIB)
        with pytest.raises(DiskFull):
            await disk.room.reserve(5 * MIB)
        second = await disk.room.reserve(4 * MIB)
        assert disk.room.reserved == 10 * MIB
        for _ in range(3):
            first.release()
        assert disk.room.reserved == 4 * MIB
        await disk.room.reserve(6 * MIB)
        with pytest.raises(DiskFull):
            await disk.room.reserve(1)
        second.release()

    run(work())


def test_what_was_written_counts_at_once() -> None:
    """A reservation that has been released may have filled its room, so that counts until the next look."""
    disk = Disk()

    async def work() -> None:
        reservation = await disk.room.reserve(6 * MIB)
        disk.free -= 6 * MIB
        reservation.release()
        with pytest.raises(DiskFull):
            await disk.room.reserve(5 * MIB)
        (await disk.room.reserve(4 * MIB)).release()

        disk.now = 2.0
        (await disk.room.reserve(4 * MIB)).release()
        disk.room.note_written(4 * MIB)
        with pytest.raises(DiskFull):
            await disk.room.reserve(5 * MIB)
        disk.free -= 3 * MIB
        disk.now = 4.0
        (await disk.room.reserve(MIB)).release()

    run(work())


def test_looks_are_rare_and_in_threads() -> None:
    """While there is room, the disk is looked at once a second at most, and never by the event loop's own thread."""
    disk = Disk()

    async def work() -> None:
        for _ in range(100):
            (await disk.room.reserve(10_000)).release()
        assert disk.looks == 1
        disk.now = 2.0
        for reservation in await asyncio.gather(*(disk.room.reserve(1000) for _ in range(20))):
            reservation.release()
        assert disk.looks == 2
        with pytest.raises(DiskFull):
            await disk.room.reserve(11 * MIB)
        disk.free = 20 * MIB
        (await disk.room.reserve(11 * MIB)).release()

    run(work())
    assert threading.current_thread() not in disk.threads


def test_a_look_that_fails_fails_all_who_wait() -> None:
    def broken(_: str | Path) -> float:
        raise OSError("the directory cannot be written to")

    async def work() -> None:
        room = DiskRoom(lambda: "/", free=broken)
        results = await asyncio.gather(*(room.reserve(1) for _ in range(5)), return_exceptions=True)
        assert {str(result) for result in results} == {"the directory cannot be written to"}
        assert room.reserved == 0

    run(work())


def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert bytes_free(tmp_path / "a" / "b") == pytest.approx(bytes_free(tmp_path), rel=0.1)


# The budget


def test_uploads_take_a_part_only() -> None:
    """However many uploads stop half way, results find room."""
    budget = Budget(total=100, memory=0, uploads=0.75)
    budget.take(75)
    with pytest.raises(Overloaded):
        budget.take(1)
    results = budget.results()
    results.take(25)
    results.take(1)  # it is paid for
    budget.give_back(total=75, memory=0)
    results.take(75)
    with pytest.raises(Overloaded):
        budget.take(1)
    results.give_back(total=101, memory=0)
    results.release()
    budget.take(75)


def test_what_is_reserved_is_there() -> None:
    """A reservation is used up before the rest, is used again by the next picture, and is given back once."""
    budget = Budget(total=100, memory=0, disk=Disk().room)

    async def work() -> None:
        results = budget.results()
        assert await results.reserve(60)
        with pytest.raises(Overloaded):
            budget.take(41)
        for _ in range(3):
            results.take(60)
            results.give_back(total=60, memory=0)
        results.take(70)
        budget.take(30)
        assert not await budget.results().reserve(1)
        for _ in range(2):
            results.release()
        results.give_back(total=70, memory=0)
        budget.take(70)
        with pytest.raises(Overloaded):
            budget.take(1)

    run(work())


def test_without_room_on_disk_memory_is_reserved() -> None:
    """Where the disk is full, so much is promised as may stay in memory."""
    disk = Disk(free=0)
    budget = Budget(total=10 * MIB, memory=0, last_resort=2 * MIB, disk=disk.room)

    async def work() -> None:
        first, second = budget.results(), budget.results()
        assert await first.reserve(MIB)
        assert await second.reserve(MIB)
        assert not await budget.results().reserve(1)
        assert second.take_last_resort(MIB)
        assert not second.take_last_resort(1)
        first.release()
        assert second.take_last_resort(1)
        second.release()
        second.give_back_last_resort(MIB + 1)
        assert await budget.results().reserve(2 * MIB)

    run(work())


def test_an_upload_leaves_promised_room_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that has little left, an upload is refused before it takes what is promised to a result."""
    frees = itertools.chain([3 * MIB], itertools.repeat(2 * MIB))
    monkeypatch.setattr("imagegate.spool.budget.free_behind", lambda _: next(frees))
    budget = Budget(total=100 * MIB, memory=0, disk=Disk().room)

    async def work() -> None:
        results = budget.results()
        assert await results.reserve(2 * MIB)
        upload = Upload("image", "a.png", "", budget=budget)
        with pytest.raises(Overloaded, match="disk for uploads is full"):
            await upload.write(bytes(4 * MIB))
        upload.close()
        results.release()

    run(work())


def test_the_room_of_a_budget_is_that_of_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asked: list[str | Path] = []
    monkeypatch.setattr("imagegate.spool.disk_room.bytes_free", lambda folder: asked.append(folder) or 10.0)
    assert run(Budget(total=100, memory=0).results().reserve(5))
    assert asked == [str(tmp_path)]
