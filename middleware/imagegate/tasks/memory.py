"""Tasks in the memory of one process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from imagegate.tasks.records import TaskRecord, may_become

DEFAULT_CAPACITY: Final = 20_000


class MemoryTaskStore:
    """Keeps tasks for `ttl` seconds, and of those that are over the newest ones, so that there are `capacity` in all.

    They are lost when the process ends.
    """

    is_shared = False

    def __init__(self, *, ttl: float, capacity: int = DEFAULT_CAPACITY) -> None:
        self._ttl = ttl
        self._capacity = capacity
        self._running: dict[str, TaskRecord] = {}
        self._over: OrderedDict[str, tuple[float, TaskRecord]] = OrderedDict()

    async def add(self, record: TaskRecord) -> None:
        if record.number not in self._over:
            self._running.setdefault(record.number, record)

    async def mark_sent(self, record: TaskRecord) -> bool:
        found = self._running.get(record.number)
        if found is None:
            return False
        self._running[record.number] = found.with_state("sent")
        return True

    async def note(self, record: TaskRecord) -> None:
        if found := self._running.get(record.number):
            self._running[record.number] = record.with_state(found.state)

    async def finish(self, record: TaskRecord) -> bool:
        found = self._running.pop(record.number, None)
        if found is None and record.number in self._over:
            return self._settle(record)
        if found is not None and not may_become(found.state, record.state):
            return False
        self._keep(record)
        return True

    def _settle(self, record: TaskRecord) -> bool:
        """Record that the webhook of a finished task was delivered."""
        kept_at, found = self._over[record.number]
        same = found.state == record.state and found.data == record.data
        if same:
            self._over[record.number] = (kept_at, record)
        return same

    def _keep(self, record: TaskRecord) -> None:
        now = time.monotonic()
        self._over[record.number] = (now, record)
        while self._over and (
            len(self._over) + len(self._running) > self._capacity or self._oldest() < now - self._ttl
        ):
            self._over.popitem(last=False)

    def _oldest(self) -> float:
        return next(iter(self._over.values()))[0]

    async def discard(self, record: TaskRecord) -> None:
        self._running.pop(record.number, None)

    async def cancel(self, record: TaskRecord) -> bool:
        found = self._running.get(record.number)
        if found is None or found.state != "queued":
            return False
        del self._running[record.number]
        self._keep(record)
        return True

    async def get(self, number: str) -> TaskRecord | None:
        if found := self._running.get(number):
            return found
        kept_at, record = self._over.get(number, (0.0, None))
        return record if record is not None and kept_at >= time.monotonic() - self._ttl else None

    async def renew(self, records: Sequence[TaskRecord]) -> Sequence[str]:
        return ()

    async def has_forgotten(self) -> bool:
        return False

    async def release(self, record: TaskRecord) -> None:
        """Do nothing: no other process could take it."""

    async def abandoned(self) -> Sequence[TaskRecord]:
        return ()

    async def aclose(self) -> None:
        self._running.clear()
        self._over.clear()
