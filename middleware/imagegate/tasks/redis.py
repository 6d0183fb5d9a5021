"""Tasks in Redis, shared by processes: what a dead one had not yet sent is done by another.

A task is a hash with an expiry, ``{imagegate}:task:NUMBER``. Tasks at work also stand in the stream
``{imagegate}:tasks``: its consumer group knows which process holds each entry and since when it was silent. The
``holder`` of the hash decides, not the group: every step is a script that compares it, so that a process that only
seemed dead finds out before it sends anything. A renewal says again what Redis has forgotten
(`imagegate.stores.redis_memory`).

``version`` is that of the record. What this process cannot read stays where it is, for one that can.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from imagegate.logger import get_logger
from imagegate.stores.redis_client import RedisClient, RedisFailed, Script
from imagegate.stores.redis_memory import LOOK, POLICY, SERVER_KEY, Memory, Recent
from imagegate.stores.unavailable import StoreUnavailable
from imagegate.tasks import redis_scripts as scripts
from imagegate.tasks.base import TaskUnreadable
from imagegate.tasks.records import RECORD_VERSION, State, TaskRecord

_PREFIX: Final = "{imagegate}:task:"
_STREAM: Final = "{imagegate}:tasks"
_GROUP: Final = "imagegate"
_TAKEN_AT_ONCE: Final = 20
_RENEWED_AT_ONCE: Final = 500
_RESTORED_AT_ONCE: Final = 50
_RUNNING_TTL: Final = 2
"""Times the expiry of tasks that are over: one at work must not vanish before it ends."""
_LONGEST_SLEEP: Final = 1.0

_DECODER: Final = msgspec.json.Decoder(TaskRecord)


class RedisTaskStore:
    """Keeps tasks for `ttl` seconds.

    Args:
        client: closed with the store.
        lease: seconds; a process that has not renewed for so long is taken for dead.
        on_unreadable: is called once for a record that cannot be read; it stays in place.
    """

    is_shared = True

    def __init__(
        self,
        client: RedisClient,
        *,
        ttl: float,
        lease: float,
        on_unreadable: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._client = client
        self._expiry = int(ttl * 1000)
        self._ttl = ttl
        self._lease = int(lease * 1000)
        self._holder = secrets.token_hex(8)
        self._on_unreadable = on_unreadable
        self._recent = Recent[tuple[TaskRecord, bytes]]()
        self._memory = Memory()
        self._next = "-"
        """Where the next look for abandoned tasks begins in the stream."""

    async def add(self, record: TaskRecord) -> None:
        await self._add(record, is_new=True)

    async def _add(self, record: TaskRecord, *, is_new: bool) -> None:
        await self._run(
            scripts.ADD,
            [_key(record), _STREAM, SERVER_KEY],
            *(_GROUP, self._holder, record.number, record.state, msgspec.json.encode(record)),
            *(self._expiry * _RUNNING_TTL, RECORD_VERSION, self._lease, self._memory.known),
            *(int(is_new), int(record.provider is not None)),
        )

    async def mark_sent(self, record: TaskRecord) -> bool:
        keys = [_key(record), SERVER_KEY]
        while True:
            found, wait = await self._run(scripts.SENT, keys, self._holder, self._lease, self._memory.known)
            if found == -1:  # Redis has lost its memory
                await self._add(record, is_new=False)
            elif wait:
                await asyncio.sleep(min(wait / 1000, _LONGEST_SLEEP))
            else:
                return bool(found)

    async def note(self, record: TaskRecord) -> None:
        await self._run(scripts.NOTE, [_key(record)], self._holder, msgspec.json.encode(record), RECORD_VERSION)

    async def finish(self, record: TaskRecord) -> bool:
        kept = msgspec.json.encode(record)
        keys = [_key(record), _STREAM]
        arguments = (_GROUP, self._holder, record.state, kept, self._expiry, _stays_held(record), RECORD_VERSION)
        is_kept = bool(await self._run(scripts.FINISH, keys, *arguments, int(record.is_unknown)))
        if is_kept:
            self._recent.add(record.number, (record, kept), size=2 * len(kept) + 512, ttl=self._ttl)
        return is_kept

    async def discard(self, record: TaskRecord) -> None:
        await self._run(scripts.DISCARD, [_key(record), _STREAM], _GROUP, self._holder)
        self._recent.add(record.number, (record, b""), size=512, ttl=self._ttl)

    async def cancel(self, record: TaskRecord) -> bool:
        kept = msgspec.json.encode(record)
        arguments = (_GROUP, kept, self._expiry, _stays_held(record), RECORD_VERSION)
        return bool(await self._run(scripts.CANCEL, [_key(record), _STREAM], *arguments))

    async def get(self, number: str) -> TaskRecord | None:
        record, state, version, is_unsure = await self._run(
            scripts.GET, [_PREFIX + number, SERVER_KEY], self._lease, self._memory.known
        )
        if record is not None:
            return _decode(record, state, version)
        if (known := self._recent.get(number)) and known[1]:
            return known[0]
        if is_unsure:
            raise StoreUnavailable
        return None

    async def renew(self, records: Sequence[TaskRecord]) -> Sequence[str]:
        lost: list[str] = []
        memory: Sequence[bytes] = ()
        for start in range(0, max(1, len(records)), _RENEWED_AT_ONCE):
            memory = await self._renew(records[start : start + _RENEWED_AT_ONCE], lost)
        if self._memory.has_changed(memory):
            await self._restore()
        if self._memory.renewed(memory) and (policy := await self._run(POLICY, [SERVER_KEY], for_lease=True)):
            get_logger().warning("tasks: Redis evicts keys, so a task that is evicted is lost", policy=policy.decode())
        return lost

    async def has_forgotten(self) -> bool:
        found = await self._run(LOOK, [SERVER_KEY], self._lease, self._memory.known, for_lease=True)
        return self._memory.has_changed(found)

    async def _renew(self, records: Sequence[TaskRecord], lost: list[str]) -> Sequence[bytes]:
        """Renew some, note those that are lost, and return what Redis remembers."""
        arguments: list[str | bytes | int] = [_GROUP, self._holder, self._lease, self._memory.known]
        arguments.append(self._expiry * _RUNNING_TTL)
        for record in records:
            arguments += (record.number, record.state, int(record.provider is not None))
        keys = [_STREAM, SERVER_KEY, *(_key(record) for record in records)]
        memory, *found = await self._run(scripts.RENEW, keys, *arguments, for_lease=True)
        for record, held in zip(records, found, strict=True):
            if held == scripts.UNKNOWN:
                await self._add(record, is_new=False)
            elif held == scripts.OUTDATED:
                await self.note(record)
            elif not held:
                lost.append(record.number)
        return list(memory)

    async def _restore(self) -> None:
        """Write again what has ended in this process, and Redis may not know."""
        waiting = list(self._recent)
        while waiting:
            part, waiting = waiting[:_RESTORED_AT_ONCE], waiting[_RESTORED_AT_ONCE:]
            arguments: list[str | bytes | int] = [_GROUP, self._holder, RECORD_VERSION]
            for _, (record, kept), left in part:
                arguments += (record.state, kept, max(1, int(left * 1000)), _stays_held(record))
            keys = [_STREAM, *(_PREFIX + number for number, _, _ in part)]
            await self._run(scripts.RESTORE, keys, *arguments, for_lease=True)

    async def release(self, record: TaskRecord) -> None:
        await self._run(scripts.RELEASE, [_key(record), _STREAM], _GROUP, self._holder)

    async def abandoned(self) -> Sequence[TaskRecord]:
        self._next, *found = await self._run(
            scripts.TAKE,
            [_STREAM, SERVER_KEY],
            *(_GROUP, self._holder, self._lease, _TAKEN_AT_ONCE, _PREFIX, RECORD_VERSION, self._next),
            self._memory.known,
        )
        taken: list[TaskRecord] = []
        for number, record, state, version, takes in found:
            try:
                taken.append(_decode(record, state, version, takes=takes))
            except TaskUnreadable:
                await self._run(scripts.PARK, [_PREFIX + number.decode()], self._holder, RECORD_VERSION)
                self._on_unreadable(_PREFIX + number.decode())
        return taken

    async def aclose(self) -> None:
        try:
            await self._client.run(scripts.LEAVE, [_STREAM], _GROUP, self._holder)
        except RedisFailed:
            pass  # it is only tidying up
        finally:
            await self._client.aclose()

    async def _run(
        self, script: Script, keys: Sequence[str], *arguments: str | bytes | int, for_lease: bool = False
    ) -> Any:
        try:
            return await self._client.run(script, keys, *arguments, for_lease=for_lease)
        except RedisFailed as error:
            raise StoreUnavailable from error


def _stays_held(record: TaskRecord) -> int:
    return int(bool(record.callback_url) and not record.told)


def _key(record: TaskRecord) -> str:
    return _PREFIX + record.number


def _decode(record: bytes, state: bytes, version: bytes | None = None, *, takes: int = 0) -> TaskRecord:
    """Read a record with the state beside it, which is the one that counts. Raises `TaskUnreadable`."""
    try:
        if int(version or 1) > RECORD_VERSION:
            raise TaskUnreadable
        found = _DECODER.decode(record)
        known = msgspec.convert(state.decode(), State)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise TaskUnreadable from error
    return msgspec.structs.replace(found, state=known, takes=takes)
