"""Alembic's entry: runs on the connection that `store.migrate.upgrade` hands over."""

from alembic import context

from taskcred.store import service_tables, tables

assert service_tables.services.metadata is tables.metadata  # loading both modules fills it
context.configure(
    connection=context.config.attributes["connection"], target_metadata=tables.metadata, render_as_batch=True
)
context.run_migrations()
