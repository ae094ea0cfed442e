"""Schema migrations, run by ``streams.store.migrate``; no alembic.ini."""
