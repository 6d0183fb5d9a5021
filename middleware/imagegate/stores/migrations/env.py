"""Run by alembic: migrates in the transaction that `imagegate.stores.schema.upgrade` was given."""

from alembic import context

from imagegate.stores.schema import VERSIONS

context.configure(connection=context.config.attributes["connection"], version_table=VERSIONS)
context.run_migrations()
