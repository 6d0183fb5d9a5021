"""The database of stored keys: SQLite in one file, or PostgreSQL. Needs the extra ``keys``. Everything here blocks."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    text,
)

from imagegate.access.stored_key import POSTGRES, SQLITE
from imagegate.errors import ConfigError
from imagegate.stores.schema import POSTGRES_OPTIONS, upgrade

_TIMEOUT: Final = 5
"""Seconds for a connection, for a statement, and for a lock."""
_IMMEDIATE: Final = "imagegate_immediate"

metadata: Final = MetaData()
keys: Final = Table(
    "imagegate_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("settings", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("revoked", BigInteger),
    Column("last_used", BigInteger),
    Index(
        "imagegate_keys_name",
        "name",
        unique=True,
        sqlite_where=text("revoked IS NULL"),
        postgresql_where=text("revoked IS NULL"),
    ),
)
key_secrets: Final = Table(
    "imagegate_key_secrets",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("key_id", String(64), ForeignKey(keys.c.id), nullable=False, index=True),
    Column("prefix", String(16), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
)


class Database:
    """Connections to the database, whose schema is brought up to date before the first use.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql://USER:PASSWORD@HOST/DATABASE``.

    Raises:
        ConfigError: it is neither.
    """

    def __init__(self, url: str) -> None:
        self._file: Path | None = None
        if url.startswith(SQLITE):
            self._file = Path(url.removeprefix(SQLITE))
            self._engine = create_engine(url, connect_args={"timeout": _TIMEOUT, "check_same_thread": False})
            event.listen(self._engine, "connect", _leave_transactions_to_us)
            event.listen(self._engine, "begin", _begin)
        elif url.startswith(POSTGRES):
            self._engine = create_engine(
                url.replace("postgresql:", "postgresql+psycopg:", 1),
                connect_args=dict(POSTGRES_OPTIONS),
                pool_pre_ping=True,
                pool_size=2,
            )
        else:
            raise ConfigError(f"access.store: must be {SQLITE}FILE or {POSTGRES}USER:PASSWORD@HOST/DATABASE")
        self._is_ready = False

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Open a transaction that reads. Raises `sqlalchemy.exc.SQLAlchemyError` and `OSError`."""
        self._prepare()
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """Open a transaction that writes. Raises `sqlalchemy.exc.SQLAlchemyError` and `OSError`."""
        self._prepare()
        with self._engine.connect().execution_options(**{_IMMEDIATE: True}) as connection, connection.begin():
            yield connection

    def _prepare(self) -> None:
        if self._is_ready:
            return
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600))  # it holds names of keys
        with self._engine.connect().execution_options(**{_IMMEDIATE: True}) as connection, connection.begin():
            upgrade(connection)
        self._is_ready = True

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _leave_transactions_to_us(connection: Any, _: Any) -> None:
    # Python's driver begins none before statements that change the schema.
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    # A transaction that will write waits for others before it has read anything.
    immediate = connection.get_execution_options().get(_IMMEDIATE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
