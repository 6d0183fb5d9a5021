"""Stored keys as requests need them: looked up in a thread, several at once, and remembered for a short while."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from imagegate.access.host import AccessUnavailable
from imagegate.access.principal import Limits, Principal
from imagegate.access.stored_key import StoredKey, hash_of, is_key
from imagegate.logger import get_logger

LookUp = Callable[[Collection[str], float], Mapping[str, StoredKey]]
"""Returns hash -> key for those that are valid at a Unix time; blocks."""
_REMEMBERED: Final = 10_000
"""Keys, and as many texts that are none: strangers crowd out strangers only."""
_AT_ONCE: Final = 500
"""Keys of one lookup."""
_WAITING: Final = 5_000
_LOOKUP_TIMEOUT: Final = 15.0
"""Seconds for one lookup; the database's own limits end it sooner."""


class StoredKeys:
    """Finds holders of stored keys.

    There is one lookup at a time, for all keys that wait for it; so however many strangers try keys, the database has
    one query to answer.

    Args:
        look_up: asks the database, in a thread of its own.
        close: lets go of the database; None: that is the caller's.
        lifetime: seconds for which an answer is remembered, and until a revocation counts at the latest.
        groups: of the configuration.
        clock: Unix time in seconds.
        waiting: maximum number of keys that wait for a lookup; more are told that it is not known now.
        remembered: maximum number of keys, and of texts that are none, whose answers are remembered.
    """

    def __init__(
        self,
        look_up: LookUp,
        *,
        lifetime: float,
        groups: Mapping[str, Limits],
        close: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.time,
        waiting: int = _WAITING,
        remembered: int = _REMEMBERED,
    ) -> None:
        self._look_up = look_up
        self._close = close
        self._lifetime = lifetime
        self._groups = groups
        self._clock = clock
        self._most_waiting = waiting
        self._most_remembered = remembered
        self._known: OrderedDict[str, tuple[float, Principal]] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._thread: ThreadPoolExecutor | None = None
        self.enter_loop()

    def enter_loop(self) -> None:
        """Serve another event loop, to which those who wait then belong."""
        self._waiting: dict[str, asyncio.Future[Principal | None]] = {}
        self._worker: asyncio.Task[None] | None = None

    def known(self, key: bytes) -> Principal | None:
        """Return the holder of a key, where that is remembered."""
        if not is_key(key):
            return None
        remembered = self._known.get(hash_of(key))
        return remembered[1] if remembered is not None and remembered[0] > self._clock() else None

    async def find(self, key: bytes) -> Principal | None:
        """Return the holder of a key; None: there is no such key. Raises `AccessUnavailable`."""
        if not is_key(key):
            return None
        hash_ = hash_of(key)
        if self._unknown.get(hash_, 0.0) > self._clock():
            return None
        future = self._waiting.get(hash_)
        if future is None:
            if len(self._waiting) >= self._most_waiting:
                raise AccessUnavailable
            future = self._waiting[hash_] = asyncio.get_running_loop().create_future()
            if self._worker is None:
                self._worker = asyncio.create_task(self._work())
        return await asyncio.shield(future)

    async def _work(self) -> None:
        try:
            while batch := list(self._waiting)[:_AT_ONCE]:
                await self._answer(batch)
        finally:
            self._worker = None

    async def _answer(self, batch: Collection[str]) -> None:
        failure: AccessUnavailable | None = None
        found: Mapping[str, StoredKey] = {}
        now = self._clock()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="imagegate-keys")
        try:
            asking = asyncio.get_running_loop().run_in_executor(self._thread, self._look_up, batch, now)
            async with asyncio.timeout(_LOOKUP_TIMEOUT):
                found = await asking
        except Exception as error:
            # Its text is not logged: it may have the password of the database.
            get_logger().error("stored keys cannot be looked up", error=type(error).__name__)
            failure = AccessUnavailable()
        for hash_ in batch:
            self._tell(hash_, found.get(hash_), now, failure)

    def _tell(self, hash_: str, key: StoredKey | None, now: float, failure: AccessUnavailable | None) -> None:
        principal = None
        if key is not None and failure is None:
            try:
                principal = key.principal(self._groups)
            except LookupError as error:
                get_logger().error(
                    "a key is of a group that the configuration does not have", key=key.id, group=str(error)
                )
                failure = AccessUnavailable()
        future = self._waiting.pop(hash_)
        if failure is not None:
            self._known.pop(hash_, None)
            if not future.done():
                future.set_exception(failure)
                future.exception()  # those who waited may have left
            return
        self._remember(hash_, key, principal, now)
        if not future.done():
            future.set_result(principal)

    def _remember(self, hash_: str, key: StoredKey | None, principal: Principal | None, now: float) -> None:
        """Count from before the lookup: what was revoked meanwhile is not remembered for longer."""
        self._known.pop(hash_, None)
        self._unknown.pop(hash_, None)
        until = now + self._lifetime
        if key is None or principal is None:
            self._unknown[hash_] = until
        else:
            self._known[hash_] = (until if key.expires is None else min(until, key.expires)), principal
        for remembered in (self._known, self._unknown):
            while len(remembered) > self._most_remembered:
                remembered.popitem(last=False)

    def close(self) -> None:
        """Let the thread end, after the lookup that it is at."""
        if self._thread is not None:
            if self._close is not None:
                self._thread.submit(self._close)
            self._thread.shutdown(wait=False)
            self._thread = None
