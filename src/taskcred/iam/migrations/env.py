"""Alembic's entry for iam.db: runs on the connection that `store.migrate.upgrade` hands over."""

from alembic import context

from taskcred.iam.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
context.run_migrations()
