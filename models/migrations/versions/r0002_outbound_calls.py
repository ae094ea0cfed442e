"""Calls to other systems, and what the sweep of scheduled posts needs."""

import sqlalchemy as sa
from alembic import op

from models.migrations.versions.r0001_sessions_pool_posts_audit import CANCEL_POST_OF_KILLED_VARIANT

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OWN_POSTS = "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'scheduled_post'::regclass AND tgname = 'scheduled_post_of_killed_variant')"


def upgrade() -> None:
    """Create the table of calls, and the trigger's function where it is missing; a ``scheduled_post`` that others made is left alone."""
    _create_calls()
    if op.get_bind().execute(sa.text(OWN_POSTS)).scalar_one():
        op.create_index("scheduled_post_runnable_idx", "scheduled_post", ["variant_id"], postgresql_where=sa.text("status IN ('scheduled', 'retry_scheduled')"))
    else:
        op.execute(CANCEL_POST_OF_KILLED_VARIANT)
        op.execute("DO $$ BEGIN EXECUTE format('ALTER FUNCTION early_kill_cancel_post() SET search_path = %I, pg_temp', current_schema()); END $$")


def _create_calls() -> None:
    now = sa.text("now()")
    op.create_table(
        "outbound_call",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("idempotency_key", sa.Uuid(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("kill_id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("variant_id", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("pending_since", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("lease", sa.Uuid()),
        sa.Column("leased_until", sa.DateTime(timezone=True)),
        sa.Column("last_status", sa.BigInteger()),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name=op.f("outbound_call_pkey")),
        sa.UniqueConstraint("idempotency_key", name=op.f("outbound_call_idempotency_key_key")),
        sa.CheckConstraint("event IN ('variant_killed', 'variant_revived')", name=op.f("outbound_call_event_check")),
        sa.CheckConstraint("state IN ('pending', 'confirmed', 'given_up', 'withdrawn')", name=op.f("outbound_call_state_check")),
        sa.CheckConstraint("(finished_at IS NULL) = (state = 'pending')", name=op.f("outbound_call_finished_at_check")),
        sa.CheckConstraint("(lease IS NULL) = (leased_until IS NULL)", name=op.f("outbound_call_lease_check")),
    )
    op.create_index("outbound_call_variant_id_idx", "outbound_call", ["variant_id", "id"])
    op.create_index("outbound_call_due_idx", "outbound_call", ["next_attempt_at", "id"], postgresql_where=sa.text("state = 'pending'"))
    op.create_index("outbound_call_given_up_idx", "outbound_call", ["id"], postgresql_where=sa.text("state = 'given_up'"))
    op.create_index("outbound_call_finished_at_idx", "outbound_call", ["finished_at"], postgresql_where=sa.text("state <> 'pending'"))
