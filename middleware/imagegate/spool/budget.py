"""How much the spool may hold: uploads a part of it, so that what is paid for finds room."""

from __future__ import annotations

import errno
import tempfile
from typing import Final, Protocol

from imagegate.errors import Overloaded
from imagegate.spool.disk_room import DiskFull, DiskRoom, free_behind
from imagegate.spool.memory import Memory
from imagegate.spool.reservation import Reservation
from imagegate.spool.temp_file import IDLE, KeptFiles

_COMING_IN: Final = 16 * 1024 * 1024
"""Bytes of uploads on their way to disk that are in memory, all together, before they are many."""
UPLOADS_SHARE: Final = 0.75
"""What uploads may take of a gateway's spool. Clients may stop half way and wait; the rest is for results."""
_LAST_RESORT: Final = 64 * 1024 * 1024
"""Bytes of results that stay in memory where the disk cannot take them."""
_RETRY_AFTER: Final = (b"retry-after", b"5")


class SpoolFull(Overloaded):
    """The disk of the spool has no room for an upload, or cannot be written. Nothing was sent."""

    code = "spool_full"

    def __init__(self, error: OSError | None = None) -> None:
        is_full = error is None or error.errno in (errno.ENOSPC, errno.EDQUOT)
        fault = "is full" if is_full else "cannot be written to"
        super().__init__(f"The gateway's disk for uploads {fault}. Retry in a moment.", headers=[_RETRY_AFTER])


class FileBudget(Protocol):
    """What one spooled file takes its room from."""

    kept: KeptFiles

    @property
    def is_crowded(self) -> bool:
        """Whether incoming files have reached their share of memory, so that each must buffer less."""
        ...

    def note_coming_in(self, size: int) -> None:
        """Count bytes in memory of files that are not whole yet, or not on disk; negative: fewer."""
        ...

    def take(self, size: int) -> None:
        """Take room, in memory and on disk together. Raises `Overloaded`."""
        ...

    def take_memory(self, size: int) -> bool:
        """Return whether `size` bytes may stay in memory."""
        ...

    def may_hold(self, size: int) -> bool:
        """Return whether an incoming file of `size` bytes so far may stay in memory until it is complete."""
        ...

    def give_back(self, *, total: int, memory: int) -> None: ...

    def check_disk(self, descriptor: int, size: int) -> None:
        """Call, in a thread, before `size` bytes are written to a file. Raises `OSError` where they must not be."""
        ...

    def take_last_resort(self, size: int) -> bool:
        """Return whether `size` bytes, which the disk did not take, may stay in memory."""
        ...

    def give_back_last_resort(self, size: int) -> None: ...


class Budget:
    """Bytes that all requests of a gateway may hold at a time, in memory and on disk together.

    Args:
        total: bytes; beyond them requests are refused until others have ended.
        memory: bytes of them that may stay in memory; the rest goes to disk.
        kept: bytes of files on disk that are kept for a moment, to be written over.
        idle: seconds of that moment, from the last one that was given back.
        uploads: share of `total`, and of the disk, that uploads may take.
        last_resort: bytes of results that may stay in memory, beside `memory`, where the disk cannot take them.
        disk: room where temporary files are written.
        shared: in which what stays in memory counts as well.
    """

    def __init__(
        self,
        *,
        total: int,
        memory: int,
        kept: int = 0,
        idle: float = IDLE,
        uploads: float = 1.0,
        last_resort: int = _LAST_RESORT,
        disk: DiskRoom | None = None,
        shared: Memory | None = None,
    ) -> None:
        self.kept = KeptFiles(kept, idle=idle)
        self.disk = disk or DiskRoom(tempfile.gettempdir)
        self._total = total
        self._uploads_share = uploads
        self._for_uploads = int(total * uploads)
        self._uploaded = 0
        self._memory = memory
        self._shared = shared
        self._last_resort = last_resort
        self.coming_in = 0
        """Bytes in memory of files that are not whole yet, or not on disk."""

    @property
    def is_crowded(self) -> bool:
        return self.coming_in > _COMING_IN

    def note_coming_in(self, size: int) -> None:
        self.coming_in += size

    def take(self, size: int) -> None:
        if size > self._total or self._uploaded + size > self._for_uploads:
            raise Overloaded("Too many uploads in flight. Retry in a moment.", headers=[_RETRY_AFTER])
        self._total -= size
        self._uploaded += size

    def take_memory(self, size: int) -> bool:
        if size > self._memory or not (self._shared is None or self._shared.try_take(size, large=True)):
            return False
        self._memory -= size
        return True

    def may_hold(self, size: int) -> bool:
        return size <= self._memory and not self.is_crowded

    def give_back(self, *, total: int, memory: int) -> None:
        self._total += total
        self._uploaded -= total
        self._memory += memory
        if self._shared is not None:
            self._shared.give_back(memory)

    def check_disk(self, descriptor: int, size: int) -> None:
        """Raise `DiskFull` where they would take room that is promised, or more than uploads may have of the disk."""
        left = free_behind(descriptor) - size
        if left < self.disk.reserved or left < (1 - self._uploads_share) * (left + self._uploaded):
            raise DiskFull
        self.disk.note_written(size)

    def take_last_resort(self, size: int) -> bool:
        return False  # nothing is lost with an upload

    def give_back_last_resort(self, size: int) -> None:
        raise AssertionError("uploads take none")

    def results(self) -> ResultBudget:
        """Return the budget of one exchange for what it will have paid for."""
        return ResultBudget(self)

    # What results take, whose room is beside that of uploads

    def take_result(self, size: int, *, is_paid: bool = False) -> bool:
        """Return whether there was room; for what is paid for there always is, and others then wait for theirs."""
        if size > self._total and not is_paid:
            return False
        self._total -= size
        return True

    def give_back_result(self, size: int) -> None:
        self._total += size

    def take_result_memory(self, size: int) -> bool:
        if size > self._last_resort:
            return False
        self._last_resort -= size
        return True

    def give_back_result_memory(self, size: int) -> None:
        self._last_resort += size


class ResultBudget:
    """The part of a budget that one exchange has for results: first what is reserved, then what is left.

    Files that take from it may be closed after `release`.
    """

    def __init__(self, whole: Budget) -> None:
        self.kept = whole.kept
        self._whole = whole
        self._unused = 0
        """Reserved bytes that no file has taken."""
        self._unused_memory = 0
        self._on_disk: list[Reservation] = []
        self._is_released = False

    @property
    def is_crowded(self) -> bool:
        return self._whole.is_crowded

    def note_coming_in(self, size: int) -> None:
        self._whole.note_coming_in(size)

    async def reserve(self, size: int) -> bool:
        """Reserve `size` bytes more: on the disk, else in memory. Returns whether there was room."""
        try:
            reservation = await self._whole.disk.reserve(size)
        except DiskFull:
            if not self._whole.take_result_memory(size):
                return False
            self._unused_memory += size
            return True
        if not self._whole.take_result(size):
            reservation.release()
            return False
        self._on_disk.append(reservation)
        self._unused += size
        return True

    def release(self) -> None:
        """Give back what no file has taken; files give back the rest when they are closed."""
        self._is_released = True
        for reservation in self._on_disk:
            reservation.release()
        self._whole.give_back_result(self._unused)
        self._whole.give_back_result_memory(self._unused_memory)
        self._unused = self._unused_memory = 0

    def take(self, size: int) -> None:
        reserved = min(size, self._unused)
        self._whole.take_result(size - reserved, is_paid=True)
        self._unused -= reserved

    def take_memory(self, size: int) -> bool:
        return self._whole.take_memory(size)

    def may_hold(self, size: int) -> bool:
        return self._whole.may_hold(size)

    def give_back(self, *, total: int, memory: int) -> None:
        self._whole.give_back(total=0, memory=memory)
        if self._is_released:
            self._whole.give_back_result(total)
        else:
            self._unused += total

    def check_disk(self, descriptor: int, size: int) -> None:
        """Refuse nothing: the room is reserved, or it is tried whether there is some."""
        self._whole.disk.note_written(size)

    def take_last_resort(self, size: int) -> bool:
        reserved = min(size, self._unused_memory)
        if not self._whole.take_result_memory(size - reserved):
            return False
        self._unused_memory -= reserved
        return True

    def give_back_last_resort(self, size: int) -> None:
        if self._is_released:
            self._whole.give_back_result_memory(size)
        else:
            self._unused_memory += size


def default_budget() -> Budget:
    """Return the budget of a layer that is used alone."""
    return Budget(total=1024**3, memory=16 * 1024**2, uploads=UPLOADS_SHARE)
