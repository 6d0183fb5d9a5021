"""The schema of databases with keys, the ledger, or both: one history of migrations. Needs SQLAlchemy; blocks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.util import CommandError
from sqlalchemy import Connection, text

from imagegate.errors import ConfigError

MIGRATIONS: Final = Path(__file__).parent / "migrations"
VERSIONS: Final = "imagegate_keys_version"
"""Table of the schema's version, named when keys were all there was; other tools may keep theirs in the database."""
_LOCK: Final = text(f"SELECT pg_advisory_xact_lock({0x696D6765})")
"""Of PostgreSQL: one process changes the schema at a time."""

_TIMEOUT: Final = 5
"""Seconds for a connection, and for a pause within a transaction."""
_STATEMENT: Final = 15
"""Seconds for a statement with its wait for a lock, behind the transactions of many processes."""
POSTGRES_OPTIONS: Final[Mapping[str, Any]] = {
    "connect_timeout": _TIMEOUT,
    "options": f"-c statement_timeout={_STATEMENT}s -c idle_in_transaction_session_timeout={_TIMEOUT}s",
    # A server that is silent, as behind a broken network, is given up as soon.
    "tcp_user_timeout": 1000 * _TIMEOUT,
    "keepalives_idle": _TIMEOUT,
    "keepalives_interval": 1,
    "keepalives_count": 3,
}
"""Of libpq: so that neither the server, nor a process that is suspended within a transaction, holds others up."""


def upgrade(connection: Connection) -> None:
    """Bring the schema up to date, within the connection's transaction, which in SQLite must be an immediate one.

    Raises:
        ConfigError: the database is of a newer version of the gateway.
        sqlalchemy.exc.SQLAlchemyError: it cannot be used.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK)
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # a large table takes its time
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise ConfigError("the database was made by a newer version of imagegate; this one cannot use it") from None
