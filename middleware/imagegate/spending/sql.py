"""The ledger in SQLite or PostgreSQL: what survives this process, and is the same for all that share the database.

A reservation is one transaction with the check of all budgets, so whatever dies, and whenever: either it is in the
database, or nothing was sent. Transactions of one process are done by one thread, several at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from imagegate.errors import ConfigError
from imagegate.logger import get_logger
from imagegate.spending.accounts import Account
from imagegate.spending.costs import NOTHING
from imagegate.spending.ledger import Balances, LedgerUnavailable, Reservation, Settlement

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from imagegate.spending.sql_statements import Statements

T = TypeVar("T")
Work = Callable[["Statements", "Connection"], Any]

_AT_A_TIME: Final = 64
"""Pieces of work in one transaction."""


class SQLLedger:
    """A ledger in a database.

    Args:
        url: ``sqlite:///file`` or ``postgresql://user@host/database``.
        lease: seconds without a sign of life after which what a process had reserved is held.

    Raises:
        ConfigError: a package is not installed, or the address is none.
    """

    is_shared = True

    def __init__(self, url: str, *, lease: float = 30.0) -> None:
        try:
            from imagegate.spending.sql_statements import Statements
        except ImportError:
            raise ConfigError(
                "a ledger in a database needs the extra 'keys', or 'postgres': pip install 'imagegate[keys]'"
            ) from None
        self.holder = uuid4().hex
        self._statements: Statements = Statements(url, holder=self.holder, lease=lease)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="imagegate-ledger")
        self._waiting: list[tuple[Work, asyncio.Future[Any]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._owed: dict[str, tuple[Settlement, int, bool]] = {}
        """Ends that the database could not be told yet."""

    async def reserve(self, reservation: Reservation, accounts: Sequence[Account]) -> Reservation:
        try:
            made: Reservation = await self._do(lambda statements, db: statements.reserve(db, reservation, accounts))
        except (LedgerUnavailable, asyncio.CancelledError):
            # It may have been made all the same; nothing was sent.
            self._owed[reservation.id] = NOTHING, 0, True
            raise
        if self._owed.get(reservation.id, (None,))[0] == NOTHING:
            del self._owed[reservation.id]  # of an earlier try of the same task
        return made

    async def end(
        self, reservation_id: str, outcome: Settlement, *, images: int = 0, is_holder: bool = True
    ) -> Reservation | None:
        owed = self._owed[reservation_id] = outcome, images, is_holder
        try:
            ended: Reservation | None = await self._do(
                lambda statements, db: statements.end(db, reservation_id, outcome, images, is_holder)
            )
        except LedgerUnavailable:
            return None  # `look_after` tries again
        if self._owed.get(reservation_id) is owed:
            del self._owed[reservation_id]
        return ended

    async def decide(self, reservation_id: str, settled: int) -> Reservation | None:
        decided: Reservation | None = await self._do(
            lambda statements, db: statements.decide(db, reservation_id, settled)
        )
        return decided

    async def note(self, accounts: Sequence[str], created: float, settled: int, images: int) -> None:
        await self._do(lambda statements, db: statements.note(db, accounts, created, settled, images))

    async def look_after(self) -> Sequence[Reservation]:
        for id_, (outcome, images, is_holder) in list(self._owed.items()):
            await self.end(id_, outcome, images=images, is_holder=is_holder)
        held: Sequence[Reservation] = await self._do(lambda statements, db: statements.look_after(db))
        return held

    async def list_held(self, account: str = "") -> Sequence[Reservation]:
        held: Sequence[Reservation] = await self._do(lambda statements, db: statements.list_held(db, account))
        return held

    async def balances(self, periods: Sequence[str], accounts: Sequence[str] = ()) -> Balances:
        found: Balances = await self._do(lambda statements, db: statements.balances(db, periods, accounts))
        return found

    async def aclose(self) -> None:
        with suppress(LedgerUnavailable):
            for id_, (outcome, images, is_holder) in list(self._owed.items()):
                await self.end(id_, outcome, images=images, is_holder=is_holder)
            await self._do(lambda statements, db: statements.leave(db))
        if self._worker is not None:
            await self._worker
        await asyncio.get_running_loop().run_in_executor(self._thread, self._statements.close)
        self._thread.shutdown(wait=False)

    async def _do(self, work: Work) -> Any:
        """Do a piece of work in a transaction. Raises `LedgerUnavailable`: whether it was done is not known."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((work, done))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await done

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            now, self._waiting = self._waiting[:_AT_A_TIME], self._waiting[_AT_A_TIME:]
            try:
                results = await loop.run_in_executor(self._thread, self._statements.run, [work for work, _ in now])
            except Exception as error:
                reason = str(error) if isinstance(error, ConfigError) else type(error).__name__
                get_logger().error("the ledger cannot be reached", error=reason)
                results = [LedgerUnavailable() for _ in now]
            for (_, done), result in zip(now, results, strict=True):
                if done.done():
                    continue
                if isinstance(result, Exception):
                    done.set_exception(result)
                else:
                    done.set_result(result)
