"""Databases of keys and of the ledger: one history of migrations, whoever opens them first, and whatever was there."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, create_engine, inspect, text
from tests.postgres import Postgres

from imagegate import ConfigError, Limits
from imagegate.access import database as access
from imagegate.access.key_table import KeyTable
from imagegate.access.stored_key import KeySettings
from imagegate.spending import tables
from imagegate.spending.accounts import Account
from imagegate.spending.costs import Outcome
from imagegate.spending.ledger import LedgerUnavailable, Reservation, day_of
from imagegate.spending.sql import SQLLedger
from imagegate.stores.schema import VERSIONS

ACCOUNTS = (Account("key:a", Limits(spend_per_day=1.0)),)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/one.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


def reservation(name: str, created: float) -> Reservation:
    return Reservation(id=name, accounts=("key:a",), amount=250, images=1, created=created)


async def spend(url: str, name: str, created: float | None = None) -> int:
    """Reserve and settle; return what is settled on that day."""
    moment = time.time() if created is None else created
    ledger = SQLLedger(url)
    try:
        await ledger.reserve(reservation(name, moment), ACCOUNTS)
        await ledger.end(name, Outcome(200, 0))
        day = day_of(moment)
        return (await ledger.balances([day]))["key:a", day].settled
    finally:
        await ledger.aclose()


def use_keys(url: str, name: str) -> list[str]:
    table = KeyTable.at(url)
    try:
        table.create(name, KeySettings())
        return sorted(each.name for each in table.list())
    finally:
        table.close()


def engine(url: str):  # type: ignore[no-untyped-def]
    return create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1))


def check(url: str) -> None:
    """The schema is what the code declares."""
    declared = MetaData()
    for each in (access.metadata, tables.metadata):
        for table in each.tables.values():
            table.to_metadata(declared)
    opened = engine(url)
    with opened.connect() as db:
        ours = MigrationContext.configure(db, opts={"version_table": VERSIONS})
        assert compare_metadata(ours, declared) == []
    opened.dispose()


def test_keys_and_ledger_in_one_database(url: str) -> None:
    """Whichever comes first, a second time nothing changes."""
    assert use_keys(url, "first") == ["first"]
    check(url)
    for number in range(2):
        assert asyncio.run(spend(url, str(number))) == 200 * (number + 1)
    assert use_keys(url, "second") == ["first", "second"]
    check(url)


def test_a_ledger_that_had_no_migrations_is_gone_on_with(url: str) -> None:
    """As version 0.1.0 made it: tables without a version, with money in them; and its keys, which had one."""
    old = engine(url)
    with old.begin() as db:
        tables.metadata.create_all(db)
        db.execute(text("DROP INDEX ix_imagegate_reservations_created"))
        values = {"account": "key:a", "period": day_of(time.time()), "settled": 700}
        zeros = dict.fromkeys(("reserved", "held", "requests", "images"), 0)
        db.execute(tables.balances.insert().values({**values, **zeros}))
        access.metadata.create_all(db)
        db.execute(text(f"CREATE TABLE {VERSIONS} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        db.execute(text(f"INSERT INTO {VERSIONS} VALUES ('0001')"))
    old.dispose()
    assert asyncio.run(spend(url, "a")) == 900
    assert use_keys(url, "alice") == ["alice"]
    check(url)


def test_a_ledger_alone_that_had_no_migrations(url: str) -> None:
    old = engine(url)
    with old.begin() as db:
        tables.metadata.create_all(db)
        db.execute(text("DROP INDEX ix_imagegate_reservations_created"))
    old.dispose()
    assert asyncio.run(spend(url, "a")) == 200
    check(url)


def test_keys_and_ledger_begin_at_the_same_moment(url: str) -> None:
    """Several of each, in a database that is empty."""

    def begin(place: int) -> None:
        if place % 2:
            use_keys(url, f"key-{place}")
        else:
            asyncio.run(spend(url, str(place)))

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(begin, range(6)))
    check(url)
    assert asyncio.run(spend(url, "last")) == 200 * 4
    assert len(use_keys(url, "last")) == 4


def test_a_database_of_a_newer_version(url: str) -> None:
    """It is not touched, and nothing is spent."""
    asyncio.run(spend(url, "a"))
    newer = engine(url)
    with newer.begin() as db:
        db.execute(text(f"UPDATE {VERSIONS} SET version_num = '9999'"))
    with pytest.raises(LedgerUnavailable):
        asyncio.run(spend(url, "b"))
    with pytest.raises(ConfigError, match="newer version"):
        use_keys(url, "alice")
    with newer.begin() as db:
        assert db.scalar(text(f"SELECT version_num FROM {VERSIONS}")) == "9999"
        assert db.scalar(text("SELECT count(*) FROM imagegate_reservations")) == 1
        assert inspect(db).has_table("imagegate_keys")
    newer.dispose()


def test_reservations_that_ended_long_ago_are_forgotten(url: str) -> None:
    """Their balances stay, and so does what is held."""
    long_ago = time.time() - 41 * 86400

    async def scenario() -> None:
        await spend(url, "old", long_ago)
        await spend(url, "new")
        ledger = SQLLedger(url)
        await ledger.reserve(reservation("held", long_ago), ACCOUNTS)
        await ledger.end("held", Outcome(0, 250))
        await ledger.maintain()
        assert [await ledger.end(name, Outcome(0, 0)) is None for name in ("old", "new", "held")] == [
            True,
            False,
            False,
        ]
        day = day_of(long_ago)
        assert (await ledger.balances([day]))["key:a", day].settled == 200
        await ledger.aclose()

    asyncio.run(scenario())
