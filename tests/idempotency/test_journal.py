"""Marks on disk: held while a call runs, and what they say afterwards."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imagegate.idempotency.base import Claim, ReplaysUnavailable
from imagegate.idempotency.journal import Journal, Mark
from imagegate.idempotency.keys import KeptReply, KeyReused
from imagegate.idempotency.memory import MemoryReplays
from imagegate.stores.blobs import FileBlobs

REPLY = KeptReply(status=200, body="{}", size=2)


OPENED: list[Journal] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No test leaves a file open."""
    yield
    while OPENED:
        OPENED.pop().close()


def journal(folder: Path) -> Journal:
    OPENED.append(Journal(folder / "keys", ttl=60))
    return OPENED[-1]


def read(found: Any) -> Mark:
    assert isinstance(found, Mark)
    return found


def test_the_life_of_a_mark(tmp_path: Path) -> None:
    """Held, seen by others as at work, then with its answer, or gone."""
    one, other = journal(tmp_path), journal(tmp_path)
    claim, theirs = Claim("slot", "print", 60), Claim("slot", "print", 60)
    assert one.look("slot") is None
    assert one.mark(claim)
    assert one.mark(claim)  # asked again
    assert other.look("slot") == "elsewhere"
    assert not other.mark(theirs)
    one.finish(claim, REPLY)
    found = read(other.look("slot"))
    assert (found.fingerprint, found.reply) == ("print", REPLY)
    assert not other.mark(theirs)
    second = Claim("second", "print", 60)
    assert one.mark(second)
    other.release(Claim("second", "print", 60))  # not theirs
    assert other.look("second") == "elsewhere"
    one.release(second)
    assert other.look("second") is None
    assert [file.name for file in (tmp_path / "keys").iterdir()] == ["slot"]


@pytest.mark.server
def test_a_process_that_was_killed(tmp_path: Path) -> None:
    """Its lock is gone, its mark is not."""
    code = f"""
import os, pathlib
from imagegate.idempotency.base import Claim
from imagegate.idempotency.journal import Journal
assert Journal(pathlib.Path({str(tmp_path / "keys")!r}), ttl=60).mark(Claim("slot", "print", 60))
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    found = read(journal(tmp_path).look("slot"))
    assert (found.fingerprint, found.reply) == ("print", None)
    assert not journal(tmp_path).mark(Claim("slot", "print", 60))


def test_marks_expire(tmp_path: Path) -> None:
    """After their time a slot is a new one; what nobody asks for is removed, but for what is at work."""
    here = journal(tmp_path)
    old, held = Claim("old", "p", 0.01), Claim("held", "p", 60)
    assert here.mark(old)
    here.finish(old, REPLY)
    assert here.mark(held)
    time.sleep(0.02)
    assert here.look("old") is None
    assert here.mark(Claim("old", "q", 0.01))
    here.close()
    assert here.mark(held) is False
    time.sleep(0.02)
    assert here.mark(Claim("old", "r", 60))
    folder = tmp_path / "keys"
    (folder / ".begun").write_bytes(b"")
    for file in folder.iterdir():
        os.utime(file, (1, 1))
    fresh = journal(tmp_path)
    assert fresh.mark(Claim("new", "p", 60))
    assert {file.name for file in folder.iterdir()} == {"old", "new"}  # of which the first is still held


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 2, "fingerprint": "p", "expires": 9e9}'])
def test_marks_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    """They say that there was a call, for as long as any could be kept."""
    (tmp_path / "keys").mkdir()
    file = tmp_path / "keys" / "slot"
    file.write_bytes(content)
    found = read(journal(tmp_path).look("slot"))
    assert (found.fingerprint, found.reply) == ("", None)
    os.utime(file, (1, 1))
    assert journal(tmp_path).look("slot") is None


def test_replays_of_an_earlier_process(tmp_path: Path) -> None:
    """Answered: the same answer; interrupted: uncertain; another request: refused."""

    async def run() -> None:
        blobs = FileBlobs(tmp_path / "blobs", ttl=60)
        first, second = (MemoryReplays(blobs, max_bytes=1000, journal=journal(tmp_path)) for _ in range(2))
        done, cut, refused = (Claim(slot, "p", 60) for slot in ("done", "cut", "refused"))
        for claim in (done, cut, refused):
            assert await first.begin(claim) == "mine"
            assert await first.mark_sent(claim)
            claim.sent = True
            assert await first.mark_sent(claim)
            assert await second.begin(Claim(claim.slot, "p", 60)) == "elsewhere"
        await first.finish(done, REPLY)
        await first.release(refused)
        await first.aclose()
        assert await second.begin(Claim("done", "p", 60)) == REPLY
        found = await second.begin(Claim("cut", "p", 60))
        assert isinstance(found, KeptReply)
        assert (found.status, found.facts.error_code, found.facts.outcome) == (502, "interrupted", "uncertain")
        assert not await second.mark_sent(Claim("cut", "p", 60))
        assert await second.begin(Claim("refused", "p", 60)) == "mine"
        for slot in ("done", "cut"):
            with pytest.raises(KeyReused):
                await second.begin(Claim(slot, "q", 60))

    asyncio.run(run())


def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    """Then nothing is sent; an answer that was made is kept in memory."""

    async def run() -> None:
        (tmp_path / "file").write_bytes(b"")
        blobs = FileBlobs(tmp_path / "blobs", ttl=60)
        store = MemoryReplays(blobs, max_bytes=1000, journal=Journal(tmp_path / "file" / "keys", ttl=60))
        claim = Claim("slot", "p", 60)
        with pytest.raises(ReplaysUnavailable):
            await store.begin(claim)
        with pytest.raises(ReplaysUnavailable):
            await store.mark_sent(claim)
        claim.sent = True
        await store.finish(claim, REPLY)
        assert await store.begin(claim) == REPLY
        await store.release(claim)

    asyncio.run(run())


class Slow(Journal):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ttl=60)
        self.may_mark = threading.Event()

    def mark(self, claim: Claim) -> bool:
        assert self.may_mark.wait(20)
        return super().mark(claim)


def test_a_call_that_is_cancelled_while_it_is_marked(tmp_path: Path) -> None:
    """The mark is known when it is given up, so it goes with the call."""

    async def run() -> None:
        slow = Slow(tmp_path / "keys")
        OPENED.append(slow)
        store = MemoryReplays(FileBlobs(tmp_path / "blobs", ttl=60), max_bytes=1000, journal=slow)
        claim = Claim("slot", "p", 60)
        marking = asyncio.create_task(store.mark_sent(claim))
        await asyncio.sleep(0.01)
        marking.cancel()
        await asyncio.sleep(0.01)
        slow.may_mark.set()
        with pytest.raises(asyncio.CancelledError):
            await marking
        await store.release(claim)
        assert await store.begin(Claim("slot", "p", 60)) == "mine"

    asyncio.run(run())


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No mark is left half written, and none is held; one that stands says the same as before."""
    here = journal(tmp_path)
    held = Claim("held", "p", 60)
    assert here.mark(held)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        here.mark(Claim("slot", "p", 60))
    monkeypatch.undo()
    assert [file.name for file in (tmp_path / "keys").iterdir()] == ["held"]
    assert here.look("slot") is None

    def gone(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", gone)
    with pytest.raises(OSError, match="space"):
        here.finish(held, REPLY)
    monkeypatch.undo()
    assert read(here.look("held")).reply is None
    assert [file.name for file in (tmp_path / "keys").iterdir()] == ["held"]
