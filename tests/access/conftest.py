"""Databases for stored keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.postgres import Postgres


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sub/keys.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()
