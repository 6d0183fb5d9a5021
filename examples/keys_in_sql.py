"""A Starlette service whose API keys are in a table of its own database.

The table has hashes, so that whoever reads it learns no key. The function is a plain one: it is called in a thread,
where a database may take its time.

Run:  TOKENLAB_API_KEY=... uvicorn keys_in_sql:app
"""

import hashlib
import os
import secrets
import sqlite3
from contextlib import closing

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Scope

from imagegate import ImageGateway, Principal

DATABASE = os.environ.get("DATABASE", "service.db")


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(DATABASE)
    connection.execute("CREATE TABLE IF NOT EXISTS api_keys (hash TEXT PRIMARY KEY, customer TEXT, models TEXT)")
    return connection


def digest(key: str) -> str:
    # A key of 32 random bytes cannot be guessed, so that a plain hash protects it; a password would need a slow one.
    return hashlib.sha256(key.encode()).hexdigest()


def create_key(customer: str, models: str = "*") -> str:
    """Make a key, which is shown once: the table does not have it."""
    key = f"sk-{secrets.token_urlsafe(32)}"
    with closing(database()) as connection, connection:
        connection.execute("INSERT INTO api_keys VALUES (?, ?, ?)", (digest(key), customer, models))
    return key


def principal_of(scope: Scope) -> Principal | None:
    """Who a request is from; None for a key that is not in the table."""
    scheme, _, key = Request(scope).headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    with closing(database()) as connection:
        row = connection.execute("SELECT customer, models FROM api_keys WHERE hash = ?", (digest(key),)).fetchone()
    return None if row is None else Principal(id=row[0], models=tuple(row[1].split()))


app = Starlette()
app.add_middleware(ImageGateway, access=principal_of)
