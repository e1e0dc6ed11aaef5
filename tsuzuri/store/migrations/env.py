"""How Alembic runs here: inside the transaction that `database.open` has begun, on its connection."""

from __future__ import annotations

from alembic import context

from tsuzuri.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=False)  # the transaction is ours, not Alembic's
context.run_migrations()
