"""Stores and links by themselves: what is kept, for how long, under which names, and who may load it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.types import Message

from imagegate.errors import ConfigError
from imagegate.formats import BY_EXTENSION, GIF, JPEG, PNG, SVG, ImageFormat, sniff
from imagegate.stores import FileStore, Links, MemoryStore, Store, StoreFull, new_key, open_store
from imagegate.stores.base import is_key

CONTENT = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def put(store: Store, content: bytes = CONTENT, kind: ImageFormat = PNG) -> str:
    return asyncio.run(store.put(content, kind))


def served(store: Store, key: str) -> tuple[int, dict[str, str], bytes] | None:
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

        await app({"type": "http", "method": "GET", "headers": [], "path": f"/images/{key}"}, receive, send)
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])

    return asyncio.run(run())


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore(ttl=60)
    return FileStore(tmp_path / "below" / "images", ttl=60)


class Clock:
    """Both clocks of the module ``time``, as far ahead of the true ones as a test wants."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("file", "links", "memory"):
        monkeypatch.setattr(f"imagegate.stores.{module}.time", clock)
    return clock


# What every store does


@pytest.mark.parametrize("kind", BY_EXTENSION.values(), ids=BY_EXTENSION)
def test_serves_what_was_put(store: Store, kind: ImageFormat) -> None:
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


def test_names_cannot_be_guessed(store: Store) -> None:
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
def test_unknown_keys(store: Store, key: str) -> None:
    """What is no key of the store has no picture, whatever it spells."""
    put(store)
    assert served(store, key) is None


def test_many_puts_at_once(store: Store) -> None:
    """Pictures that are put at the same time are all kept."""

    async def run() -> list[str]:
        return await asyncio.gather(*(store.put(bytes([number]) * 1000, PNG) for number in range(50)))

    keys = asyncio.run(run())
    bodies = [answer[2] for key in keys if (answer := served(store, key))]
    assert [bytes([number]) * 1000 for number in range(50)] == bodies


def test_secret_stays_the_same(store: Store) -> None:
    """A store has one secret of 32 bytes."""
    first = store.link_secret()
    put(store)
    assert (first, 32) == (store.link_secret(), len(first))


@pytest.mark.parametrize("address", ["memory://", "file://images", "file://./images", "file:///srv/images"])
def test_addresses_of_stores(address: str) -> None:
    """Both kinds of store are opened by their addresses, and nothing is written yet."""
    expected = MemoryStore if address.startswith("memory") else FileStore
    assert type(open_store(address, ttl=60)) is expected


@pytest.mark.parametrize(
    "address", ["", "images", "./images", "file:", "file://", "memory:", "memory", "s3://b", "x://"]
)
def test_wrong_addresses(address: str) -> None:
    """An address that names no store is a mistake that the operator is told about."""
    with pytest.raises(ConfigError, match=r"^delivery\.store: "):
        open_store(address, ttl=60)


# Files


def test_files_are_whole(tmp_path: Path) -> None:
    """The directory is made when it is first needed and holds the pictures and nothing half done."""
    store = FileStore(tmp_path / "a" / "b", ttl=60)
    assert not (tmp_path / "a").exists()
    key = put(store)
    assert [key] == [file.name for file in (tmp_path / "a" / "b").iterdir()]
    assert (tmp_path / "a" / "b" / key).read_bytes() == CONTENT


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that cannot be written to its end leaves no file behind."""

    def half(path: Path, chunk: bytes) -> None:
        with path.open("ab") as file:
            file.write(chunk[:10])
        raise OSError(28, "No space left on device")

    store = FileStore(tmp_path, ttl=60)
    monkeypatch.setattr("imagegate.stores.file._append", half)
    with pytest.raises(OSError, match="No space left"):
        put(store)
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    """A directory that cannot be made is an `OSError`, for pictures and for the secret."""
    (tmp_path / "file").write_text("")
    store = FileStore(tmp_path / "file" / "images", ttl=60)
    with pytest.raises(OSError, match="file"):
        put(store)
    with pytest.raises(OSError, match="file"):
        store.link_secret()


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
    store = FileStore(tmp_path, ttl=30)
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

    monkeypatch.setattr("imagegate.stores.file.os", SimpleNamespace(**{**vars(os), "scandir": Raced}))
    key = put(store)
    assert (tmp_path / key).exists()


def test_secret_file(tmp_path: Path) -> None:
    """The secret is kept in the directory, for its owner only, and is the same for every store there."""
    first, second = FileStore(tmp_path / "images", ttl=60), FileStore(tmp_path / "images", ttl=5)
    secret = first.link_secret()
    assert secret == second.link_secret()
    assert (
        [file.name for file in (tmp_path / "images").iterdir()],
        (tmp_path / "images" / ".link-secret").stat().st_mode & 0o777,
    ) == ([".link-secret"], 0o600)
    assert secret != FileStore(tmp_path / "others", ttl=60).link_secret()


def test_secret_made_by_two_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that need the secret at the same moment get the same one, also as containers with the same process id."""
    first, second = FileStore(tmp_path, ttl=60), FileStore(tmp_path, ttl=60)
    others: list[bytes] = []

    def overtaken(source: Any, target: Any) -> None:
        if not others:
            others.append(b"")
            others[0] = second.link_secret()
        os.link(source, target)

    monkeypatch.setattr("imagegate.stores.file.os", SimpleNamespace(**{**vars(os), "link": overtaken}))
    secret = first.link_secret()
    assert (tmp_path / ".link-secret").read_bytes() == secret
    assert [secret] == (others or [secret])
    assert [file.name for file in tmp_path.iterdir()] == [".link-secret"]


def test_a_picture_behind_a_symbolic_link_is_no_way_out(tmp_path: Path) -> None:
    """Serving goes by the name alone, so a key cannot name a file of another directory."""
    (tmp_path / "outside.png").write_bytes(CONTENT)
    store = FileStore(tmp_path / "images", ttl=60)
    put(store)
    assert served(store, "../outside.png") is None


# Memory


def test_memory_keeps_the_newest(clock: Clock) -> None:
    """A full store drops its oldest pictures, as many as the new one needs room."""
    store = MemoryStore(ttl=60, capacity=300)
    first, second, third = (put(store, bytes(100)) for _ in range(3))
    large = put(store, bytes(150))
    assert [served(store, first), served(store, second)] == [None, None]
    assert served(store, third) is not None
    assert served(store, large) is not None


def test_memory_refuses_what_it_cannot_hold() -> None:
    """A picture larger than the whole store is refused, and what is there stays there."""
    store = MemoryStore(ttl=60, capacity=300)
    key = put(store, bytes(300))
    with pytest.raises(StoreFull):
        put(store, bytes(301))
    assert served(store, key) is not None


def test_memory_forgets_after_a_time(clock: Clock) -> None:
    """Pictures older than ``ttl`` go when the next one comes."""
    store = MemoryStore(ttl=60)
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


def links(secret: bytes = b"secret", *, ttl: float = 60) -> Links:
    return Links(lambda: secret, ttl=ttl)


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
    made = query_of(links(ttl=60).link("", "KEY.png"))
    clock.ahead = 59
    assert links().holds("KEY.png", made)
    clock.ahead = 61
    assert not links().holds("KEY.png", made)


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
    query = query_of(links(b"one").link("", "KEY.png"))
    assert not links(b"two").holds("KEY.png", query)


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
