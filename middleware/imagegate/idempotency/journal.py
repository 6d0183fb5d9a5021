"""Marks on disk of what was sent under a key, for a process that remembers the rest: they outlive it, killed or not.

A mark is a file that is named by its slot and is on the disk before the POST is sent. As long as its call runs,
its process holds a lock on it, which the kernel takes back when the process ends, however it does. So a mark without a
lock and without an answer is one of a process that ended in between, and the outcome of its request is unknown.
Processes that share the directory see each other's marks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from pathlib import Path
from typing import Final, Literal

import msgspec

from imagegate.idempotency.base import Claim
from imagegate.idempotency.keys import RECORD_VERSION, KeptReply

_SECONDS_BETWEEN_SWEEPS: Final = 60.0
_LONGEST: Final = 1024**2


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a call."""

    version: int
    """`RECORD_VERSION` of the gateway that wrote it."""
    fingerprint: str
    """Of the request; empty: the mark cannot be read."""
    expires: float
    """Unix time in seconds."""
    reply: KeptReply | None = None
    """None: a POST may have gone out, and there is no answer."""


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Mark)


class Journal:
    """Keeps marks in a directory, which is made when it is first needed. Its methods block; each may run in a thread.

    Args:
        directory: on a file system with locks and links; several processes may share it.
        ttl: seconds after which a mark is removed at the latest.
    """

    def __init__(self, directory: Path, *, ttl: float) -> None:
        self._directory = directory
        self._ttl = ttl
        self._held: dict[str, int] = {}
        """File descriptors of the marks of calls that run, by holder; each has the lock."""
        self._swept = time.monotonic() - _SECONDS_BETWEEN_SWEEPS

    def look(self, slot: str) -> Mark | Literal["elsewhere"] | None:
        """Return the mark of a slot; ``elsewhere``: its call runs; None: there is none. Raises `OSError`."""
        path = self._directory / slot
        while True:
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                return None
            try:
                if not _lock(descriptor, fcntl.LOCK_SH):
                    return "elsewhere"
                if not _is_same(descriptor, path):
                    continue  # its call has just ended
                mark = self._read(descriptor)
                if mark.expires > time.time():
                    return mark
                path.unlink(missing_ok=True)
                return None
            finally:
                os.close(descriptor)

    def _read(self, descriptor: int) -> Mark:
        """Return what a file says; of one that cannot be read only that there was a call."""
        with contextlib.suppress(msgspec.DecodeError):
            mark = _DECODER.decode(os.read(descriptor, _LONGEST))
            if mark.version <= RECORD_VERSION:
                return mark
        return Mark(version=RECORD_VERSION, fingerprint="", expires=os.fstat(descriptor).st_mtime + self._ttl)

    def mark(self, claim: Claim) -> bool:
        """Write a mark to the disk, and hold it; False: there is one of another call. Raises `OSError`."""
        if claim.holder in self._held:
            return True
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        descriptor, partial = self._write(claim, None)
        try:
            _lock(descriptor, fcntl.LOCK_EX)
            os.fsync(descriptor)
            if not self._link(partial, claim.slot):
                os.close(descriptor)
                return False
            _sync(self._directory)
        except BaseException:
            os.close(descriptor)
            raise
        finally:
            os.unlink(partial)
        self._held[claim.holder] = descriptor
        return True

    def _link(self, partial: str, slot: str) -> bool:
        for _ in range(2):
            try:
                os.link(partial, self._directory / slot)
            except FileExistsError:
                if self.look(slot) is not None:
                    return False
            else:
                return True
        return False

    def finish(self, claim: Claim, reply: KeptReply) -> None:
        """Put the answer into a mark, and hold it no more. Raises `OSError`; the mark then says what it said."""
        try:
            descriptor, partial = self._write(claim, reply)
            os.close(descriptor)
            try:
                os.replace(partial, self._directory / claim.slot)
            except BaseException:
                os.unlink(partial)
                raise
        finally:
            self._let_go(claim)

    def release(self, claim: Claim) -> None:
        """Remove a mark: nothing was sent, or what was sent was rejected. Raises `OSError`."""
        try:
            if claim.holder in self._held:
                (self._directory / claim.slot).unlink(missing_ok=True)
        finally:
            self._let_go(claim)

    def close(self) -> None:
        """Hold no mark any more; those of calls without an answer stay."""
        for holder in tuple(self._held):
            os.close(self._held.pop(holder))

    def _let_go(self, claim: Claim) -> None:
        descriptor = self._held.pop(claim.holder, None)
        if descriptor is not None:
            os.close(descriptor)

    def _write(self, claim: Claim, reply: KeptReply | None) -> tuple[int, str]:
        """Return descriptor and name of a new file."""
        expires = time.time() + claim.ttl
        mark = Mark(version=RECORD_VERSION, fingerprint=claim.fingerprint, expires=expires, reply=reply)
        descriptor, partial = tempfile.mkstemp(dir=self._directory, prefix=".")
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(_ENCODER.encode(mark))
        except BaseException:
            os.close(descriptor)
            os.unlink(partial)
            raise
        return descriptor, partial

    def _sweep(self) -> None:
        """Remove expired entries, and what a killed process had begun to write."""
        now = time.monotonic()
        if now - self._swept < _SECONDS_BETWEEN_SWEEPS:
            return
        self._swept = now
        oldest = time.time() - self._ttl
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # another process may have been faster
                    if entry.stat(follow_symlinks=False).st_mtime < oldest and self._is_free(entry.path):
                        os.unlink(entry.path)

    @staticmethod
    def _is_free(path: str) -> bool:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return _lock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    """Lock a file, unless it is locked, until its descriptor is closed."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same(descriptor: int, path: Path) -> bool:
    """Return whether a descriptor is that of the file which has the name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sync(directory: Path) -> None:
    """Have the names in a directory on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
