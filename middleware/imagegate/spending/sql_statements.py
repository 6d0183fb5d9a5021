"""The tables of the ledger, and its transactions; needs SQLAlchemy. Runs in one thread."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import msgspec
from sqlalchemy import (
    Connection,
    Engine,
    Row,
    Table,
    create_engine,
    event,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from imagegate.errors import ConfigError, ImagegateError
from imagegate.logger import get_logger
from imagegate.spending import tables
from imagegate.spending.accounts import Account
from imagegate.spending.costs import NOTHING, Outcome
from imagegate.spending.ledger import (
    Balance,
    Balances,
    LedgerUnavailable,
    NotDone,
    Reservation,
    Settlement,
    check,
    step_between,
)
from imagegate.stores.schema import POSTGRES_OPTIONS, upgrade

_NOW: Final = {
    "postgresql": "extract(epoch from clock_timestamp())",
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
}
_TAKE_TURN: Final = text(f"SELECT pg_advisory_xact_lock({0x696D6761})")
"""Transactions of all processes take turns. Nearly all change the gateway's own balance, so they would anyway, but with
locks on single rows some would wait for each other for ever."""
_PAUSE: Final = 0.01
"""Seconds before it is tried again where SQLite itself does not wait."""
_MOST_HELD: Final = 10_000
_KEPT: Final = 40 * 86400
"""Seconds for which a reservation is kept that has ended, longer than anything can still refer to it."""
_AT_A_TIME: Final = 1000
_FAULTY_VALUES: Final = (DataError, IntegrityError, ValueError, OverflowError)
"""What a driver raises for a value that a column cannot have; the database itself is well."""
_FIELDS: Final = ("settled", "reserved", "held", "requests", "images")


Work = Callable[["Statements", Connection], Any]


class _Undone(Exception):
    """A piece of work failed, and all were rolled back."""


class _Faulty(NotDone):
    """It was not done, and others may be."""


def _refused(error: BaseException | None) -> NotDone:
    if isinstance(error, _FAULTY_VALUES):
        get_logger().error("the ledger does not take a value", error=type(error).__name__)
        return _Faulty()
    return NotDone()


class Statements:
    """Transactions of one process.

    Args:
        url: of the database.
        holder: name of this process.
        lease: seconds without a sign of life after which a process counts as dead.
    """

    def __init__(self, url: str, *, holder: str, lease: float, busy: float = 15.0) -> None:
        self._engine = _engine(url, busy)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._insert: Callable[[Table], Any] = sqlite.insert if self._is_sqlite else postgresql.insert
        self._now: Any = literal_column(_NOW[self._engine.dialect.name])
        self._holder = holder
        self._lease = lease
        self._is_ready = False
        self._known: set[tuple[str, str]] = set()
        """Accounts and periods that have a row."""

    def run(self, works: Sequence[Work]) -> list[Any]:
        """Do several pieces of work in one transaction, and return their results and refusals.

        Raises:
            NotDone: nothing of it was done: the database cannot be reached, or is of a newer version.
            SQLAlchemyError: the connection broke while it was committed, so that it may have been done.
        """
        known = set(self._known)
        try:
            return self._try(works)
        except _Undone as undone:
            self._known = known  # rows that were rolled back
            if len(works) == 1:
                return [_refused(undone.__cause__)]
        except (NotDone, SQLAlchemyError):
            self._known = known
            raise
        results: list[Any] = []
        for work in works:  # so that the faulty values of one are not the fault of the others
            is_away = bool(results) and type(results[-1]) is NotDone
            results.append(NotDone() if is_away else self._alone(work))
        return results

    def _alone(self, work: Work) -> Any:
        """Do one piece of work, and return its result or the reason why there is none."""
        known = set(self._known)
        try:
            return self._try([work])[0]
        except NotDone as error:
            return error
        except _Undone as undone:
            self._known = known
            return _refused(undone.__cause__)
        except SQLAlchemyError:
            self._known = known
            return LedgerUnavailable()

    def _try(self, works: Sequence[Work]) -> list[Any]:
        results: list[Any] = []
        with self._opened() as db:
            try:
                for work in works:
                    try:
                        results.append(work(self, db))
                    except ImagegateError as error:  # a refusal: nothing was written for it
                        results.append(error)
            except (SQLAlchemyError, *_FAULTY_VALUES) as error:
                raise _Undone from error
        self._is_ready = True
        return results

    @contextmanager
    def _opened(self) -> Generator[Connection]:
        """Open a transaction, once it is its turn. Raises `NotDone`."""
        with ExitStack() as stack:
            try:
                db = stack.enter_context(self._engine.connect())
                stack.enter_context(db.begin())
                if not self._is_sqlite:  # which has one writer at a time anyway
                    db.execute(_TAKE_TURN)
                if not self._is_ready:
                    self._prepare(db)
            except (SQLAlchemyError, OSError, ConfigError) as error:
                raise NotDone from error
            yield db

    def _prepare(self, db: Connection) -> None:
        upgrade(db)
        self._tell(db)

    def reserve(
        self, db: Connection, reservation: Reservation, accounts: Sequence[Account], *, takes_up: bool
    ) -> Reservation:
        """Make a reservation, or take it up again; that of another process stays its own unless `takes_up`.

        Raises:
            InsufficientQuota: it does not fit.
        """
        reservation = msgspec.structs.replace(reservation, holder=self._holder)
        balances = self._read(db, reservation)
        try:
            check(accounts, balances, reservation)
        except ImagegateError:
            if (known := self._find(db, reservation.id)) and known.state != "released":
                return self._take_up(db, known) if takes_up else known
            raise
        row = msgspec.structs.asdict(reservation) | {"accounts": _encode(reservation.accounts)}
        row["model"] = reservation.model.replace("\0", "\N{REPLACEMENT CHARACTER}")  # PostgreSQL has none in texts
        table = tables.reservations
        inserted = self._insert(table).values(row).on_conflict_do_nothing().returning(table.c.id)
        if db.execute(inserted).first() is None:
            known = self._find(db, reservation.id)
            if known is None:
                raise AssertionError("a row that is in the way is there")
            if known.state != "released":
                return self._take_up(db, known) if takes_up else known
            # Nothing of it counts any more.
            db.execute(table.update().where(table.c.id == known.id).values(row))
            self._move(db, None, reservation)
            return reservation
        self._move(db, None, reservation, requests=1)
        return reservation

    def _take_up(self, db: Connection, known: Reservation) -> Reservation:
        """Make a reservation this process's, whoever made it."""
        db.execute(tables.reservations.update().where(tables.reservations.c.id == known.id).values(holder=self._holder))
        return msgspec.structs.replace(known, holder=self._holder)

    def end(
        self, db: Connection, reservation_id: str, outcome: Settlement, images: int, is_holder: bool
    ) -> Reservation | None:
        """Settle, release or hold a reservation."""
        before = self._find(db, reservation_id)
        if before is None:
            return None
        found = outcome(before) if callable(outcome) else outcome
        if is_holder and found == NOTHING and not images and before.holder != self._holder:
            return before
        return self._step(db, before, before.ended(found, images), images)

    def decide(self, db: Connection, reservation_id: str, settled: int) -> Reservation | None:
        """Settle or release what is held."""
        before = self._find(db, reservation_id)
        return before and self._step(db, before, before.decided(settled), 0)

    def _step(self, db: Connection, before: Reservation, after: Reservation, images: int) -> Reservation:
        if after == before:
            return before
        values = {"state": after.state, "settled": after.settled, "held": after.held}
        db.execute(tables.reservations.update().where(tables.reservations.c.id == after.id).values(values))
        self._move(db, before, after, images=images)
        return after

    def note(self, db: Connection, accounts: Sequence[str], created: float, settled: int, images: int) -> None:
        """Count a request that needed no reservation."""
        done = Reservation(
            id="", accounts=tuple(accounts), amount=0, images=images, created=created, state="settled", settled=settled
        )
        self._read(db, done)
        self._move(db, None, done, requests=1, images=images)

    def _move(
        self, db: Connection, before: Reservation | None, after: Reservation, *, requests: int = 0, images: int = 0
    ) -> None:
        step = step_between(before, after, requests=requests, images=images)
        values = {name: tables.balances.c[name] + getattr(step, name) for name in _FIELDS if getattr(step, name)}
        if values:
            db.execute(tables.balances.update().where(*_rows(after)).values(values))

    def _read(self, db: Connection, reservation: Reservation) -> Balances:
        """Return the balances that a reservation is part of; they have rows from then on."""
        keys = sorted((account, period) for account in reservation.accounts for period in reservation.periods)
        if missing := [key for key in keys if key not in self._known]:
            rows = [{"account": key[0], "period": key[1], **dict.fromkeys(_FIELDS, 0)} for key in missing]
            db.execute(self._insert(tables.balances).values(rows).on_conflict_do_nothing())
            self._known.update(missing)
            if len(self._known) > _MOST_HELD:
                self._known.clear()
        asked = select(tables.balances).where(*_rows(reservation))
        return {(row.account, row.period): _balance(row) for row in db.execute(asked)}

    def _find(self, db: Connection, reservation_id: str) -> Reservation | None:
        row = db.execute(select(tables.reservations).where(tables.reservations.c.id == reservation_id)).first()
        return None if row is None else _reservation(row)

    def maintain(self, db: Connection) -> list[Reservation]:
        """Tell that this process lives, and hold what dead ones had reserved."""
        self._tell(db)
        living = select(tables.holders.c.id).where(tables.holders.c.seen > self._now - self._lease)
        asked = select(tables.reservations).where(
            tables.reservations.c.state == "reserved", tables.reservations.c.holder.not_in(living)
        )
        rows = db.execute(asked.limit(_AT_A_TIME)).all()
        found = [_reservation(row) for row in rows]
        self._forget(db)
        db.execute(tables.holders.delete().where(tables.holders.c.seen < self._now - 100 * self._lease))
        return [self._step(db, each, each.ended(Outcome(0, each.amount)), 0) for each in found]

    def _forget(self, db: Connection) -> None:
        """Remove reservations that have ended long ago; balances stay."""
        table = tables.reservations
        old = select(table.c.id).where(table.c.created < self._now - _KEPT, table.c.state.in_(("settled", "released")))
        db.execute(table.delete().where(table.c.id.in_(old.limit(_AT_A_TIME))))

    def _tell(self, db: Connection) -> None:
        told = self._insert(tables.holders).values(id=self._holder, seen=self._now)
        db.execute(told.on_conflict_do_update(index_elements=["id"], set_={"seen": self._now}))

    def leave(self, db: Connection) -> None:
        """Tell that this process has ended: what it still has reserved is held at once."""
        db.execute(tables.holders.delete().where(tables.holders.c.id == self._holder))

    def list_held(self, db: Connection, account: str) -> list[Reservation]:
        """Return what is held, the oldest first."""
        asked = (
            select(tables.reservations)
            .where(tables.reservations.c.state == "held")
            .order_by(tables.reservations.c.created)
        )
        held = [_reservation(row) for row in db.execute(asked.limit(_MOST_HELD))]
        return [each for each in held if not account or account in each.accounts]

    def balances(self, db: Connection, periods: Sequence[str], accounts: Sequence[str]) -> Balances:
        """Return the balances of periods."""
        asked = select(tables.balances).where(tables.balances.c.period.in_(periods))
        if accounts:
            asked = asked.where(tables.balances.c.account.in_(accounts))
        return {(row.account, row.period): _balance(row) for row in db.execute(asked)}

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _rows(reservation: Reservation) -> tuple[Any, Any]:
    return tables.balances.c.account.in_(reservation.accounts), tables.balances.c.period.in_(reservation.periods)


def _balance(row: Row[Any]) -> Balance:
    return Balance(**{name: getattr(row, name) for name in _FIELDS})


def _reservation(row: Row[Any]) -> Reservation:
    return Reservation(
        id=row.id,
        accounts=tuple(msgspec.json.decode(row.accounts)),
        amount=row.amount,
        images=row.images,
        created=row.created,
        model=row.model,
        request_id=row.request_id,
        holder=row.holder,
        state=row.state,
        settled=row.settled,
        held=row.held,
    )


def _encode(accounts: Sequence[str]) -> str:
    return msgspec.json.encode(accounts).decode()


def _engine(address: str, busy: float) -> Engine:
    try:
        url = make_url(address)
        if url.get_backend_name() not in _NOW:
            raise ArgumentError("another database")
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        options = POSTGRES_OPTIONS if url.get_backend_name() == "postgresql" else {}
        engine = create_engine(url, connect_args=options, pool_pre_ping=True, pool_size=1, max_overflow=1)
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise ConfigError("the address of a ledger is sqlite:///FILE or postgresql://USER@HOST/DATABASE") from None
    if engine.dialect.name == "sqlite":
        _tune(engine, busy)
    return engine


def _tune(engine: Engine, busy: float) -> None:
    """Let several processes write to one file: a transaction takes its turn before it reads what it will change.

    Args:
        busy: seconds to wait for it.
    """

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun here, not by the driver
        connection.execute(f"PRAGMA busy_timeout = {int(busy * 1000)}")
        _use_write_ahead_log(connection, busy)
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begun(db: Connection) -> None:
        db.exec_driver_sql("BEGIN IMMEDIATE")


def _use_write_ahead_log(connection: Any, busy: float) -> None:
    """Switch the file over, once: SQLite does not wait for other processes here, whatever the busy timeout is."""
    deadline = time.monotonic() + busy
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)
