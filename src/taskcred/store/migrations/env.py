"""Alembic's entry: runs on the connection that `store.migrate.upgrade` hands over."""

from alembic import context

from taskcred.store import service_tables  # loads tables.py too, so that the metadata is whole

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=service_tables.services.metadata,
    render_as_batch=True,
)
context.run_migrations()
