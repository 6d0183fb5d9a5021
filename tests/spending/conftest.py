"""Ledgers in memory, in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.postgres import Postgres

from imagegate.spending.ledger import Ledger
from imagegate.spending.memory import MemoryLedger
from imagegate.spending.sql import SQLLedger


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Ledger]:
    """Opens a ledger."""
    if request.param == "memory":
        return MemoryLedger
    if request.param == "sqlite":
        return lambda: SQLLedger(f"sqlite:///{tmp_path}/ledger.db", lease=0.2)
    server: Postgres = request.getfixturevalue("postgres")
    database = server.new_database()
    return lambda: SQLLedger(database, lease=0.2)
