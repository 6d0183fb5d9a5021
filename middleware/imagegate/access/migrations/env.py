"""Run by alembic: migrates in the transaction that `imagegate.access.database` has opened."""

from alembic import context

from imagegate.access.database import VERSIONS, metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSIONS)
context.run_migrations()
