"""Runs the steps on the connection that the caller hands over, inside the caller's transaction."""

from alembic import context

from models.records import Base

VERSION_TABLE = "early_kill_version"
"""Not Alembic's default: the other programs in this database may use Alembic too."""

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata, version_table=VERSION_TABLE)
context.run_migrations()
