"""The ledger in SQLite or PostgreSQL: what survives this process, and is the same for all that share the database.

A reservation is one transaction with the check of all budgets, so whatever dies, and whenever: either it is in the
database, or nothing was sent. Transactions of one process are done by one thread, several at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from imagegate.errors import ConfigError
from imagegate.logger import get_logger
from imagegate.spending.accounts import Account
from imagegate.spending.costs import NOTHING
from imagegate.spending.ledger import Balances, LedgerUnavailable, NotDone, Reservation, Settlement, TakenUp

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
        timeout: seconds that a piece of work may take, with those before it; then the ledger counts as away.
        busy: seconds to wait for another process that writes to the same SQLite file.

    Raises:
        ConfigError: a package is not installed, or the address is none.
    """

    is_shared = True

    def __init__(self, url: str, *, lease: float = 30.0, timeout: float = 30.0, busy: float = 15.0) -> None:
        try:
            from imagegate.spending.sql_statements import Statements
        except ImportError:
            raise ConfigError(
                "a ledger in a database needs the extra 'keys', or 'postgres': pip install 'imagegate[keys]'"
            ) from None
        self.holder = uuid4().hex
        self._statements: Statements = Statements(url, holder=self.holder, lease=lease, busy=busy)
        self.timeout = timeout
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="imagegate-ledger")
        self._waiting: dict[asyncio.Future[Any], Work] = {}
        self._worker: asyncio.Task[None] | None = None
        self._owed: dict[str, tuple[Settlement, int, bool]] = {}
        """Ends that the database could not be told yet."""

    async def reserve(
        self, reservation: Reservation, accounts: Sequence[Account], *, takes_up: bool = True
    ) -> Reservation:
        owed = self._owed.get(reservation.id)
        if owed is not None and owed[0] == NOTHING:
            del self._owed[reservation.id]  # of an earlier try of the same task, which is not to be told meanwhile
        else:
            owed = None
        try:
            made: Reservation = await self._do(
                lambda statements, db: statements.reserve(db, reservation, accounts, takes_up=takes_up)
            )
        except BaseException as error:
            if isinstance(error, (LedgerUnavailable, asyncio.CancelledError)) and not isinstance(error, NotDone):
                # It may have been made all the same; nothing was sent.
                self._owed[reservation.id] = NOTHING, 0, True
            elif owed is not None:
                self._owed.setdefault(reservation.id, owed)
            raise
        if not takes_up and made.holder != self.holder:
            raise TakenUp
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
            return None  # `maintain` tries again
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

    async def maintain(self) -> Sequence[Reservation]:
        # A sign of life first: with many ends to be told, others would take this process for dead meanwhile.
        held: Sequence[Reservation] = await self._do(lambda statements, db: statements.maintain(db))
        await self._tell_ends()
        return held

    async def _tell_ends(self) -> None:
        """Tell the ends that are owed, as many at a time as make one transaction, until one is not heard."""
        owed = list(self._owed.items())
        for start in range(0, len(owed), _AT_A_TIME):
            now = [(id_, end) for id_, end in owed[start : start + _AT_A_TIME] if self._owed.get(id_) is end]
            await asyncio.gather(
                *(
                    self.end(id_, outcome, images=images, is_holder=is_holder)
                    for id_, (outcome, images, is_holder) in now
                )
            )
            if now and now[0][0] in self._owed:
                return

    async def list_held(self, account: str = "") -> Sequence[Reservation]:
        held: Sequence[Reservation] = await self._do(lambda statements, db: statements.list_held(db, account))
        return held

    async def balances(self, periods: Sequence[str], accounts: Sequence[str] = ()) -> Balances:
        found: Balances = await self._do(lambda statements, db: statements.balances(db, periods, accounts))
        return found

    async def aclose(self) -> None:
        with suppress(LedgerUnavailable):
            await self._tell_ends()
            await self._do(lambda statements, db: statements.leave(db))
        if self._worker is not None:
            await self._worker
        await asyncio.get_running_loop().run_in_executor(self._thread, self._statements.close)
        self._thread.shutdown(wait=False)

    async def _do(self, work: Work) -> Any:
        """Do a piece of work in a transaction.

        Raises:
            NotDone: it was not done.
            LedgerUnavailable: whether it was done is not known.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting[done] = work
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        try:
            async with asyncio.timeout(self.timeout):
                return await done
        except asyncio.CancelledError:
            self._waiting.pop(done, None)
            raise
        except TimeoutError:
            raise (NotDone if self._waiting.pop(done, None) else LedgerUnavailable) from None

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            now = dict(islice(self._waiting.items(), _AT_A_TIME))
            for done in now:
                del self._waiting[done]
            try:
                results = await loop.run_in_executor(self._thread, self._statements.run, list(now.values()))
            except NotDone as error:
                get_logger().error("the ledger cannot be reached", error=_reason(error.__cause__))
                results = [NotDone() for _ in now]
            except Exception as error:
                get_logger().error("the ledger cannot be reached", error=_reason(error))
                results = [LedgerUnavailable() for _ in now]
            for done, result in zip(now, results, strict=True):
                if done.done():
                    continue
                if isinstance(result, Exception):
                    done.set_exception(result)
                else:
                    done.set_result(result)


def _reason(error: BaseException | None) -> str:
    """Return what is logged of an error, whose text may have the password of the database."""
    return str(error) if isinstance(error, ConfigError) else type(error).__name__
