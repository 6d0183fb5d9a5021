"""The tables of the ledger, as the migrations make them; needs SQLAlchemy."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Float, Integer, MetaData, String, Table, Text

metadata: Final = MetaData()
reservations: Final = Table(
    "imagegate_reservations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("accounts", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("images", Integer, nullable=False),
    Column("created", Float, nullable=False, index=True),
    Column("model", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("holder", String(32), nullable=False),
    Column("state", String(8), nullable=False, index=True),
    Column("settled", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
)
balances: Final = Table(
    "imagegate_balances",
    metadata,
    Column("account", Text, primary_key=True),
    Column("period", String(10), primary_key=True),
    Column("settled", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("images", BigInteger, nullable=False),
)
holders: Final = Table(
    "imagegate_holders",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("seen", Float, nullable=False),
)
