"""Uploaded files: in memory, on disk, within a budget that always gets back what it gave."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.waiting import async_until

from imagegate.errors import Overloaded
from imagegate.protocol.image_format import PNG, Facts
from imagegate.spool.budget import Budget, SpoolFull
from imagegate.spool.temp_file import FileClosed, KeptFiles, SpoolFile
from imagegate.spool.upload import CHUNK, Upload, UploadClosed

MIB = 1024 * 1024
TOTAL, MEMORY = 64 * MIB, 2 * MIB
PNG_HEAD = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x08\x00\x00\x00\x04\x08\x06\x00\x00\x00" + bytes(8)


@pytest.fixture
def budget() -> Budget:
    """A budget of `TOTAL` bytes, `MEMORY` of them in memory."""
    return Budget(total=TOTAL, memory=MEMORY)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def left(budget: Budget, *, total: int = TOTAL, memory: int = MEMORY) -> tuple[int, int]:
    """Bytes that can still be taken, in all and in memory, found out by taking them."""

    def most(limit: int, fits: Any) -> int:
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        return low

    def fits_total(size: int) -> bool:
        try:
            budget.take(size)
        except Overloaded:
            return False
        budget.give_back(total=size, memory=0)
        return True

    def fits_memory(size: int) -> bool:
        if not budget.take_memory(size):
            return False
        budget.give_back(total=0, memory=size)
        return True

    return most(total * 2, fits_total), most(memory * 2, fits_memory)


def nameless_files() -> int:
    """Temporary files without a name that this process has open, pytest's own among them."""
    folder = tempfile.gettempdir()
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(link)
        except OSError:
            continue
        found += target.startswith(folder) and target.endswith("(deleted)")
    return found


@pytest.fixture
def open_spools() -> Callable[[], int]:
    """Counts the temporary files that have been opened since the test began, and are still open."""
    gc.collect()  # closes what ended loops had kept for a moment
    gc.freeze()  # so that the next test need not look through it again
    before = nameless_files()
    return lambda: nameless_files() - before


async def until_open(open_spools: Callable[[], int], count: int) -> None:
    """Waits until so many temporary files are open: they are closed in threads."""
    await async_until(lambda: open_spools() == count)


async def uploaded(
    content: bytes, budget: Budget, *, step: int = 65_536, head: bytes = PNG_HEAD, held: int = 0
) -> Upload:
    """A whole file, written in pieces."""
    upload = Upload("image", "a.png", "image/png", budget=budget, held=held)
    content = head + content
    for start in range(0, len(content), step):
        await upload.write(content[start : start + step])
    await upload.complete()
    return upload


def content_of(size: int) -> bytes:
    """Bytes that are nowhere the same."""
    return hashlib.shake_128(str(size).encode()).digest(size)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, MIB - 100, MIB, MIB + 1, 5 * MIB + 7])
def test_what_is_written_is_read(budget, size, open_spools):
    """Every byte comes back, as often as it is asked for, in pieces of a bounded size, and then the room does."""

    async def work() -> None:
        content = content_of(size)
        upload = await uploaded(content, budget)
        expected = PNG_HEAD + content
        for _ in range(2):
            pieces = [piece async for piece in upload.chunks()]
            assert expected == b"".join(pieces)
            assert all(0 < len(piece) <= CHUNK for piece in pieces)
        assert expected == await upload.read()
        assert hashlib.sha256(expected).hexdigest() == await upload.sha256()
        assert len(expected) == upload.size
        assert Facts(PNG, 8, 4, True) == upload.facts
        assert TOTAL - len(expected) == left(budget)[0]
        upload.close()

    run(work())
    assert left(budget) == (TOTAL, MEMORY)
    assert open_spools() == 0


def test_small_files_stay_in_memory_until_it_is_used_up(open_spools):
    """Files go to disk when they are large, and when the memory of the budget is taken; the disk is given back too."""
    budget = Budget(total=TOTAL, memory=500_000)

    async def work() -> None:
        small = [await uploaded(content_of(200_000), budget) for _ in range(2)]
        await until_open(open_spools, 0)
        assert 500_000 - sum(upload.size for upload in small) == left(budget, memory=500_000)[1]
        more = await uploaded(content_of(150_000), budget)
        await until_open(open_spools, 1)
        large = await uploaded(content_of(3 * MIB), budget)
        await until_open(open_spools, 2)
        small[0].close()
        assert 500_000 - small[1].size == left(budget, memory=500_000)[1]
        again = await uploaded(content_of(200_000), budget)
        await until_open(open_spools, 2)
        for upload in (*small, more, large, again):
            upload.close()
        await until_open(open_spools, 0)

    run(work())
    assert left(budget, memory=500_000) == (TOTAL, 500_000)


def test_no_file_has_a_name(budget, tmp_path, monkeypatch):
    """Whatever happens to the process, no temporary file stays behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def work() -> None:
        upload = await uploaded(content_of(2 * MIB), budget)
        assert nameless_files() == 1
        assert list(tmp_path.iterdir()) == []
        upload.close()
        await until_open(nameless_files, 0)

    run(work())


def test_beyond_the_budget_nothing_is_taken(budget, open_spools):
    """A piece that does not fit is refused whole, with the time to come again, and the file can still be closed."""

    async def work() -> None:
        upload = Upload("image", "a.png", "", budget=budget)
        await upload.write(bytes(TOTAL - 10))
        with pytest.raises(Overloaded) as caught:
            await upload.write(bytes(11))
        assert caught.value.status == 503
        assert (b"retry-after", b"5") in caught.value.headers
        assert left(budget)[0] == 10
        await upload.write(bytes(10))
        assert left(budget)[0] == 0
        upload.close()

    run(work())
    assert left(budget) == (TOTAL, MEMORY)
    assert open_spools() == 0


def test_closing_twice_gives_back_once(budget):
    """Room is never given back that was not taken."""

    async def work() -> None:
        for size in (10, 3 * MIB):
            upload = await uploaded(content_of(size), budget)
            upload.close()
            upload.close()
            assert left(budget) == (TOTAL, MEMORY)
        never_written = Upload("image", "a.png", "", budget=budget)
        never_written.close()

    run(work())
    assert left(budget) == (TOTAL, MEMORY)


@pytest.mark.parametrize("size", [0, 10, 400_000, MIB - 1, 2 * MIB])
def test_closing_before_the_end_gives_everything_back(budget, size, open_spools):
    """A file that was never complete leaves nothing behind."""

    async def work() -> None:
        upload = Upload("image", "a.png", "", budget=budget)
        await upload.write(content_of(size))
        upload.close()

    run(work())
    assert left(budget) == (TOTAL, MEMORY)
    assert open_spools() == 0


def test_a_full_disk_gives_everything_back(budget, monkeypatch):
    """An upload that the disk does not take is refused, and closing still gives the room back."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)

    async def work() -> None:
        upload = Upload("image", "a.png", "", budget=budget)
        with pytest.raises(SpoolFull, match="disk for uploads is full"):
            await upload.write(bytes(2 * MIB))
        upload.close()

    run(work())
    assert left(budget) == (TOTAL, MEMORY)


@pytest.mark.parametrize("size", [MIB // 2, 4 * MIB])
def test_several_readers_at_a_time(budget, size):
    """Readers do not disturb each other, in memory and on disk."""

    async def work() -> None:
        content = content_of(size)
        upload = await uploaded(content, budget)

        async def slowly(pause: int) -> bytes:
            pieces: list[bytes] = []
            async for piece in upload.chunks():
                pieces.append(piece)
                for _ in range(pause):
                    await asyncio.sleep(0)
            return b"".join(pieces)

        read = await asyncio.gather(*(slowly(pause) for pause in range(8)), upload.read(), upload.sha256())
        expected = PNG_HEAD + content
        assert [expected] * 9 == read[:9]
        assert hashlib.sha256(expected).hexdigest() == read[9]
        upload.close()

    run(work())


@pytest.mark.parametrize("size", [100, CHUNK * 3 + 5, 3 * MIB + 11])
def test_readers_of_a_growing_file_get_all_of_it(budget, size):
    """A reader that began before the file was whole waits for the rest."""

    async def work() -> None:
        content = PNG_HEAD + content_of(size)
        upload = Upload("image", "a.png", "", budget=budget)
        readers = [asyncio.create_task(upload.read()) for _ in range(3)]
        for start in range(0, len(content), 40_000):
            await upload.write(content[start : start + 40_000])
            await asyncio.sleep(0)
            if start == 0:
                readers.append(asyncio.create_task(upload.read()))
        await upload.complete()
        assert [content] * 4 == await asyncio.gather(*readers)
        upload.close()

    run(work())
    assert left(budget) == (TOTAL, MEMORY)


def test_a_file_that_is_given_back_is_never_read_as_whole(budget):
    """A reader that is not done when the file goes gets an error, not an early end."""

    async def work() -> None:
        for grown in (0, 300_000, 2 * MIB):
            upload = Upload("image", "a.png", "", budget=budget)
            await upload.write(content_of(grown))
            reader = asyncio.create_task(upload.read())
            await asyncio.sleep(0)
            upload.close()
            with pytest.raises(UploadClosed):
                await reader
            with pytest.raises(UploadClosed):
                await upload.read()

    run(work())
    assert left(budget) == (TOTAL, MEMORY)


@pytest.mark.parametrize("moment", ["opening", "writing"])
def test_a_cancelled_writer_leaves_nothing(budget, open_spools, monkeypatch, moment):
    """Cancelled while the disk is at work, then closed: the room is given back, and the file is closed, not lost."""
    complaints: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: complaints.append(str(found.exc_value)))
    at_work, go_on = threading.Event(), threading.Event()

    def held(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            at_work.set()
            if threading.current_thread() is not threading.main_thread():
                assert go_on.wait(20)
            return function(*arguments, **options)

        return wrapped

    if moment == "opening":
        monkeypatch.setattr(tempfile, "TemporaryFile", held(tempfile.TemporaryFile))
    else:
        monkeypatch.setattr(os, "writev", held(os.writev))

    async def work() -> None:
        upload = Upload("image", "a.png", "", budget=budget)
        writer = asyncio.create_task(upload.write(bytes(3 * MIB)))
        while not at_work.is_set():
            await asyncio.sleep(0.001)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        later = threading.Timer(0.1, go_on.set)  # closing may wait for the disk, or not
        later.start()
        upload.close()
        later.join()

    run(work())  # joins the thread that was at work
    assert left(budget) == (TOTAL, MEMORY)
    assert open_spools() == 0
    gc.collect()
    assert complaints == []


def test_a_reader_never_sees_another_file(budget):
    """A read that is still waiting for its turn when its file goes must not read what was opened since."""
    secret = b"somebody else's picture"

    async def work() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        upload = await uploaded(content_of(2 * MIB), budget)
        go_on = threading.Event()
        busy = asyncio.create_task(asyncio.to_thread(go_on.wait, 20))
        await asyncio.sleep(0)
        reader = asyncio.create_task(anext(upload.chunks()))
        await asyncio.sleep(0)
        upload.close()
        with tempfile.TemporaryFile(buffering=0) as other:
            other.write(secret)
            go_on.set()
            await busy
            (found,) = await asyncio.gather(reader, return_exceptions=True)
        assert secret != found
        assert isinstance(found, UploadClosed)

    run(work())


def test_the_head_is_known_before_the_end(budget):
    """Facts need the head only, and do not wait for the rest."""

    async def work() -> None:
        upload = Upload("image", "a.png", "image/jpeg", budget=budget)
        known = asyncio.create_task(upload.head_known())
        await upload.write(PNG_HEAD)
        await asyncio.sleep(0)
        assert not known.done()
        assert upload.media_type == "image/jpeg"
        await upload.write(bytes(70_000))
        await known
        assert (Facts(PNG, 8, 4, True), "image/png") == (upload.facts, upload.media_type)
        upload.close()

    run(work())


@pytest.mark.parametrize(
    ("declared", "head", "expected"),
    [
        ("image/png", PNG_HEAD, "image/png"),
        ("image/webp", PNG_HEAD, "image/png"),
        ("application/octet-stream", PNG_HEAD, "image/png"),
        ("", PNG_HEAD, "image/png"),
        ("", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("image/heic", b"\x00\x00\x00\x18ftypheic", "image/heic"),
        ("", b"nothing known", "application/octet-stream"),
        ("text/plain", b"nothing known", "text/plain"),
    ],
)
def test_media_types_come_from_the_bytes(budget, declared, head, expected):
    """What a client says about a file counts only where the file says nothing."""

    async def work() -> None:
        upload = Upload("image", "a", declared, budget=budget)
        await upload.write(head)
        await upload.complete()
        assert expected == upload.media_type
        assert declared == upload.declared_type
        upload.close()

    run(work())


def test_files_that_are_held_go_to_disk_only_where_memory_is_short(open_spools):
    """A file that nobody reads before it is whole waits for its end in memory, if it is small and there is room."""
    budget = Budget(total=TOTAL, memory=4 * MIB)

    async def work() -> None:
        held = [await uploaded(content_of(MIB + MIB // 2), budget, held=2 * MIB) for _ in range(2)]
        await until_open(open_spools, 0)
        too_many = await uploaded(content_of(MIB + MIB // 2), budget, held=2 * MIB)
        await until_open(open_spools, 1)
        held[0].close()
        too_large = await uploaded(content_of(2 * MIB + 1), budget, held=2 * MIB)
        await until_open(open_spools, 2)
        for upload in (held[1], too_many):
            assert await upload.read() == PNG_HEAD + content_of(MIB + MIB // 2)
        assert await too_large.read() == PNG_HEAD + content_of(2 * MIB + 1)
        for upload in (held[1], too_many, too_large):
            upload.close()
        assert budget.coming_in == 0

    run(work())
    assert open_spools() == 0
    assert left(budget, memory=4 * MIB) == (TOTAL, 4 * MIB)


async def held_in_memory(uploads: list[Upload]) -> int:
    """Bytes of files that are still coming in, once the disk has what it was given."""
    await async_until(lambda: not any(upload._saving for upload in uploads))
    return sum(len(piece) for upload in uploads for piece in upload._window)


def test_many_that_are_held_and_stop_half_way_hold_no_more_than_others():
    """Files that wait in memory for their end are many at the same point as those that do not."""

    async def work() -> None:
        budget = Budget(total=1024 * MIB, memory=64 * MIB)
        uploads = [Upload("image", "a.png", "", budget=budget, held=2 * MIB) for _ in range(100)]
        for upload in uploads:
            for _ in range(30):
                await upload.write(bytes(64 * 1024))
        assert await held_in_memory(uploads) <= 16 * MIB + len(uploads) * 2 * 64 * 1024
        for upload in uploads:
            upload.close()
        assert (budget.coming_in, left(budget, total=1024 * MIB, memory=64 * MIB)) == (0, (1024 * MIB, 64 * MIB))

    run(work())


_SIZES = st.sampled_from([0, 1, 1000, 65_536, 300_000, MIB - 1, MIB, 2 * MIB + 3])


_HELD = st.sampled_from([0, MIB, 2 * MIB])


@given(st.lists(st.tuples(st.lists(_SIZES, max_size=4), _HELD, st.booleans(), st.booleans()), max_size=6))
def test_whatever_happens_to_files_the_budget_comes_out_even(files):
    """Any files, complete or not, refused or not, closed in any order: at the end all room is there again."""
    total, memory = 6 * MIB, MIB + MIB // 2
    budget = Budget(total=total, memory=memory)

    async def work() -> None:
        uploads: list[Upload] = []
        for sizes, held, completed, last_first in files:
            upload = Upload("image", "a.png", "", budget=budget, held=held)
            uploads.insert(0 if last_first else len(uploads), upload)
            try:
                for size in sizes:
                    await upload.write(bytes(size))
                if completed:
                    await upload.complete()
            except Overloaded:
                upload.close()
        for upload in uploads:
            upload.close()

    run(work())
    assert (total, memory) == left(budget, total=total, memory=memory)


def test_two_budgets_do_not_mix():
    """Each gateway has its own room."""
    first, second = Budget(total=100, memory=50), Budget(total=100, memory=50)
    first.take(100)
    assert first.take_memory(50)
    assert left(second, total=100, memory=50) == (100, 50)
    with pytest.raises(Overloaded):
        first.take(1)
    assert not first.take_memory(1)


@given(
    st.lists(st.sampled_from([1, 100, 10_000, 65_536, 256_000, CHUNK, CHUNK + 1, MIB, 2 * MIB + 5]), max_size=12),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), max_size=4),
    st.integers(0, 2),
)
def test_readers_at_any_pace_get_every_byte(sizes, readers, pause):
    """Whoever begins when, and lags however far: from memory or from disk, each reader gets the same bytes."""
    budget = Budget(total=TOTAL, memory=MEMORY, kept=TOTAL)
    content = content_of(sum(sizes))

    async def slowly(upload: Upload, rounds: int) -> bytes:
        pieces: list[bytes] = []
        async for piece in upload.chunks():
            assert 0 < len(piece) <= CHUNK
            pieces.append(piece)
            for _ in range(rounds * 5):
                await asyncio.sleep(0)
        return b"".join(pieces)

    async def work() -> None:
        upload = Upload("image", "a.png", "", budget=budget)
        reading: list[asyncio.Task[bytes]] = []
        place = 0
        for number, size in enumerate([*sizes, 0]):
            reading += [asyncio.create_task(slowly(upload, rounds)) for begin, rounds in readers if begin == number]
            await upload.write(content[place : place + size])
            place += size
            for _ in range(pause):
                await asyncio.sleep(0)
        await upload.complete()
        assert [content] * len(reading) == await asyncio.gather(*reading)
        assert content == await upload.read()
        upload.close()

    run(work())
    assert left(budget) == (TOTAL, MEMORY)


def test_memory_stays_flat_whoever_reads(budget):
    """A reader who does not read, and none at all, cost no more memory than one who keeps pace."""

    async def work() -> None:
        for lazy in (True, False):
            upload = Upload("image", "a.png", "", budget=budget)
            reader = upload.chunks()
            if lazy:
                await upload.write(PNG_HEAD)
                await anext(reader)
            for _ in range(200):
                await upload.write(bytes(100_000))
                assert sum(map(len, upload._window)) <= MIB + MIB // 2 + 2 * CHUNK
            await upload.complete()
            assert sum(map(len, upload._window)) <= MIB
            await reader.aclose()
            upload.close()

    run(work())


@pytest.mark.parametrize("with_readers", [False, True], ids=["alone", "with readers"])
def test_many_uploads_that_stop_half_way_hold_little(with_readers):
    """Hundreds of clients who send half a file and then wait do not hold half a megabyte each."""

    async def work() -> None:
        budget = Budget(total=1024 * MIB, memory=16 * MIB)
        uploads = [Upload("image", "a.png", "", budget=budget) for _ in range(400)]
        readers = [upload.chunks() for upload in uploads] if with_readers else []
        for upload in uploads:
            for _ in range(8 if with_readers else 31):  # one batch and a bit would be 500 KiB in memory each
                await upload.write(bytes(16 * 1024))
        for reader in readers:  # who read no further
            assert await anext(reader)
        for upload in uploads if with_readers else ():
            for _ in range(23):
                await upload.write(bytes(16 * 1024))
        assert await held_in_memory(uploads) <= 16 * MIB + len(uploads) * 2 * 64 * 1024
        for upload in uploads[::2]:
            await upload.complete()
        for upload in uploads:
            upload.close()
        assert (budget.coming_in, left(budget, total=1024 * MIB, memory=16 * MIB)) == (0, (1024 * MIB, 16 * MIB))
        for reader in readers:
            await reader.aclose()

    run(work())


@pytest.mark.parametrize("held", [0, 2 * MIB])
def test_short_pieces_do_not_pile_up(budget, held):
    """A client may send byte by byte; each takes fifty of memory, so a few thousand of them are enough."""

    async def main() -> None:
        upload = Upload("image", "a.png", "", budget=budget, held=held)
        most = 0
        for number in range(10_000):
            await upload.write(b"%c" % (number % 256))
            most = max(most, len(upload._window))
        await upload.complete()
        assert most <= 3 * 2048
        assert await upload.read() == bytes(number % 256 for number in range(10_000))
        upload.close()

    run(main())


def test_a_reader_who_keeps_pace_never_asks_the_disk(budget, monkeypatch):
    """What has just been written is read from memory, although it is on disk, too."""

    def never(*_: object) -> bytes:
        raise AssertionError

    monkeypatch.setattr(os, "pread", never)

    async def work() -> None:
        upload = Upload("image", "a.png", "", budget=budget)
        read = 0
        reader = upload.chunks()
        for _ in range(100):
            await upload.write(bytes(100_000))
            read += len(await anext(reader))
        await upload.complete()
        assert read == 100 * 100_000
        assert [piece async for piece in reader] == []
        upload.close()

    run(work())


def test_files_are_written_over(open_spools):
    """The next upload gets the last one's file and never its bytes; large ones and too many are closed."""

    async def work(budget: Budget) -> None:
        for size in (3 * MIB, 2 * MIB, 4 * MIB - 100):
            content = content_of(size)
            upload = await uploaded(content, budget)
            await until_open(open_spools, 1)
            assert PNG_HEAD + content == await upload.read()
            upload.close()
            upload.close()
            await until_open(open_spools, 1)
        several = [await uploaded(content_of(2 * MIB + place), budget) for place in range(12)]
        await until_open(open_spools, 12)
        for upload in several:
            upload.close()
        await until_open(
            open_spools, 6
        )  # one that has held 4 MiB, and those of a little more than 2 MiB that fit beside it
        large = await uploaded(content_of(5 * MIB), budget)
        large.close()
        await until_open(open_spools, 5)

    run(work(Budget(total=TOTAL, memory=MEMORY, kept=16 * MIB, idle=600.0)))
    gc.collect()  # their loop ended before their time was over
    assert open_spools() == 0


def test_files_that_nobody_needs_are_closed(open_spools):
    """A moment after the last one was given back, and again after the next."""

    async def work(budget: Budget) -> None:
        for _ in range(2):
            for upload in [await uploaded(content_of(2 * MIB + place), budget) for place in range(3)]:
                upload.close()
                await asyncio.sleep(0.02)
            await async_until(lambda: not open_spools())

    run(work(Budget(total=TOTAL, memory=MEMORY, kept=16 * MIB, idle=0.05)))


def disk_of_nameless_files() -> int:
    """Bytes on disk of the temporary files without a name that this process has open."""
    folder = tempfile.gettempdir()
    used = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(link)
            if target.startswith(folder) and target.endswith("(deleted)"):
                used += link.stat().st_blocks * 512
    return used


@pytest.mark.parametrize("stay_open", [False, True], ids=["closed", "open"])
def test_files_that_are_written_over_count_as_what_they_hold(stay_open, open_spools):
    """A file stays as large as its largest upload; small ones after it neither hide that nor go beyond the budget."""
    before, kept = disk_of_nameless_files(), 16 * MIB

    async def work(budget: Budget) -> None:
        small: list[Upload] = []
        for _ in range(6):
            large = [await uploaded(content_of(4 * MIB - 100), budget) for _ in range(4)]
            for upload in large:
                upload.close()
            small += [await uploaded(content_of(MIB), budget) for _ in range(4)]
            if not stay_open:
                for upload in small:
                    upload.close()
                small.clear()
        own = sum(upload.size for upload in small)
        most = before + kept + own + len(small) * 64 * 1024
        await async_until(lambda: disk_of_nameless_files() <= most)
        for upload in small:
            upload.close()

    run(work(Budget(total=TOTAL, memory=0, kept=kept)))
    gc.collect()
    assert open_spools() == 0


def test_the_disk_fails_later(budget, monkeypatch, open_spools):
    """An error of the disk comes out of the next write, or at the end."""
    real = os.writev

    def full(*arguments: Any) -> int:
        if os.lseek(arguments[0], 0, os.SEEK_CUR):
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, "writev", full)

    async def work() -> None:
        upload = Upload("image", "a.png", "", budget=budget)
        with pytest.raises(SpoolFull, match="disk for uploads is full"):
            await upload.write(bytes(6 * MIB))
        upload.close()
        upload = Upload("image", "a.png", "", budget=budget)
        await upload.write(bytes(MIB // 2))  # the first batch
        await upload.write(bytes(10))
        with pytest.raises(SpoolFull, match="disk for uploads is full"):
            await upload.complete()
        upload.close()

    run(work())
    assert left(budget) == (TOTAL, MEMORY)
    assert open_spools() == 0


@given(st.lists(st.integers(0, 3000), max_size=1200), st.integers(1, 5000))
@settings(max_examples=30)
def test_whatever_the_kernel_takes_at_a_time_all_is_written(sizes, most):
    """Any number of pieces, and writes that take less than they were given."""
    pieces = [bytes([place % 251]) * size for place, size in enumerate(sizes)]

    def some(file: int, buffers: Any) -> int:
        return os.write(file, b"".join(buffers)[:most])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "writev", some)
        file = SpoolFile(KeptFiles(0))
        file.append(pieces)
    expected = b"".join(pieces)
    if expected:
        assert expected == b"".join(file.read(0, len(expected)))
    file.close()
    with pytest.raises(FileClosed):
        file.read(0, 1)


# Where the disk fails


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which 1 MiB has room in all."""
    real, written = os.writev, 0

    def until_full(*arguments: Any) -> int:
        nonlocal written
        if written >= MIB:
            raise OSError(28, "No space left on device")
        written += (size := real(*arguments))
        return size

    monkeypatch.setattr(os, "writev", until_full)


@pytest.mark.usefixtures("full_disk")
def test_a_result_goes_on_in_memory(open_spools):
    """What was paid for stays in memory where the disk does not take it, within a limit of its own."""
    budget = Budget(total=TOTAL, memory=0, last_resort=8 * MIB)
    content = content_of(4 * MIB)

    async def work() -> None:
        results = budget.results()
        upload = Upload("", "", "", budget=results)
        for start in range(0, len(content), 100_000):
            await upload.write(content[start : start + 100_000])
        await upload.complete()
        assert await upload.read() == content
        assert await upload.read() == content
        assert not budget.take_result_memory(6 * MIB)
        upload.close()
        results.release()
        results = budget.results()
        other = Upload("", "", "", budget=results)
        with pytest.raises(SpoolFull):
            await other.write(bytes(10 * MIB))
        other.close()
        results.release()

    run(work())
    assert left(budget, memory=0) == (TOTAL, 0)
    assert budget.take_result_memory(8 * MIB)
    assert open_spools() == 0


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("readers", [1, 3])
def test_a_recording_forgets_what_has_been_read(readers, open_spools):
    """Where the disk fails, those who read get all of it, and hardly any of it is in memory at a time."""
    budget = Budget(total=TOTAL, memory=0)
    content = content_of(12 * MIB)

    async def work() -> None:
        upload = Upload("", "", "", budget=budget, forgets=True)
        upload.expect_readers(readers)
        reading = [asyncio.create_task(upload.read()) for _ in range(readers)]
        most = 0
        for start in range(0, len(content), 100_000):
            await upload.write(content[start : start + 100_000])
            most = max(most, budget.coming_in)
        await upload.complete()
        assert all(read == content for read in await asyncio.gather(*reading))
        assert upload.has_forgotten
        assert most < 3 * MIB
        upload.expect_readers(-readers)
        with pytest.raises(UploadClosed):
            await upload.read()
        upload.close()

    run(work())
    assert budget.coming_in == 0
    assert open_spools() == 0


@pytest.mark.usefixtures("full_disk")
def test_a_recording_waits_for_its_reader_and_not_for_one_who_has_gone():
    """A slow reader slows the writer down; nobody does when all have left."""
    budget = Budget(total=TOTAL, memory=0)

    async def work() -> None:
        upload = Upload("", "", "", budget=budget, forgets=True)
        upload.expect_readers(1)
        pieces = upload.chunks()
        await upload.write(bytes(100))
        assert len(await anext(pieces)) == 100
        writing = asyncio.create_task(upload.write(bytes(12 * MIB)))
        done, _ = await asyncio.wait([writing], timeout=0.2)
        assert not done
        assert budget.coming_in < 3 * MIB
        await pieces.aclose()
        upload.expect_readers(-1)
        await writing
        assert budget.coming_in < MIB
        upload.close()

    run(work())
