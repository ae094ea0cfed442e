"""One row of the audit for each session and request for a stop, whether the API wrote it or the sink."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SAY_PURGE = "SELECT set_config('early_kill.purge', '{}', true)"
DELETE_REPETITIONS = """
DELETE FROM monitoring_audit AS later USING monitoring_audit AS first
WHERE later.action = 'stop_requested' AND first.action = 'stop_requested'
      AND later.session_id = first.session_id AND later.request_id = first.request_id AND later.id > first.id
"""


def upgrade() -> None:
    """Keep the first row of a request that was repeated under its id, and let no second one come."""
    op.execute("LOCK TABLE monitoring_audit IN SHARE ROW EXCLUSIVE MODE")
    op.execute(SAY_PURGE.format("on"))
    op.execute(DELETE_REPETITIONS)
    op.execute(SAY_PURGE.format("off"))
    op.create_index("monitoring_audit_stop_request_key", "monitoring_audit", ["session_id", "request_id"], unique=True, postgresql_where=sa.text("action = 'stop_requested'"))
