"""Sessions, the pool, scheduled posts, and the audit."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A post that is made runnable while its variant is killed, or being killed, is cancelled at once with the kill's mark.
# FOR SHARE waits for a kill that is under way, and makes a kill wait for this post: none slips in between.
# SECURITY DEFINER: who may insert a post need not have a right on the pool or the audit.
CANCEL_POST_OF_KILLED_VARIANT = """
CREATE FUNCTION early_kill_cancel_post() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    pool record;
    former text := NEW.status;
BEGIN
    SELECT status, kill_id INTO pool FROM variant_pool WHERE variant_id = NEW.variant_id FOR SHARE;
    IF FOUND AND pool.status = 'killed' THEN
        NEW.status := 'cancelled';
        NEW.cancelled_at := clock_timestamp();
        NEW.updated_at := clock_timestamp();
        NEW.cancel_reason := 'Variant is killed' || coalesce(' (kill ' || pool.kill_id || ')', '');
        INSERT INTO monitoring_audit (actor, action, variant_id, facts)
        VALUES ('scheduled_post', 'posts_cancelled', NEW.variant_id,
                jsonb_build_object('kill_id', pool.kill_id, 'posts', jsonb_build_array(jsonb_build_object('id', NEW.id, 'status', former))));
    END IF;
    RETURN NEW;
END $$
"""

REFUSE_CHANGE_OF_AUDIT = """
CREATE FUNCTION early_kill_refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('early_kill.purge', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'monitoring_audit is append-only' USING ERRCODE = 'insufficient_privilege';
END $$
"""


def upgrade() -> None:
    """Create what is missing; ``variant_pool`` and ``scheduled_post`` may be there already, and are left alone then."""
    inspector = sa.inspect(op.get_bind())
    _create_sessions()
    _create_audit()
    if not inspector.has_table("variant_pool"):
        _create_pool()
    if not inspector.has_table("scheduled_post"):
        _create_posts()


def _create_sessions() -> None:
    op.create_table(
        "variant_monitoring",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("variant_id", sa.Text(), nullable=False),
        sa.Column("persona_id", sa.Text(), nullable=False),
        sa.Column("post_id", sa.Text(), nullable=False),
        sa.Column("expected_engagement_rate", sa.Double(), server_default=sa.text("0.06"), nullable=False),
        sa.Column("kill_threshold", sa.Double(), server_default=sa.text("0.5"), nullable=False),
        sa.Column("min_interactions", sa.BigInteger(), server_default=sa.text("10"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("timeout_minutes", sa.Double(), server_default=sa.text("10"), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("was_killed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("outcome", sa.Text()),
        sa.Column("kill_reason", sa.Text()),
        sa.Column("final_engagement_rate", sa.Double()),
        sa.Column("final_interaction_count", sa.BigInteger()),
        sa.Column("final_view_count", sa.BigInteger()),
        sa.Column("monitoring_metadata", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("variant_monitoring_pkey")),
        sa.UniqueConstraint("session_id", name=op.f("variant_monitoring_session_id_key")),
        sa.CheckConstraint("outcome IN ('killed', 'timed_out', 'stopped')", name=op.f("variant_monitoring_outcome_check")),
        sa.CheckConstraint("is_active = (outcome IS NULL) AND was_killed = (outcome IS NOT NULL AND outcome = 'killed')", name=op.f("variant_monitoring_one_end_check")),
        sa.CheckConstraint("(ended_at IS NULL) = is_active", name=op.f("variant_monitoring_ended_at_check")),
        sa.CheckConstraint(
            "expected_engagement_rate > 0 AND expected_engagement_rate <= 1 AND kill_threshold > 0 AND kill_threshold <= 1", name=op.f("variant_monitoring_line_check")
        ),
        sa.CheckConstraint("min_interactions BETWEEN 1 AND 1000000 AND timeout_minutes > 0 AND timeout_minutes <= 43200", name=op.f("variant_monitoring_window_check")),
        sa.CheckConstraint("final_engagement_rate >= 0 AND final_interaction_count >= 0 AND final_view_count >= 0", name=op.f("variant_monitoring_finals_check")),
    )
    page = ["started_at", "session_id"]
    op.create_index("variant_monitoring_newest_idx", "variant_monitoring", page)
    op.create_index("variant_monitoring_variant_id_idx", "variant_monitoring", ["variant_id", *page])
    op.create_index("variant_monitoring_persona_id_idx", "variant_monitoring", ["persona_id", *page])
    op.create_index("variant_monitoring_is_active_idx", "variant_monitoring", page, postgresql_where=sa.text("is_active"))
    op.create_index("variant_monitoring_outcome_idx", "variant_monitoring", ["outcome", *page], postgresql_where=sa.text("NOT is_active"))
    op.create_index("variant_monitoring_ended_at_idx", "variant_monitoring", ["ended_at"], postgresql_where=sa.text("NOT is_active"))


def _create_audit() -> None:
    op.create_table(
        "monitoring_audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Uuid()),
        sa.Column("variant_id", sa.Text()),
        sa.Column("request_id", sa.Uuid()),
        sa.Column("facts", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("monitoring_audit_pkey")),
    )
    for column in ("session_id", "variant_id", "at"):
        op.create_index(f"monitoring_audit_{column}_idx", "monitoring_audit", [column])
    op.execute(REFUSE_CHANGE_OF_AUDIT)
    op.execute(
        "CREATE TRIGGER monitoring_audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON monitoring_audit FOR EACH STATEMENT EXECUTE FUNCTION early_kill_refuse_audit_change()"
    )


def _create_pool() -> None:
    op.create_table(
        "variant_pool",
        sa.Column("variant_id", sa.Text(), nullable=False),
        sa.Column("persona_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'active'"), nullable=False),
        sa.Column("killed_at", sa.DateTime(timezone=True)),
        sa.Column("kill_id", sa.Uuid()),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("variant_id", name=op.f("variant_pool_pkey")),
        sa.CheckConstraint("status IN ('active', 'killed')", name=op.f("variant_pool_status_check")),
    )


def _create_posts() -> None:
    op.create_table(
        "scheduled_post",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("variant_id", sa.Text(), nullable=False),
        sa.Column("scheduled_for", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'scheduled'"), nullable=False),
        sa.Column("cancelled_at", sa.DateTime(timezone=True)),
        sa.Column("cancel_reason", sa.Text()),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("scheduled_post_pkey")),
        sa.CheckConstraint("status IN ('scheduled', 'retry_scheduled', 'published', 'failed', 'cancelled')", name=op.f("scheduled_post_status_check")),
    )
    op.create_index("scheduled_post_variant_id_idx", "scheduled_post", ["variant_id"])
    op.execute(CANCEL_POST_OF_KILLED_VARIANT)
    op.execute("DO $$ BEGIN EXECUTE format('ALTER FUNCTION early_kill_cancel_post() SET search_path = %I, pg_temp', current_schema()); END $$")
    op.execute(
        "CREATE TRIGGER scheduled_post_of_killed_variant BEFORE INSERT OR UPDATE OF status, variant_id ON scheduled_post"
        " FOR EACH ROW WHEN (NEW.status IN ('scheduled', 'retry_scheduled')) EXECUTE FUNCTION early_kill_cancel_post()"
    )
