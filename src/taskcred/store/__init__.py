"""The records: tables, migrations and queries by noun. SQLAlchemy Core, sync, SQLite or PostgreSQL."""
