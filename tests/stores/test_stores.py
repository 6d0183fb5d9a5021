"""Stores and links by themselves: what is kept, for how long, under which names, and who may load it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import io
import itertools
import os
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message

from imagegate.config.schema import DeliveryConfig
from imagegate.config.store_factory import open_store
from imagegate.errors import ConfigError
from imagegate.protocol.image_format import BY_EXTENSION, GIF, JPEG, PNG, SVG, ImageFormat, sniff
from imagegate.stores import FileStore, Links, MemoryStore, PictureWriter, ServedStore, StoreFull, new_key, put_stream
from imagegate.stores import put as put_async
from imagegate.stores.file import FileWriter
from imagegate.stores.keys import is_key
from imagegate.stores.overflow import DEFAULT_OVERFLOW

CONTENT = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def put(store: ServedStore, content: bytes = CONTENT, kind: ImageFormat = PNG) -> str:
    return asyncio.run(put_async(store, content, kind))


def served(
    store: ServedStore, key: str, *, headers: Sequence[tuple[bytes, bytes]] = ()
) -> tuple[int, dict[str, str], bytes] | None:
    """Status, headers and body of what the store answers for a key; None: it has no such key."""

    async def run() -> tuple[int, dict[str, str], bytes] | None:
        app = await store.response(key)
        if app is None:
            return None
        sent: list[Message] = []

        async def receive() -> Message:
            return await asyncio.Future()

        async def send(message: Message) -> None:
            sent.append(message)

        await app({"type": "http", "method": "GET", "headers": list(headers), "path": f"/images/{key}"}, receive, send)
        answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], answered, b"".join(message.get("body", b"") for message in sent[1:])

    return asyncio.run(run())


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> ServedStore:
    if request.param == "memory":
        return MemoryStore(ttl=60, clock=clock)
    return FileStore(tmp_path / "below" / "images", ttl=60, clock=clock)


class Clock:
    """Tells the time as stores are told it, as far ahead of the true one as a test wants."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock() -> Clock:
    """Of the fixture `store` too."""
    return Clock()


# What every store does


@pytest.mark.parametrize("kind", BY_EXTENSION.values(), ids=BY_EXTENSION)
def test_serves_what_was_put(store: ServedStore, kind: ImageFormat) -> None:
    """A picture comes back byte by byte, under its own media type, as nothing but a picture."""
    key = put(store, CONTENT, kind)
    answer = served(store, key)
    assert answer is not None
    status, headers, body = answer
    assert (200, CONTENT, kind.media_type) == (status, body, headers["content-type"])
    assert str(len(CONTENT)) == headers["content-length"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    assert headers["cross-origin-resource-policy"] == "cross-origin"
    assert headers["cache-control"] == "private, max-age=60, immutable"


@pytest.mark.parametrize("ranges", ["0-9", "0-9,20-29", "-5", "0-9,100-109,200-"])
def test_lengths_of_ranges(tmp_path: Path, ranges: str) -> None:
    """What is announced is sent, for several ranges too, or the server would hang up in the middle."""
    store = FileStore(tmp_path, ttl=60)
    found = served(store, put(store), headers=[(b"range", f"bytes={ranges}".encode())])
    assert found is not None
    status, headers, body = found
    assert (206, str(len(body))) == (status, headers["content-length"])


def test_names_cannot_be_guessed(store: ServedStore) -> None:
    """Every picture has a name of its own with 192 random bits, also the same picture twice."""
    keys = {put(store) for _ in range(20)}
    assert len(keys) == 20
    assert all(is_key(key) and key.endswith(".png") and len(key) == 36 for key in keys)


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".",
        "..",
        "../secret.png",
        "..%2fsecret.png",
        "/etc/passwd",
        ".link-secret",
        "A" * 32,
        "A" * 32 + ".png",
        "A" * 31 + ".png",
        "A" * 33 + ".png",
        "A" * 32 + ".exe",
        "A" * 32 + ".PNG",
        "A" * 32 + ".png.partial",
        "A" * 32 + ".png\n",
        "A" * 31 + "\0.png",
        "A" * 31 + "/.png",
        "\uff21" * 32 + ".png",
        "x" * 10_000,
    ],
    ids=repr,
)
def test_unknown_keys(store: ServedStore, key: str) -> None:
    """What is no key of the store has no picture, whatever it spells."""
    put(store)
    assert served(store, key) is None


def test_many_puts_at_once(store: ServedStore) -> None:
    """Pictures that are put at the same time are all kept."""

    async def run() -> list[str]:
        return await asyncio.gather(*(put_async(store, bytes([number]) * 1000, PNG) for number in range(50)))

    keys = asyncio.run(run())
    bodies = [answer[2] for key in keys if (answer := served(store, key))]
    assert [bytes([number]) * 1000 for number in range(50)] == bodies


def test_links_of_a_store(store: ServedStore, clock: Clock) -> None:
    """A store signs links to its pictures, which hold for ``ttl`` seconds and for one picture each."""
    key = put(store)
    link = asyncio.run(store.link(key, "https://cdn.example.com/images/"))
    assert link.startswith(f"https://cdn.example.com/images/{key}?expires=")
    assert store.holds(key, query_of(link))
    assert not store.holds(new_key(PNG), query_of(link))
    clock.ahead = 61
    assert not store.holds(key, query_of(link))


@pytest.mark.parametrize("address", ["file://{folder}", "memory://"])
def test_link_secret_of_the_operator(address: str, tmp_path: Path) -> None:
    """Links that a configured secret signed hold wherever it is the same; when it is changed, they do not any more."""

    def opened(secret: str) -> ServedStore:
        store = open_store(DeliveryConfig(store=address.format(folder=tmp_path), link_secret=secret))
        assert isinstance(store, ServedStore)
        return store

    query = query_of(asyncio.run(opened("one").link("KEY.png", "")))
    assert (opened("one").holds("KEY.png", query), opened("two").holds("KEY.png", query)) == (True, False)
    assert list(tmp_path.iterdir()) == []


# Writers


PIECES = st.lists(
    st.binary(max_size=3) | st.sampled_from([bytes(400_000), b"x" * 1_048_576, bytes(1_200_000)]), max_size=8
)


@settings(max_examples=25)
@given(pieces=PIECES)
def test_written_in_pieces(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    """However a picture is cut, what comes back is the whole of it."""
    for store in (FileStore(tmp_path_factory.mktemp("pieces"), ttl=60), MemoryStore(ttl=60)):

        async def chunks() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        key = asyncio.run(put_stream(store, chunks(), PNG))
        answer = served(store, key)
        assert answer is not None
        assert answer[2] == b"".join(pieces)


@pytest.mark.parametrize("sizes", [(), (10,), (1_200_000,), (1_200_000, 10)], ids=str)
def test_aborted(store: ServedStore, tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """A picture that is aborted leaves nothing, however much of it was written and however often one aborts."""

    async def run() -> None:
        writer = await store.writer(PNG)
        for size in sizes:
            await writer.write(bytes(size))
        await writer.abort()
        await writer.abort()

    asyncio.run(run())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_abort_after_commit_takes_it_back(store: ServedStore, tmp_path: Path) -> None:
    """A picture that was stored for an answer which then failed can be had by nobody; others stay."""

    async def run() -> str:
        writer = await store.writer(PNG)
        await writer.write(CONTENT)
        key = await writer.commit()
        await writer.abort()
        await writer.abort()
        return key

    other = put(store)
    assert served(store, asyncio.run(run())) is None
    assert served(store, other) is not None


def test_cannot_be_had_before_commit(store: ServedStore, tmp_path: Path) -> None:
    """A picture that is not yet whole is in no place from which it could be served."""

    async def run() -> None:
        writer = await store.writer(PNG)
        await writer.write(bytes(1_200_000))
        assert [path for path in tmp_path.rglob("*") if is_key(path.name)] == []
        key = await writer.commit()
        assert await store.response(key) is not None

    asyncio.run(run())


def test_a_source_that_fails(store: ServedStore, tmp_path: Path) -> None:
    """Where what is being stored breaks off, its error goes on and nothing stays."""

    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(1_200_000)
        raise LookupError("gone")

    with pytest.raises(LookupError):
        asyncio.run(put_stream(store, chunks(), PNG))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


class UpstreamLimiter:
    """Holds the threads of a `FileStore` at one of their system calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        original = getattr(FileWriter, method)

        def held(writer: FileWriter, *data: Any) -> Any:
            result = original(writer, *data)
            self.reached.set()
            assert self.opened.wait(10)
            return result

        monkeypatch.setattr(FileWriter, method, held)


@pytest.mark.parametrize("method", ["append", "finish"])
def test_cancelled_while_a_thread_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """A caller that is cancelled, even twice, leaves nothing, although the thread that wrote went on for a while."""
    store = FileStore(tmp_path, ttl=60)
    gate = UpstreamLimiter(monkeypatch, method)

    async def run() -> None:
        task = asyncio.create_task(put_async(store, bytes(1_200_000), PNG))
        await asyncio.to_thread(gate.reached.wait, 10)
        task.cancel()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(list(tmp_path.iterdir())) == 1
        gate.opened.set()

    asyncio.run(run())  # waits for the threads
    assert list(tmp_path.iterdir()) == []


def test_aborted_before_its_turn(tmp_path: Path) -> None:
    """A thread that comes to its turn only after the picture was aborted begins nothing."""

    async def run() -> None:
        writer = await FileStore(tmp_path, ttl=60).writer(PNG)
        with writer._lock:
            writing = asyncio.create_task(writer.write(bytes(1_200_000)))
            await asyncio.sleep(0.05)
            assert writer.is_to_be_discarded()
        with pytest.raises(OSError, match="aborted"):
            await writing

    asyncio.run(run())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["memory://", "file://images", "file://./images", "file:///srv/images"])
def test_addresses_of_stores(address: str) -> None:
    """Both kinds of store are opened by their addresses, and nothing is written yet."""
    expected = MemoryStore if address.startswith("memory") else FileStore
    assert type(open_store(DeliveryConfig(store=address))) is expected


@pytest.mark.parametrize(
    "address", ["", "images", "./images", "file:", "file://", "memory:", "memory", "s3:", "s3://", "s3:///b", "x://"]
)
def test_wrong_addresses(address: str) -> None:
    """An address that names no store is a mistake that the operator is told about."""
    with pytest.raises(ConfigError, match=r"^delivery\.store: "):
        open_store(DeliveryConfig(store=address))


# Files


def test_files_are_whole(tmp_path: Path) -> None:
    """The directory is made when it is first needed and holds the pictures and nothing half done."""
    store = FileStore(tmp_path / "a" / "b", ttl=60)
    assert not (tmp_path / "a").exists()
    key = put(store)
    assert [key] == [file.name for file in (tmp_path / "a" / "b").iterdir()]
    assert (tmp_path / "a" / "b" / key).read_bytes() == CONTENT


def test_a_system_that_takes_little_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte is written once, in order, wherever the system stops, and more pieces than it takes at once."""
    real, stops = os.writev, itertools.cycle([1, 2, 5, 4096, 3])

    def write_some(descriptor: int, pieces: Sequence[memoryview]) -> int:
        assert 0 < len(pieces) <= 1024
        stop = next(stops)
        some, size = [], 0
        for piece in pieces:
            some.append(piece[: stop - size])
            size += len(some[-1])
            if size == stop:
                break
        return real(descriptor, some)

    monkeypatch.setattr(os, "writev", write_some)
    pieces = [os.urandom(number % 7) for number in range(3000)]

    async def write() -> str:
        writer = await FileStore(tmp_path, ttl=60).writer(PNG)
        for piece in pieces:
            await writer.write(piece)
        return await writer.commit()

    assert (tmp_path / asyncio.run(write())).read_bytes() == b"".join(pieces)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, OSError)]
)
@pytest.mark.parametrize("call", ["write", "close"])
def test_a_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, kind: type[OSError]
) -> None:
    """A picture that cannot be written to its end leaves no file, and the error says why and not where."""

    class Broken(io.FileIO):
        def close(self) -> None:
            was_closed = self.closed
            super().close()
            if call == "close" and not was_closed:
                raise OSError(number, os.strerror(number), str(tmp_path))

    def write_half(descriptor: int, pieces: Sequence[memoryview]) -> int:
        written = os.write(descriptor, pieces[0][: len(pieces[0]) // 2 + 1])
        if call == "write":
            raise OSError(number, os.strerror(number), str(tmp_path))
        return written

    store = FileStore(tmp_path, ttl=60)
    monkeypatch.setattr("imagegate.stores.file.open", lambda path, mode, buffering: Broken(path, mode), raising=False)
    monkeypatch.setattr(os, "writev", write_half)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        put(store)
    assert type(caught.value) is kind
    assert str(tmp_path) not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    """A directory that cannot be made is an `OSError`, for pictures and for the secret."""
    (tmp_path / "file").write_text("")
    store = FileStore(tmp_path / "file" / "images", ttl=60)
    for attempt in (lambda: put(store), lambda: reserve(store), lambda: asyncio.run(store.link("KEY.png", ""))):
        with pytest.raises(OSError, match=r"Not a directory|File exists") as caught:
            attempt()
        assert str(tmp_path) not in str(caught.value)


def test_a_directory_that_has_become_a_file_is_told_before_anything_is_paid_for(tmp_path: Path, clock: Clock) -> None:
    store = FileStore(tmp_path / "images", ttl=60, clock=clock)
    reserve(store)
    shutil.rmtree(tmp_path / "images")
    reserve(store)  # one that is gone is made anew
    (tmp_path / "images").write_text("")
    clock.ahead = 2
    with pytest.raises(OSError, match="cannot be written to"):
        reserve(store)


def aged(path: Path, seconds: float) -> Path:
    os.utime(path, (time.time() - seconds, time.time() - seconds))
    return path


def test_old_files_are_swept(tmp_path: Path) -> None:
    """The next picture sweeps out pictures and half files older than ``ttl``, and touches nothing else."""
    store = FileStore(tmp_path, ttl=60)
    young = tmp_path / new_key(PNG)
    old = tmp_path / new_key(JPEG)
    partial = tmp_path / f"{new_key(GIF)}.partial"
    others = [tmp_path / name for name in ("notes.txt", ".link-secret", "kite.png", "A" * 32 + ".png.bak")]
    for path in (young, old, partial, *others):
        path.write_bytes(CONTENT)
    for path in (old, partial, *others):
        aged(path, 61)
    (directory := tmp_path / new_key(PNG)).mkdir()
    aged(directory, 61)
    (link := tmp_path / new_key(PNG)).symlink_to(others[0])
    key = put(store)
    assert {young, *others, directory, link, tmp_path / key} == set(tmp_path.iterdir())


def test_sweeps_come_now_and_then(tmp_path: Path, clock: Clock) -> None:
    """Sweeping waits a minute between two times, so that a busy store does not read its directory for each picture."""
    store = FileStore(tmp_path, ttl=30, clock=clock)
    put(store)
    (old := tmp_path / new_key(PNG)).write_bytes(CONTENT)
    aged(old, 31)
    clock.ahead = 59
    put(store)
    assert old.exists()
    clock.ahead = 61
    put(store)
    assert not old.exists()


def test_a_sweep_of_two_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another worker has swept away in the meantime does not fail the picture that is being put."""
    store = FileStore(tmp_path, ttl=60)
    (old := tmp_path / new_key(PNG)).write_bytes(CONTENT)
    aged(old, 61)
    scan = os.scandir

    class Raced:
        """A directory out of which everything goes between being listed and being looked at."""

        def __init__(self, path: Any) -> None:
            with scan(path) as entries:
                self.entries = list(entries)
            for entry in self.entries:
                if is_key(entry.name):
                    Path(entry.path).unlink()

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("imagegate.stores.directory.os", SimpleNamespace(**{**vars(os), "scandir": Raced}))
    key = put(store)
    assert (tmp_path / key).exists()


def test_secret_file(tmp_path: Path) -> None:
    """The secret is kept in the directory, for its owner only, and is the same for every store there."""
    first, second = FileStore(tmp_path / "images", ttl=60), FileStore(tmp_path / "images", ttl=5)
    reserve(first)
    secret = (tmp_path / "images" / ".link-secret").read_bytes()
    query = query_of(asyncio.run(first.link("KEY.png", "")))
    assert second.holds("KEY.png", query)
    assert len(secret) == 32
    assert secret == (tmp_path / "images" / ".link-secret").read_bytes()
    assert (
        [file.name for file in (tmp_path / "images").iterdir()],
        (tmp_path / "images" / ".link-secret").stat().st_mode & 0o777,
    ) == ([".link-secret"], 0o600)
    assert not FileStore(tmp_path / "others", ttl=60).holds("KEY.png", query)


def test_secret_made_by_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that need the secret at the same moment get the same one, also as containers with the same process id."""
    first, second = FileStore(tmp_path, ttl=60), FileStore(tmp_path, ttl=60)
    overtaking: list[None] = []

    def overtaken(source: Any, target: Any) -> None:
        if not overtaking:
            overtaking.append(None)
            reserve(second)
        os.link(source, target)

    monkeypatch.setattr("imagegate.stores.secret_file.os", SimpleNamespace(**{**vars(os), "link": overtaken}))
    reserve(first)
    assert second.holds("KEY.png", query_of(asyncio.run(first.link("KEY.png", ""))))
    assert [file.name for file in tmp_path.iterdir()] == [".link-secret"]


def test_a_picture_behind_a_symbolic_link_is_no_way_out(tmp_path: Path) -> None:
    """Serving goes by the name alone, so a key cannot name a file of another directory."""
    (tmp_path / "outside.png").write_bytes(CONTENT)
    store = FileStore(tmp_path / "images", ttl=60)
    put(store)
    assert served(store, "../outside.png") is None


# Room


def reserve(store: ServedStore, size: int = 1) -> None:
    """Reserves room for a moment."""
    asyncio.run(store.reserve(size)).release()


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_max_bytes(tmp_path: Path) -> None:
    """A directory that is full refuses what is too large, and what it has stays for as long as its links say."""
    store = FileStore(tmp_path, ttl=60, max_bytes=3000)
    reserve(store)
    keys = [put(store, bytes(1000)) for _ in range(2)]
    for size in (1001, 2_000_000):
        with pytest.raises(StoreFull, match="as many bytes as they may"):
            put(store, bytes(size))
    reserve(store)
    keys.append(put(store, bytes(1000)))
    with pytest.raises(StoreFull, match="as many bytes as they may"):
        reserve(store)
    with pytest.raises(StoreFull):
        put(store, b"x")
    assert {*keys, ".link-secret"} == set(files_in(tmp_path))


def test_aborted_pictures_give_their_room_back(tmp_path: Path) -> None:
    """What was not kept takes no room, however far it got."""
    store = FileStore(tmp_path, ttl=60, max_bytes=3_000_000)

    async def run() -> None:
        for _ in range(5):
            writer = await store.writer(PNG)
            await writer.write(bytes(1_500_000))
            await writer.write(bytes(1_400_000))
            await writer.abort()
            writer = await store.writer(PNG)
            await writer.write(bytes(2_900_000))
            await writer.commit()
            await writer.abort()

    asyncio.run(run())
    put(store, bytes(3_000_000))


def test_a_picture_that_turns_out_too_large(tmp_path: Path, clock: Clock) -> None:
    """It waits in memory for room, and nothing else is taken meanwhile. One that is aborted leaves nothing behind."""
    store = FileStore(tmp_path, ttl=60, max_bytes=3_000_000, overflow=4_000_000, clock=clock)

    async def written(size: int) -> PictureWriter:
        writer = await store.writer(PNG)
        for start in range(0, size, 500_000):
            await writer.write(bytes(min(500_000, size - start)))
        return writer

    async def run() -> str:
        await (await written(3_900_000)).abort()
        return await (await written(3_900_000)).commit()

    key = asyncio.run(run())
    assert files_in(tmp_path) == []
    assert served(store, key) is not None
    with pytest.raises(StoreFull, match="wait for room"):
        reserve(store)
    with pytest.raises(StoreFull):
        put(store, bytes(3_500_000))
    clock.ahead = 61
    asyncio.run(store.sweep())
    assert served(store, key) is None  # its link has expired
    reserve(store)


def test_room_of_what_is_there_already(tmp_path: Path) -> None:
    """What an earlier process has left counts from the start, before anything is paid for."""
    put(FileStore(tmp_path, ttl=60), bytes(3000))
    (tmp_path / "notes.txt").write_bytes(bytes(5000))
    store = FileStore(tmp_path, ttl=60, max_bytes=3000)
    with pytest.raises(StoreFull):
        reserve(store)
    with pytest.raises(StoreFull):
        put(FileStore(tmp_path, ttl=60, max_bytes=3999), bytes(1000))
    put(FileStore(tmp_path, ttl=60, max_bytes=4000), bytes(1000))


def until_prepared(store: FileStore) -> None:
    for _ in range(500):
        with contextlib.suppress(StoreFull):
            reserve(store)
            return
        time.sleep(0.01)
    raise AssertionError("the store stays full")


def test_room_of_old_pictures(tmp_path: Path, clock: Clock) -> None:
    """When pictures have gone there is room again, and nothing has to be stored for that to be noticed."""
    store = FileStore(tmp_path, ttl=30, max_bytes=2000, clock=clock)
    keys = [put(store, bytes(1000)) for _ in range(2)]
    aged(tmp_path / keys[0], 31)
    with pytest.raises(StoreFull):
        reserve(store)
    clock.ahead = 61
    os.utime(tmp_path / keys[1], (time.time() + 61, time.time() + 61))
    until_prepared(store)
    assert [keys[1]] == [name for name in files_in(tmp_path) if is_key(name)]
    put(store, bytes(1000))
    with pytest.raises(StoreFull):
        reserve(store)


def test_room_is_shared_by_processes(tmp_path: Path, clock: Clock) -> None:
    """What another process writes and removes counts after a minute at most."""
    first, second = (FileStore(tmp_path, ttl=3600, max_bytes=3000, clock=clock) for _ in range(2))
    put(first, bytes(1000))
    put(second, bytes(1000))
    key = put(second, bytes(1000))
    reserve(first)  # knows of two pictures
    clock.ahead = 61
    with contextlib.suppress(StoreFull):
        reserve(first)  # counts beside the request
    for thread in threading.enumerate():
        if thread.name == "imagegate-sweep":
            thread.join()
    with pytest.raises(StoreFull):
        put(first, bytes(1000))
    (tmp_path / key).unlink()
    clock.ahead = 122
    put(first, bytes(1000))


def test_first_count_of_many_at_once(tmp_path: Path) -> None:
    """Pictures that come while the first count is made wait for it."""
    put(FileStore(tmp_path, ttl=60), bytes(2500))
    store = FileStore(tmp_path, ttl=60, max_bytes=3000)

    async def run() -> list[Any]:
        return await asyncio.gather(*(put_async(store, bytes(100), PNG) for _ in range(20)), return_exceptions=True)

    results = asyncio.run(run())
    assert (sum(isinstance(it, str) for it in results), sum(isinstance(it, StoreFull) for it in results)) == (5, 15)


class SlowScan:
    """A directory that is listed, and then takes its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.listed, self.go_on = threading.Event(), threading.Event()
        scan = os.scandir

        @contextlib.contextmanager
        def slowly(path: Any) -> Iterator[list[os.DirEntry[str]]]:
            with scan(path) as entries:
                found = list(entries)
            self.listed.set()
            assert self.go_on.wait(10)
            yield found

        monkeypatch.setattr("imagegate.stores.directory.os", SimpleNamespace(**{**vars(os), "scandir": slowly}))


def test_pictures_during_the_first_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that comes while what is there is counted for the first time waits for the result."""
    put(FileStore(tmp_path, ttl=60), bytes(2500))
    slow = SlowScan(monkeypatch)
    store = FileStore(tmp_path, ttl=60, max_bytes=3000)

    async def run() -> None:
        first = asyncio.create_task(put_async(store, bytes(100), PNG))
        await asyncio.to_thread(slow.listed.wait, 10)
        second = asyncio.create_task(put_async(store, bytes(600), PNG))
        done, _ = await asyncio.wait([second], timeout=0.05)
        assert not done
        slow.go_on.set()
        await first
        with pytest.raises(StoreFull):
            await second

    asyncio.run(run())


def test_pictures_during_a_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """What is written while the directory is counted once more is not forgotten."""
    store = FileStore(tmp_path, ttl=3600, max_bytes=3000, clock=clock)
    put(store, bytes(1000))
    clock.ahead = 61
    slow = SlowScan(monkeypatch)

    async def run() -> None:
        (await store.reserve(1)).release()  # counts in a thread
        await asyncio.to_thread(slow.listed.wait, 10)
        await put_async(store, bytes(1500), PNG)
        slow.go_on.set()
        for thread in threading.enumerate():
            if thread.name == "imagegate-sweep":
                thread.join(10)
        with pytest.raises(StoreFull):
            await put_async(store, bytes(501), PNG)
        await put_async(store, bytes(500), PNG)

    asyncio.run(run())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.mount
@pytest.mark.parametrize("content_addressed", [False, True])
def test_disk_full(small_disk: Path, content_addressed: bool) -> None:
    """A disk that is full while a picture is written: no half file stays, and the next one that fits is taken."""
    store = FileStore(small_disk / "images", ttl=60, content_addressed=content_addressed)
    reserve(store)
    with pytest.raises(StoreFull, match="No space left on device") as caught:
        put(store, os.urandom(5_000_000))
    assert str(small_disk) not in str(caught.value)
    assert files_in(small_disk / "images") == [".link-secret"]
    picture = os.urandom(3_000_000)
    answer = served(store, put(store, picture))
    assert answer is not None
    assert answer[2] == picture


@pytest.mark.mount
def test_disk_full_before_anything_is_paid_for(small_disk: Path) -> None:
    """A disk on which hardly anything is left is told before a request is sent to a provider."""
    store = FileStore(small_disk / "images", ttl=60)
    reserve(store)
    reserve(store, 3_000_000)
    (small_disk / "other").write_bytes(bytes(3_500_000))
    with pytest.raises(StoreFull, match="the disk is full"):
        reserve(store, 3_000_000)
    reserve(store, 300_000)


# The same bytes once


@pytest.fixture(params=["file", "memory"])
def content_store(request: pytest.FixtureRequest, tmp_path: Path) -> ServedStore:
    if request.param == "memory":
        return MemoryStore(ttl=60, content_addressed=True)
    return FileStore(tmp_path, ttl=60, max_bytes=3_000_000, content_addressed=True)


def test_content_addressed(content_store: ServedStore, tmp_path: Path) -> None:
    """The same bytes are one picture, in whatever pieces they come; other bytes, and other formats, are another."""
    picture = os.urandom(1_500_000)

    async def chunks() -> AsyncIterator[bytes]:
        for place in range(0, len(picture), 100_000):
            yield picture[place : place + 100_000]

    key = put(content_store, picture)
    assert is_key(key)
    assert key == asyncio.run(put_stream(content_store, chunks(), PNG)) == put(content_store, picture)
    assert (
        len({key, put(content_store, picture[:-1]), put(content_store, b"", PNG), put(content_store, b"", JPEG)}) == 4
    )
    answer = served(content_store, key)
    assert answer is not None
    assert answer[2] == picture
    if isinstance(content_store, FileStore):
        assert len([name for name in files_in(tmp_path) if is_key(name)]) == 4


def test_content_addressed_names_depend_on_the_secret(tmp_path: Path) -> None:
    """Who has a picture cannot tell from it whether a store has it too."""
    keys = {
        put(store)
        for secret in (b"one", b"two")
        for store in (
            MemoryStore(ttl=60, link_secret=secret, content_addressed=True),
            FileStore(tmp_path, ttl=60, link_secret=secret, content_addressed=True),
        )
    }
    assert len(keys) == 2
    digest = base64.urlsafe_b64encode(hashlib.sha256(CONTENT).digest()).decode()
    assert not any(key.startswith(digest[:8]) for key in keys)


def test_content_addressed_stays_when_taken_back(content_store: ServedStore) -> None:
    """A picture that somebody else may have the link of is not taken back; one that is not yet whole is."""

    async def run() -> str:
        unfinished = await content_store.writer(PNG)
        await unfinished.write(bytes(1_200_000))
        await unfinished.abort()
        writer = await content_store.writer(PNG)
        await writer.write(CONTENT)
        key = await writer.commit()
        await writer.abort()
        return key

    key = asyncio.run(run())
    assert served(content_store, key) is not None
    put(content_store, bytes(2_900_000))


def test_content_addressed_starts_its_time_anew(tmp_path: Path, clock: Clock) -> None:
    """A picture that is stored once more is kept for as long as its newest link holds."""
    store = FileStore(tmp_path, ttl=30, content_addressed=True, clock=clock)
    path = aged(tmp_path / put(store), 31)
    put(store)
    assert time.time() - path.stat().st_mtime < 20
    memory = MemoryStore(ttl=30, content_addressed=True, clock=clock)
    key = put(memory)
    clock.ahead = 25
    assert key == put(memory)
    clock.ahead = 50
    put(memory, b"another")
    assert served(memory, key) is not None
    clock.ahead = 60
    put(memory, b"a third")
    assert served(memory, key) is None


# Memory


def test_memory_keeps_the_newest(clock: Clock) -> None:
    """A full store drops its oldest pictures, as many as the new one needs room."""
    store = MemoryStore(ttl=60, capacity=300, clock=clock)
    first, second, third = (put(store, bytes(100)) for _ in range(3))
    large = put(store, bytes(150))
    assert [served(store, first), served(store, second)] == [None, None]
    assert served(store, third) is not None
    assert served(store, large) is not None


def test_memory_refuses_what_it_cannot_hold() -> None:
    """One picture that is larger than the store is kept, for it is paid for, and the next is refused before; what is
    there stays there."""
    store = MemoryStore(ttl=60, capacity=300)
    key = put(store, bytes(300))
    reserve(store, 301)  # nobody knows yet how large they are
    large = put(store, bytes(301))
    with pytest.raises(StoreFull):
        reserve(store, 301)
    with pytest.raises(StoreFull):
        put(store, bytes(301 + DEFAULT_OVERFLOW))
    assert served(store, key) is not None
    assert served(store, large) is not None
    put(store, bytes(300))
    assert served(store, large) is None


def test_memory_forgets_after_a_time(clock: Clock) -> None:
    """Pictures older than ``ttl`` go when the next one comes."""
    store = MemoryStore(ttl=60, clock=clock)
    old = put(store)
    clock.ahead = 59
    young = put(store)
    assert served(store, old) is not None
    clock.ahead = 61
    put(store)
    assert served(store, old) is None
    assert served(store, young) is not None


def test_memory_is_empty_after_closing() -> None:
    """A closed store holds nothing, and may be used again to its full capacity."""
    store = MemoryStore(ttl=60, capacity=300)
    key = put(store, bytes(300))
    asyncio.run(store.aclose())
    assert served(store, key) is None
    assert served(store, put(store, bytes(300))) is not None


# Links


def links(clock: Clock | None = None, *, secret: bytes = b"secret", ttl: float = 60) -> Links:
    return Links(lambda: secret, ttl=ttl, clock=clock or Clock())


def query_of(link: str) -> bytes:
    return link.partition("?")[2].encode()


@pytest.mark.parametrize("base", ["https://cdn.example.com/images", "https://cdn.example.com/images/"])
def test_link(base: str) -> None:
    """A link is the store's public URL, the key, an expiry and a signature."""
    link = links().link(base, "KEY.png")
    assert link.startswith("https://cdn.example.com/images/KEY.png?expires=")
    assert links().holds("KEY.png", query_of(link))


def test_link_holds_until_it_expires(clock: Clock) -> None:
    """A link holds for ``ttl`` seconds and not one more."""
    made = query_of(links(clock).link("", "KEY.png"))
    clock.ahead = 59
    assert links(clock).holds("KEY.png", made)
    clock.ahead = 61
    assert not links(clock).holds("KEY.png", made)


FORGERIES: dict[str, Callable[[bytes], tuple[str, bytes]]] = {
    "other key": lambda query: ("OTHER.png", query),
    "empty key": lambda query: ("", query),
    "key and expiry run together": lambda query: ("KEY.png\n", query),
    "nothing": lambda query: ("KEY.png", b""),
    "later": lambda query: ("KEY.png", query.replace(b"expires=", b"expires=9")),
    "spaced": lambda query: ("KEY.png", query.replace(b"expires=", b"expires=%20")),
    "signed": lambda query: ("KEY.png", query.replace(b"expires=", b"expires=%2B")),
    "other digits": lambda query: ("KEY.png", "expires=١&signature=".encode() + query[-64:]),
    "cut": lambda query: ("KEY.png", query[:-1]),
    "longer": lambda query: ("KEY.png", query + b"0"),
    "upper case": lambda query: ("KEY.png", query[:-64] + query[-64:].upper()),
    "second signature": lambda query: ("KEY.png", query + b"&signature=" + b"0" * 64),
    "bytes": lambda query: ("KEY.png", b"\xff\xfe" + query[2:]),
    "surrogates": lambda query: ("KEY.png", query[:-64] + b"%ED%A0%80" * 7),
    "huge expiry": lambda query: ("KEY.png", b"expires=" + b"9" * 5000 + b"&signature=" + query[-64:]),
    "many fields": lambda query: ("KEY.png", query + b"&a=1" * 1000),
    "semicolons": lambda query: ("KEY.png", query.replace(b"&", b";")),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_forged_links_do_not_hold(forge: Callable[[bytes], tuple[str, bytes]]) -> None:
    """A link with any part changed does not hold, and checking it does not fail."""
    key, query = forge(query_of(links().link("", "KEY.png")))
    assert links().holds(key, query) is False


def test_another_secret_signs_otherwise() -> None:
    """A link holds only where the secret is the one that signed it."""
    query = query_of(links(secret=b"one").link("", "KEY.png"))
    assert not links(secret=b"two").holds("KEY.png", query)


def test_secret_is_asked_for_once() -> None:
    """The secret is asked for when it is first needed, and then remembered."""
    asked: list[None] = []

    def secret() -> bytes:
        asked.append(None)
        return b"secret"

    signer = Links(secret, ttl=60)
    assert asked == []
    signer.holds("KEY.png", query_of(signer.link("", "KEY.png")))
    assert asked == [None]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"<svg>", SVG),
        (b"\xef\xbb\xbf \n<?xml version='1.0'?><svg>", SVG),
        (b"<html><svg>", None),
        (b"", None),
    ],
)
def test_formats_by_their_first_bytes(head: bytes, kind: ImageFormat | None) -> None:
    """SVG is known by its root, and a page that holds one is no picture."""
    assert kind == sniff(head)
