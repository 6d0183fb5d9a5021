"""The schema of databases with keys, the ledger, or both: one history of migrations. Needs SQLAlchemy; blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Final

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


def upgrade(connection: Connection) -> None:
    """Bring the schema up to date, within the connection's transaction, which in SQLite must be an immediate one.

    Raises:
        ConfigError: the database is of a newer version of the gateway.
        sqlalchemy.exc.SQLAlchemyError: it cannot be used.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK)
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise ConfigError("the database was made by a newer version of imagegate; this one cannot use it") from None
