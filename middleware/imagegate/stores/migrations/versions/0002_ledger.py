"""The ledger. The tables are there already where version 0.1.0 made them, which had no migrations for them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables that are missing, and the index by which old reservations are found."""
    known = set(sa.inspect(op.get_bind()).get_table_names())
    if "imagegate_reservations" not in known:
        op.create_table(
            "imagegate_reservations",
            sa.Column("id", sa.String(64), primary_key=True),
            sa.Column("accounts", sa.Text, nullable=False),
            sa.Column("amount", sa.BigInteger, nullable=False),
            sa.Column("images", sa.Integer, nullable=False),
            sa.Column("created", sa.Float, nullable=False),
            sa.Column("model", sa.Text, nullable=False),
            sa.Column("request_id", sa.Text, nullable=False),
            sa.Column("holder", sa.String(32), nullable=False),
            sa.Column("state", sa.String(8), nullable=False),
            sa.Column("settled", sa.BigInteger, nullable=False),
            sa.Column("held", sa.BigInteger, nullable=False),
        )
        op.create_index("ix_imagegate_reservations_state", "imagegate_reservations", ["state"])
    if "imagegate_balances" not in known:
        op.create_table(
            "imagegate_balances",
            sa.Column("account", sa.Text, primary_key=True),
            sa.Column("period", sa.String(10), primary_key=True),
            *(
                sa.Column(name, sa.BigInteger, nullable=False)
                for name in ("settled", "reserved", "held", "requests", "images")
            ),
        )
    if "imagegate_holders" not in known:
        op.create_table(
            "imagegate_holders",
            sa.Column("id", sa.String(32), primary_key=True),
            sa.Column("seen", sa.Float, nullable=False),
        )
    op.create_index("ix_imagegate_reservations_created", "imagegate_reservations", ["created"])


def downgrade() -> None:
    """Remove the tables."""
    for name in ("reservations", "balances", "holders"):
        op.drop_table(f"imagegate_{name}")
